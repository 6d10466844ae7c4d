"""Official DJF and DJFR (Yijunmaverick/DeepJointFilter) to `jaxup.models.DJF`, and the MatConvNet files of both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import check_image, check_shape, fail
from jaxup._matlab import MAX_BYTES, read_mat
from jaxup.interop.checkpoint import reading, refuse, require
from jaxup.interop.keys import Key, Operators, Table
from jaxup.models.joint import DJF, DJF_CROP

# The paddings of the layers, in the order of the file, and whether they are those of `DJF(cropped=True)`.
_BORDERS = {((2, 2, 2, 0, 0, 0), (2, 2, 2)): True, ((4, 0, 2, 4, 0, 2), (4, 0, 2)): False}
_FIELDS = ("type", *(f"{name}{suffix}" for name in ("weights", "filters", "biases") for suffix in ("", "_depth")))
_PARTS = {"guide_cnn": ((1, 3, 5), ""), "target_cnn": ((1, 3, 5), "_depth"), "final_cnn": ((6, 8, 10), "")}


def _djf(config: dict[str, Any], residual: bool) -> tuple[nnx.Module, Table]:
    widths = config["widths"]
    paddings = tuple(config.get("pad", (2, 2, 2, 0, 0, 0))), tuple(config.get("pad_depth", (2, 2, 2)))
    if len(widths) != 6 or (widths[2], widths[5]) != (1, 1):
        fail("widths", "six widths, the third and the last of them 1", widths)
    if paddings not in _BORDERS:
        fail("pad, pad_depth", "one of " + ", ".join(map(str, _BORDERS)), paddings)
    module = DJF(
        widths=tuple(widths[:2]),
        joint_widths=tuple(widths[3:5]),
        residual=config.get("residual", residual),
        cropped=_BORDERS[paddings],
        rngs=nnx.Rngs(0),
    )
    table: Table = {}
    for part, (layers, suffix) in _PARTS.items():
        for index, layer in enumerate(layers):
            table[f"layer{layer}_weights{suffix}"] = Key(f"{part}.convs.{index}.kernel", "conv")
            table[f"layer{layer}_biases{suffix}"] = Key(f"{part}.convs.{index}.bias")
    return module, table


OPERATORS: Operators = {"DJF": lambda config: _djf(config, False), "DJFR": lambda config: _djf(config, True)}


def djf_upsample(network: DJF, x: jax.Array, guide: jax.Array) -> jax.Array:
    """Upsample depth by an official DJF or DJFR in the way that it was trained for.

    It was trained on the last pixel of each s x s block of the depth, enlarged by MATLAB's bicubic interpolation as if
    it were the block's centre, and learned to move the depth back by (s - 1) / 2 pixels. Depth that lies at the centres
    is displaced here, so that this brings it back, and repeated at the borders, which the network takes away. Calling
    the network itself gives what its layers make of enlarged depth.

    Args:
        network: from `from_torch("DJF", ...)` or `from_torch("DJFR", ...)`.
        x: depth [B, h, w, 1], in 0 .. 1 from its least to its greatest value.
        guide: [B, s*h, s*w, Cg] in 0 .. 1, s an integer: that of the training.

    Returns:
        [B, s*h, s*w, 1] in the dtype of x.

    Raises:
        ValueError: maps of a wrong rank, dtype or channel count, or whose sizes do not fit.

    Example:
        >>> network = DJF(widths=(8, 4), joint_widths=(4, 2), cropped=True, rngs=nnx.Rngs(0))
        >>> nnx.jit(djf_upsample)(network, jnp.ones((1, 3, 4, 1)), jnp.ones((1, 12, 16, 3))).shape
        (1, 12, 16, 1)

    Reference:
        Li et al., Deep Joint Image Filtering, ECCV 2016; Yijunmaverick/DeepJointFilter (MIT).
    """
    check_image("x", x)
    check_image("guide", guide)
    scale = max(1, guide.shape[1] // max(1, x.shape[1]))
    check_shape("guide", guide, (x.shape[0], scale * x.shape[1], scale * x.shape[2], None))
    border = -(-DJF_CROP // scale) + 2
    x, guide = (
        jnp.pad(y, ((0, 0), (n, n), (n, n), (0, 0)), mode="edge") for y, n in ((x, border), (guide, border * scale))
    )
    factors, shift = jnp.full(2, scale, jnp.float32), jnp.full(2, (1 - scale) / 2, jnp.float32)
    size = (*guide.shape[:3], x.shape[3])
    enlarged = jax.image.scale_and_translate(x, size, (1, 2), factors, shift, "cubic", antialias=False)
    out = network(enlarged.astype(x.dtype), guide)
    inner = border * scale - (DJF_CROP if network.cropped else 0)
    return out[:, inner:-inner, inner:-inner]


def load_matconvnet(path: str | Path) -> dict[str, np.ndarray]:
    """Read the filters and biases of a MatConvNet network in its simple form, as DJF and DJFR are published.

    The file holds a struct `net` whose cell array `layers` has structs of `type` "conv" among others, each with a cell
    `weights` = {filters, biases}, or with `filters` and `biases` of its own. Layers that the second stream shares have
    the same fields once more, with the suffix `_depth`. Nothing in the file is executed.

    Args:
        path: a .mat file, of MATLAB's version 5 to 7, or 7.3 (read by h5py).

    Returns:
        {"layerI_weights": filters [out, in, h, w], "layerI_biases": [out]}, with I counting from 1 in the file, and
        likewise "layerI_weights_depth" and "layerI_biases_depth": the state dict of `from_torch("DJF", ...)`.

    Raises:
        ValueError: no such file format, h5py is not installed, or the file holds no such network, or more than 64 MiB.
        OSError: the file cannot be read.

    Example:
        >>> load_matconvnet("Upsampling_8x.mat")  # doctest: +SKIP
        {'layer1_weights': array(...), ...}

    Reference:
        Vedaldi and Lenc, MatConvNet: Convolutional Neural Networks for MATLAB, 2015, `vl_simplenn`.
    """
    path = Path(path)
    with reading(path, "a .mat file with net.layers"):
        with path.open("rb") as file:
            version_7_3 = file.read(10) == b"MATLAB 7.3"
        layers = [] if version_7_3 else _layers(path)
    if version_7_3:
        require("h5py", path)
        with reading(path, "a .mat file with net.layers"):
            layers = list(_read_hdf5(path))
    tensors: dict[str, np.ndarray] = {}
    for index, layer in enumerate(layers, start=1):
        if layer.get("type", "conv") == "conv":
            tensors |= {f"layer{index}_{name}": x for name, x in _parameters(path, layer)}
    if not tensors:
        fail(str(path), "net.layers with filters and biases", "none")
    return tensors


def _parameters(path: Path, layer: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The filters and biases of one layer, MATLAB's [h, w, in, out] as PyTorch's [out, in, h, w]."""
    for suffix in ("", "_depth"):
        pair = layer.get(f"weights{suffix}") or [layer.get(f"{name}{suffix}") for name in ("filters", "biases")]
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, np.ndarray) for x in pair):
            filters, biases = pair
            if filters.ndim > 4:
                refuse(path, "filters [h, w, in, out]", f"shape {filters.shape}")
            filters = filters.reshape(filters.shape + (1,) * (4 - filters.ndim))  # MATLAB drops last axes of length 1
            yield f"weights{suffix}", np.ascontiguousarray(filters.transpose(3, 2, 0, 1), np.float32)
            yield f"biases{suffix}", np.ascontiguousarray(biases.reshape(-1), np.float32)


def _layers(path: Path) -> list[dict[str, Any]]:
    """The layers of a file up to version 7: {field: text, array or list of arrays}."""
    (net,) = read_mat(path, "net")
    return [layer for (layer,) in net["layers"]]


def _read_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    """The layers of a file of version 7.3, in which cells hold references, and axes are reversed."""
    import h5py  # here, because only this needs it

    from jaxup import _hdf5

    left = MAX_BYTES

    def plain(item: Any, cells: bool = True) -> Any:
        nonlocal left
        array = _hdf5.numbers(item, left)
        left -= max(array.nbytes, 64)  # what an array takes, if it is empty
        if array.dtype.kind == "O":  # references
            return [plain(file[reference], cells=False) for reference in array.flat] if cells else None
        is_text = item.attrs.get("MATLAB_class") == b"char" and array.size < 256
        return "".join(map(chr, array.flat)) if is_text else array.transpose()

    with h5py.File(path, "r") as file:
        for reference in _hdf5.numbers(_hdf5.dataset(file, "net/layers"), left).flat:
            layer = file[reference]
            yield {name: plain(_hdf5.dataset(layer, name)) for name in _FIELDS if name in layer}
