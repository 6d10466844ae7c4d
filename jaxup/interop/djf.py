"""Official DJF and DJFR (Yijunmaverick/DeepJointFilter) to `jaxup.models.DJF`, and the MatConvNet files of both."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxup._checks import fail
from jaxup.interop.checkpoint import require
from jaxup.interop.keys import Key, Operators, Table
from jaxup.models.joint import DJF

# The paddings of the layers, in the order of the file, and whether they are those of `DJF(cropped=True)`.
_BORDERS = {((2, 2, 2, 0, 0, 0), (2, 2, 2)): True, ((4, 0, 2, 4, 0, 2), (4, 0, 2)): False}
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


def load_matconvnet(path: str | Path) -> dict[str, np.ndarray]:
    """Read the filters and biases of a MatConvNet network in its simple form, as DJF and DJFR are published.

    The file holds a struct `net` whose cell array `layers` has structs of `type` "conv" among others, each with a cell
    `weights` = {filters, biases}, or with `filters` and `biases` of its own. Layers that the second stream shares have
    the same fields once more, with the suffix `_depth`. Nothing in the file is executed.

    Args:
        path: a .mat file, of MATLAB's version 5 to 7 (read by SciPy) or 7.3 (by h5py).

    Returns:
        {"layerI_weights": filters [out, in, h, w], "layerI_biases": [out]}, with I counting from 1 in the file, and
        likewise "layerI_weights_depth" and "layerI_biases_depth": the state dict of `from_torch("DJF", ...)`.

    Raises:
        ValueError: no such file format, SciPy or h5py is not installed, or the file holds no such network.
        OSError: the file cannot be read.

    Example:
        >>> load_matconvnet("Upsampling_8x.mat")  # doctest: +SKIP
        {'layer1_weights': array(...), ...}

    Reference:
        Vedaldi and Lenc, MatConvNet: Convolutional Neural Networks for MATLAB, 2015, `vl_simplenn`.
    """
    path = Path(path)
    with path.open("rb") as file:
        version_7_3 = file.read(10) == b"MATLAB 7.3"
    read = _read_hdf5 if version_7_3 else _read_scipy
    tensors: dict[str, np.ndarray] = {}
    for index, layer in enumerate(read(path), start=1):
        if layer.get("type", "conv") == "conv":
            tensors |= {f"layer{index}_{name}": x for name, x in _parameters(layer)}
    if not tensors:
        fail(str(path), "net.layers with filters and biases", "none")
    return tensors


def _parameters(layer: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The filters and biases of one layer, MATLAB's [h, w, in, out] as PyTorch's [out, in, h, w]."""
    for suffix in ("", "_depth"):
        pair = layer.get(f"weights{suffix}") or [layer.get(f"{name}{suffix}") for name in ("filters", "biases")]
        if len(pair) == 2 and all(isinstance(x, np.ndarray) for x in pair):
            filters, biases = pair
            filters = filters.reshape(filters.shape + (1,) * (4 - filters.ndim))  # MATLAB drops last axes of length 1
            yield f"weights{suffix}", np.ascontiguousarray(filters.transpose(3, 2, 0, 1), np.float32)
            yield f"biases{suffix}", np.ascontiguousarray(biases.reshape(-1), np.float32)


def _read_scipy(path: Path) -> Iterator[dict[str, Any]]:
    """The layers of a file up to version 7: {field: text, array or list of arrays}."""
    reader = require("scipy.io", path)
    try:
        content = reader.loadmat(path, struct_as_record=False, variable_names=["net"])
        layers = content["net"].flat[0].layers.flat
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError, reader.matlab.MatReadError) as error:
        fail(str(path), "a .mat file with net.layers", f"{type(error).__name__}: {error}")
    for layer in layers:
        yield {name: _plain(value) for name, value in vars(layer.flat[0]).items() if not name.startswith("_")}


def _plain(value: Any) -> Any:
    if value.dtype.kind == "U":
        return str(value.flat[0]) if value.size else ""
    return list(value.flat) if value.dtype == object else value


def _read_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    """The layers of a file of version 7.3, in which cells hold references, and axes are reversed."""
    h5py = require("h5py", path)

    def plain(item: Any) -> Any:
        if item.dtype == h5py.ref_dtype:
            return [plain(file[reference]) for reference in item[()].flat]
        array = item[()].transpose()
        return "".join(map(chr, array.flat)) if item.attrs.get("MATLAB_class") == b"char" else array

    with h5py.File(path) as file:
        if "layers" not in file.get("net", {}):
            fail(str(path), "a .mat file with net.layers", sorted(file))
        for reference in file["net"]["layers"][()].flat:
            layer = file[reference]
            yield {name: plain(value) for name, value in layer.items() if isinstance(value, h5py.Dataset)}
