"""Reading the files that official checkpoints come in."""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxup._checks import fail
from jaxup.interop.keys import as_array


def load_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint: safetensors, or a file of `torch.save` read with `weights_only=True`.

    A state dict may lie under "state_dict" or "model" in the file, and every key may begin with "module.", as
    `DataParallel` leaves it; both are taken off. Nothing in the file is executed.

    Args:
        path: a file whose name ends in .safetensors, or any other, which then needs PyTorch.

    Returns:
        {official key: NumPy array}.

    Raises:
        ValueError: no such format, PyTorch or safetensors is not installed, or the file holds more than tensors.
        OSError: the file cannot be read.

    Example:
        >>> load_checkpoint("weights.safetensors")  # doctest: +SKIP
        {'channel_compressor.weight': array(...), ...}

    Reference:
        https://github.com/huggingface/safetensors, and `torch.load` of PyTorch.
    """
    path = Path(path)
    with path.open("rb"):  # a missing file is an OSError, whatever the reader would say
        pass
    tensors: Any = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    while isinstance(tensors, Mapping) and (inner := [k for k in ("state_dict", "model") if k in tensors]):
        tensors = tensors[inner[0]]
    if not isinstance(tensors, Mapping) or not all(hasattr(x, "shape") for x in tensors.values()):
        fail(str(path), "a state dict: tensors by name", _describe(tensors))
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): x for key, x in tensors.items()}
    return {key: as_array(x) for key, x in tensors.items()}


def require(name: str, path: Path) -> Any:
    """A reader that only this format needs."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        return fail(str(path), f"{package} installed, which reads this format", "no such package")


def _load_safetensors(path: Path) -> Any:
    reader = require("safetensors", path)
    try:
        return require("safetensors.numpy", path).load_file(path)
    except reader.SafetensorError as error:
        return fail(str(path), "a safetensors file", error)


def _load_torch(path: Path) -> Any:
    torch = require("torch", path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        return fail(str(path), "a file of tensors that torch.load(weights_only=True) accepts", error)


def _describe(tensors: Any) -> str:
    if not isinstance(tensors, Mapping):
        return type(tensors).__name__
    return ", ".join(f"{key}: {type(x).__name__}" for key, x in tensors.items() if not hasattr(x, "shape"))
