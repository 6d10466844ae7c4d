"""Official DKN and FDKN (jun0kim/DKN) to `jaxup.models.DKN` and `FDKN`.

The official code enlarges depth by Pillow's bicubic interpolation before the network sees it; the modules that come
from here do so by themselves (`cubic_coefficient=-0.5`). Its low-resolution depth was made by bicubic downsampling, and
all depth was normalised to 0 .. 1. The official images have their channels in the order B, G, R; the modules here take
R, G, B. The official kernels run column by column, with offsets (x, y); ours row by row, with offsets (row, column).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, batch_norm, conv, permuted, prefixed
from jaxup.models.dkn import DKN, FDKN
from jaxup.models.dkn_streams import fdkn_stream

_BGR = permuted("conv", 2, (2, 1, 0))


def _stream(layers: int) -> Table:
    """One stream, with its output channels in the official order."""
    table: Table = conv("conv_weight", "weight_head") | conv("conv_offset", "offset_head")
    for index in range(layers):
        table |= conv(f"conv{index + 1}", f"convs.{index}")
    for index in range(3):
        table |= batch_norm(f"conv{2 * index + 1}_bn", f"norms.{index}")
    return table


def _network(layers: int, kernel_size: int, phases: int) -> Table:
    table = _stream(layers)
    channels = np.arange(2 * phases * kernel_size**2)
    weights = channels[: phases * kernel_size**2].reshape(kernel_size, kernel_size, phases).swapaxes(0, 1)
    offsets = channels.reshape(kernel_size, kernel_size, 2, phases).swapaxes(0, 1)[:, :, ::-1]
    for name, order in {"weight": weights.ravel(), "offset": offsets.ravel()}.items():
        table[f"conv_{name}.weight"] = Key(f"{name}_head.kernel", permuted("conv", 3, order))
        table[f"conv_{name}.bias"] = Key(f"{name}_head.bias", permuted("same", 0, order))
    return prefixed(table, "ImageKernel.", "guide_stream.") | prefixed(table, "DepthKernel.", "depth_stream.")


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """`align_corners` is how the environment's `grid_sample` reads coordinates; true is the official one."""
    return dict(
        kernel_size=config["kernel_size"],
        window_size=config["filter_size"],
        residual=config["residual"],
        grid="compressed" if config.get("align_corners", True) else "shifted",
        cubic_coefficient=-0.5,
        rngs=nnx.Rngs(0),
    )


def _dkn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    table = _network(7, config["kernel_size"], phases=1)
    table["ImageKernel.conv1.weight"] = Key("guide_stream.convs.0.kernel", _BGR)
    return DKN(**_options(config)), table


def _fdkn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    return FDKN(luminance=True, **_options(config)), _network(6, config["kernel_size"], phases=16)


def _kernel_fdkn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """The stream alone gives weights and offsets, as the official one does: in the official order."""
    samples, options = 16 * config["kernel_size"] ** 2, dict(widths=(128, 128), dtype=jnp.float32)
    return fdkn_stream(config["input_channel"], samples, **options, rngs=nnx.Rngs(0)), _stream(6)


OPERATORS: Operators = {"DKN": _dkn, "FDKN": _fdkn, "Kernel_FDKN": _kernel_fdkn}
