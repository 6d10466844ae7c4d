"""Images and maps of data sets, read safely: see `jaxup.files`; here with archives, and as float32.

Names in lists may not lead out of their folder; symbolic links that a folder has are the user's own, and followed.
"""

import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxup import files
from jaxup._decoders import in_memory, opened
from jaxup.files import InputError, as_map, read_grey, read_npy, reading, white_level

__all__ = [
    "ARRAY_SUFFIXES",
    "SUFFIXES",
    "InputError",
    "listed_file",
    "open_image",
    "read_arrays",
    "read_dpt",
    "read_map",
    "read_rgb",
    "reading",
    "with_mask",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
ARRAY_SUFFIXES = (".npy", ".npz", ".pfm")
DPT_TAG = 202021.25
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
_HEADER = 2**14  # bytes before the numbers of an .npy


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


def open_image(path: Path, stored: bytes | None = None) -> Image.Image:
    """An image of the formats that are read and of bearable size, in a file or a part of it, before it is decoded."""
    image: Image.Image = opened(Image, in_memory(path) if stored is None else stored, _FORMATS)
    try:
        files.check_pixels(path, image.height, image.width)
    except InputError:
        image.close()
        raise
    return image


def read_arrays(path: Path, names: Iterable[str]) -> Mapping[str, np.ndarray]:
    """Arrays of an `.npz` by name.

    Packed ones may have 8 bytes for each of `MAX_PIXELS`; others as many as the file.

    Raises:
        InputError: the file is missing, cannot be read, or has not these arrays.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        most = max(files.MAX_PIXELS * 8, path.stat().st_size)
        return {name: _array(path, archive, f"{name}.npy", most) for name in names}


def listed_file(path: Path, base: Path, name: str) -> Path:
    """The file that a list means by a name from a folder.

    Raises:
        InputError: the name leads out of the folder, or is none.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise InputError(f"{path}: lists {name!r}, which is not in {base}")
    if len(name.encode(errors="replace")) > 1000 or max(len(part.encode(errors="replace")) for part in parts) > 255:
        raise InputError(f"{path}: lists a name of {len(name)} characters")
    return base / name


def _from_archive(path: Path, key: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        return _array(path, archive, names[0] if len(names) == 1 else f"{key}.npy", files.MAX_PIXELS * 8)


def _array(path: Path, archive: zipfile.ZipFile, member: str, most: int) -> np.ndarray:
    """An array, of which its header has to say the size that the archive says."""
    names = archive.namelist()
    if member not in names:
        there = " ".join(", ".join(names[:20]).split())
        raise InputError(f"{path}: cannot be read: no array {member.removesuffix('.npy')!r}, there are {there}")
    size = archive.getinfo(member).file_size
    if size > most:
        raise InputError(f"{path}: more than {files.MAX_PIXELS} pixels")
    with archive.open(member) as file:
        shape, _, dtype = _npy_header(file)
    if dtype.hasobject or not 0 <= size - math.prod(shape) * dtype.itemsize <= _HEADER:
        raise InputError(f"{path}: {member!r} of {size} bytes is no array {dtype} {shape}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
