"""Safe reading of image and array files: allowed formats only, a pixel cap, and one error, `InputError`."""

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
ARRAY_SUFFIXES = (".npy", ".npz")
DPT_TAG = 202021.25
MAX_PIXELS = 2**26  # 67 million: 8192 x 8192

# Pillow warns between one and two times its own limit and raises beyond; here both are refusals.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into an `InputError` of one line that names the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise nearly anything: SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _decode(path: Path, modes: tuple[str, ...], convert_to: str | None = None) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"{path}: {image.width} x {image.height} is more than {MAX_PIXELS} pixels")
        if image.mode not in modes:
            raise InputError(f"{path}: expected an image of mode {', '.join(modes)}, got {image.mode}")
        return np.asarray(image.convert(convert_to) if convert_to else image)


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour or grey image of 8 bits a channel.

    Returns:
        uint8 [H, W, 3]; a grey image in three equal channels, an alpha channel dropped.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, or of more than 8 bits.
    """
    with reading(path):
        return _decode(path, ("RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr"), convert_to="RGB")


def read_map(path: Path, key: str = "depth") -> np.ndarray:
    """Read a map of one channel: a grey image of 8, 16 or 32 bits, an `.npy`, or an array of an `.npz`.

    Args:
        path: The file; its suffix decides between array and image.
        key: The name of the array inside an `.npz`; an archive of one array may call it anything.

    Returns:
        float32 [H, W], the stored values.

    Raises:
        InputError: the file is missing, truncated, of another kind, too large, or not of one channel.
    """
    with reading(path):
        is_array = path.suffix.lower() in ARRAY_SUFFIXES
        stored = _array(path, key) if is_array else _decode(path, ("L", "I", "I;16", "I;16B", "F"))
        if stored.ndim == 3 and stored.shape[2] == 1:
            stored = stored[..., 0]
        if stored.ndim != 2 or stored.dtype.kind not in "uif" or stored.size == 0:
            raise InputError(f"{path}: expected numbers [H, W], got {stored.dtype} {stored.shape}")
        return stored.astype(np.float32)


def read_dpt(path: Path) -> np.ndarray:
    """Read a depth map of MPI Sintel: the tag 202021.25 (float32), width and height (int32), and the rows (float32).

    Returns:
        float32 [H, W], in metres.

    Raises:
        InputError: the file is missing, too large, without the tag, or not of the length that its size asks for.
    """
    with reading(path):
        if path.stat().st_size > 12 + 4 * MAX_PIXELS:
            raise InputError(f"{path}: more than {MAX_PIXELS} pixels")
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


def _array(path: Path, key: str) -> np.ndarray:
    limit = MAX_PIXELS * 8
    if path.suffix.lower() == ".npy":
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: the header's size is checked, not allocated
        if stored.nbytes > limit:
            raise InputError(f"{path}: more than {MAX_PIXELS} pixels")
        return stored
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = names[0] if len(names) == 1 else f"{key}.npy"
        if member not in names:
            raise InputError(f"{path}: no array {key!r}, there are {', '.join(names)}")
        if archive.getinfo(member).file_size > limit:
            raise InputError(f"{path}: more than {MAX_PIXELS} pixels")
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
