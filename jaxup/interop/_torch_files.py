"""Reading files of `torch.save`: tensors, and numbers beside them, without anything of a file that could do harm."""

import argparse
import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_CODE = re.compile(r"[?bhilqBHILQefdFD]|[biufc]\d{1,2}")  # of a type of numbers


class _Type:
    """What stands for `numpy.dtype`, whose own way to take a state ends the process for some of them."""

    def __init__(self, code: str, *_: Any):
        self.dtype = np.dtype(code) if _CODE.fullmatch(code) else None

    def __setstate__(self, state: Any) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    """What stands for `numpy.ndarray`: an array of numbers, as many as the file has."""

    def __new__(cls, *_: Any) -> "_Array":
        return super().__new__(cls, (0,))

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        found = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")
        plain: Any = (1, found.shape, found.dtype, bool(fortran), found.tobytes("A"))
        super().__setstate__(plain)


def _empty(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: _Type, data: bytes) -> Any:
    """A number; text, which is no weight, is passed over."""
    return None if kind.dtype is None else np.frombuffer(data, kind.dtype, 1)[0]


# What checkpoints hold beside tensors and torch.load does not know by itself: options, and NumPy's scalars and arrays.
# Files name the functions of NumPy by where they lay in the version that wrote them.
_BESIDE: list[Any] = [argparse.Namespace, (_Type, "numpy.dtype"), (_Array, "numpy.ndarray")]
for _core in ("core", "_core"):
    _BESIDE += [(_empty, f"numpy.{_core}.multiarray._reconstruct"), (_scalar, f"numpy.{_core}.multiarray.scalar")]


def load_torch(torch: Any, path: Path) -> Any:
    """What `torch.load(weights_only=True)` makes of a file.

    Raises:
        Exception: whatever PyTorch raises; a file that would be larger in memory.
    """
    size = path.stat().st_size
    source: Any = path
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\3\4"
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
            raise ValueError("an archive that is larger unpacked")
    else:  # the reader of old files asks for as many bytes as a damaged one says: there are no more than these
        source = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings(), torch.serialization.safe_globals(_BESIDE):
        warnings.simplefilter("ignore")  # of what it says about odd files
        return torch.load(source, map_location="cpu", weights_only=True)
