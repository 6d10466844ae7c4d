"""Weights of Caffe's networks."""

from pathlib import Path

import numpy as np

from jaxup._caffe import read_caffemodel
from jaxup.interop.checkpoint import reading, refuse

_NAMES = ("weight", "bias")


def load_caffemodel(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.caffemodel` file, of the layers as they are today or as they were before 2014.

    Caffe's filters [out, in, h, w], those of transposed convolutions [in, out, h, w] and slopes [channels] are laid
    out as PyTorch's. Nothing in the file is executed.

    Args:
        path: the file.

    Returns:
        {"LAYER.weight": the first array of a layer, "LAYER.bias": the second, "LAYER.2", ...}: the state dict of
        `from_torch("DMSG", ...)`. Biases that older files have as [1, 1, 1, out] are [out].

    Raises:
        ValueError: no such file format, a damaged file, one of more than 64 MiB, without arrays, or with two layers of
            one name.
        OSError: the file cannot be read.

    Example:
        >>> load_caffemodel("MSGNet_x8.caffemodel")  # doctest: +SKIP
        {'conv1-Y.weight': array(...), ...}

    Reference:
        Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, ACM Multimedia 2014.
    """
    path, tensors = Path(path), {}
    with reading(path, "a .caffemodel file"):
        layers = read_caffemodel(path)
    for layer in layers:
        for index, array in enumerate(layer.blobs):
            name = f"{layer.name}.{_NAMES[index] if index < len(_NAMES) else index}"
            if name in tensors:
                refuse(path, "layers of different names", f"two of {layer.name!r}")
            old_bias = index == 1 and array.ndim == 4 and array.shape[:3] == (1, 1, 1)
            tensors[name] = array.reshape(-1) if old_bias else array
    if not tensors:
        refuse(path, "a .caffemodel file with weights", "none")
    return tensors
