"""Matting networks of the subcommand `matte`: recognised from the keys of a checkpoint, run whole or in tiles."""

from collections.abc import Callable, Mapping
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup.cli import methods
from jaxup.cli.common import Show
from jaxup.cli.depth import Window, windows
from jaxup.files import InputError
from jaxup.models.matting import A2UMatting, DeepLabMatting, DeepMatting, MattingNetwork, RefineNetMatting
from jaxup.models.matting.factory import processing

_NETWORKS = (A2UMatting, DeepLabMatting, DeepMatting, MattingNetwork, RefineNetMatting)
_ALIGN = 32  # of tiles, which begin where the coarsest maps have pixels
Tensors = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], np.ndarray]


def load_network(path: Path) -> tuple[str, Callable[..., np.ndarray]]:
    """The name of the network in a file, and what makes mattes with it.

    Raises:
        InputError: a file of something else.
        ValueError: a file that cannot be read.
    """
    network: Any = methods.load_network(path, recognise, "IndexNet matting or A2U matting")
    network.eval()
    if not isinstance(network, _NETWORKS):
        raise InputError(f"{path}: weights of {type(network).__name__}, which is no matting network")
    graph, variables = nnx.split(network)
    compiled = jax.jit(lambda variables, x: nnx.merge(graph, variables)(x))
    run = lambda x: np.asarray(compiled(variables, jnp.asarray(x)[None]))[0, ..., 0]  # noqa: E731
    before, after = processing(network)
    return type(network).__name__, partial(_matte, run, before, after)


def _matte(
    run: Run,
    before: Callable[..., np.ndarray],
    after: Callable[..., np.ndarray],
    image: np.ndarray,
    trimap: np.ndarray,
    *,
    tile: int,
    show: Show,
) -> np.ndarray:
    alpha: np.ndarray = after(_in_tiles(run, before(image, trimap), tile, show), trimap)
    return alpha


def _in_tiles(run: Run, x: np.ndarray, tile: int, show: Show) -> np.ndarray:
    """The output for an input [H, W, 4]; neighbours of a tile see an eighth of it, too."""
    out = np.zeros(x.shape[:2], np.float32)
    rows, columns = _windows(len(x), tile), _windows(x.shape[1], tile)
    parts = [(y, z) for y in rows for z in columns]
    for index, (y, z) in enumerate(parts):
        seen = x[y.start : y.stop, z.start : z.stop]
        if _unknown(x[y.first : y.last, z.first : z.last]):  # elsewhere the trimap says it all
            part = run(seen)
            kept = slice(y.first - y.start, y.last - y.start), slice(z.first - z.start, z.last - z.start)
            out[y.first : y.last, z.first : z.last] = part[kept]
        show(index + 1, len(parts))
    return out


def _windows(length: int, tile: int) -> list[Window]:
    if not tile or length <= tile:
        return [Window(0, length, 0, length)]
    margin = -(-tile // (8 * _ALIGN)) * _ALIGN
    return list(windows(length, tile - 2 * margin, margin, align=_ALIGN))


def _unknown(x: np.ndarray) -> bool:
    return bool(((x[..., 3] > 0) & (x[..., 3] < 1)).any())


def recognise(state: Tensors) -> tuple[str, dict[str, Any]] | None:
    """The official class of these keys, and its config as far as names and shapes of tensors tell; None: another."""
    if "bilinear0.bconv_UP.1.weight" in state:
        return "resnetmat", _a2u(state)
    if "conv11.weight" in state and "alpha_pred.weight" in state:
        return "hlvgg16", {"input_chn": state["conv11.weight"].shape[1]}
    if "layer7.0.conv.7.weight" in state:
        return "hlmobilenetv2", _indexnet(state)
    return None


def _a2u(state: Tensors) -> dict[str, Any]:
    """The size of the filters is not in the file: 6, as in both official configs. Nor is the stride."""
    block = "decoder_layer1.dconv"
    entries = len(state["bilinear0.bconv_UP.1.weight"]) // 4
    size = max(k for k in range(1, isqrt(entries) + 1, 2) if entries % k**2 == 0)
    operator = "residual_conv" if f"{block}.proj_conv.weight" in state else "std_conv"
    return {
        "stride": 16,
        "aspp": "dconv_pp.bottleneck_conv.0.weight" in state,
        "decoder_conv_operator": "dep_sep_conv" if f"{block}.2.weight" in state else operator,
        "decoder_kernel_size": state["pred.1.weight"].shape[-1],
        "up_kernel_size": size,
        "encode_kernel_size": 6,
        "downupsample_group": entries // size**2,
        "share": len(state["bilinear0.bconv_U.1.weight"]) == 1,
    }


def _indexnet(state: Tensors) -> dict[str, Any]:
    config: dict[str, Any] = {"width_mult": len(state["layer7.0.conv.7.weight"]) / 320}
    config["apply_aspp"] = "dconv_pp.aspp1.atrous_conv.0.weight" in state
    block = "decoder_layer0.dconv"
    if "decoder.first_dconv.0.weight" in state:
        config |= {"decoder": "deeplabv3+", "output_stride": 16}
        block = "decoder.last_dconv.0"
    elif "dconv_adapt4.0.weight" in state:
        config |= {"decoder": "refinenet", "output_stride": 32}
        block = "pred.0"
    else:
        config |= _stages(state)
    config["conv_operator"] = "dep_sep_conv" if f"{block}.3.weight" in state else "std_conv"
    return config | {"decoder_kernel_size": state[f"{block}.0.weight"].shape[-1]}


def _stages(state: Tensors) -> dict[str, Any]:
    first = "index0.indexnet"
    if not any(name.startswith(first) for name in state):
        return {"decoder": "unet_style", "output_stride": 32}
    holistic = not any(name.startswith(f"{first}1") for name in state)
    column = first if holistic else f"{first}1"
    kernel = state[next(name for name in (f"{column}.weight", f"{column}.0.weight") if name in state)]
    pooled = [i for i in (4, 6) if any(name.startswith(f"index{i}.") for name in state)]
    return {
        "decoder": "indexnet",
        "output_stride": 8 * 2 ** len(pooled),
        "indexnet": "holistic" if holistic else "depthwise",
        "index_mode": "o2o" if holistic or kernel.shape[1] == 1 else "m2o",
        "use_nonlinear": f"{column}.3.weight" in state,
        "use_context": kernel.shape[-1] > 2,
    }
