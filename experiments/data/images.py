"""Images and maps of data sets, read safely: see `jaxup.files`; here with archives, and as float32."""

import zipfile
from pathlib import Path

import numpy as np

from jaxup import files
from jaxup.files import InputError, as_map, read_grey, read_npy, reading, white_level

__all__ = ["ARRAY_SUFFIXES", "SUFFIXES", "InputError", "read_dpt", "read_map", "read_rgb", "reading", "with_mask"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
ARRAY_SUFFIXES = (".npy", ".npz", ".pfm")
DPT_TAG = 202021.25


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour or grey image, see `jaxup.files.read_rgb`; 16 bits a channel are rounded to 8: uint8 [H, W, 3]."""
    stored = files.read_rgb(path)
    return (
        stored if stored.dtype == np.uint8 else np.rint(stored * np.float32(255 / white_level(stored))).astype(np.uint8)
    )


def read_map(path: Path, key: str = "depth") -> np.ndarray:
    """Read a map of one channel: a grey image, a PFM, an `.npy`, or an array of an `.npz`.

    Args:
        path: The file; its suffix decides between array and image.
        key: The name of the array inside an `.npz`; an archive of one array may call it anything.

    Returns:
        float32 [H, W], the stored values.

    Raises:
        InputError: the file is missing, truncated, of another kind, too large, or not of one channel.
    """
    with reading(path):
        suffix = path.suffix.lower()
        stored = _from_archive(path, key) if suffix == ".npz" else (read_npy if suffix == ".npy" else read_grey)(path)
        return as_map(path, stored).astype(np.float32)


def read_dpt(path: Path) -> np.ndarray:
    """Read a depth map of MPI Sintel: the tag 202021.25 (float32), width and height (int32), and the rows (float32).

    Returns:
        float32 [H, W], in metres.

    Raises:
        InputError: the file is missing, too large, without the tag, or not of the length that its size asks for.
    """
    with reading(path):
        if path.stat().st_size > 12 + 4 * files.MAX_PIXELS:
            raise InputError(f"{path}: more than {files.MAX_PIXELS} pixels")
        stored = path.read_bytes()
        if np.frombuffer(stored, "<f4", 1)[0] != DPT_TAG:
            raise InputError(f"{path}: does not begin with the tag {DPT_TAG} of a .dpt file")
        width, height = (int(n) for n in np.frombuffer(stored, "<i4", 2, offset=4))
        if min(width, height) < 1 or len(stored) != 12 + 4 * width * height:
            raise InputError(f"{path}: {len(stored)} bytes are not a depth map of {width} x {height} pixels")
        return np.frombuffer(stored, "<f4", offset=12).reshape(height, width).astype(np.float32)


def with_mask(depth: np.ndarray, invalid_zero: bool) -> tuple[np.ndarray, np.ndarray]:
    """A stored map [H, W] and where it is valid: where it is finite and, with `invalid_zero`, not 0."""
    return depth, np.isfinite(depth) & ((depth != 0) | (not invalid_zero))


def _from_archive(path: Path, key: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = names[0] if len(names) == 1 else f"{key}.npy"
        if member not in names:
            raise InputError(f"{path}: no array {key!r}, there are {', '.join(names)}")
        if archive.getinfo(member).file_size > files.MAX_PIXELS * 8:
            raise InputError(f"{path}: more than {files.MAX_PIXELS} pixels")
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
