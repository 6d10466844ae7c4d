"""Safe reading and writing of images and depth maps: allowed formats, a pixel cap, and one error, `InputError`.

Images are PNG, JPEG, WebP, TIFF, BMP, PGM and PPM; depth maps also PFM, `.npy` and EXR. What is read are the numbers
that the file stores, in a type that holds them, turned upright where EXIF or TIFF has an orientation.
"""

import contextlib
import errno
import importlib
import io
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxup._decoders import Picture, decode
from jaxup._writing import write_file

MAX_PIXELS = 2**26  # 67 million: 8192 x 8192
DEPTH_FORMATS = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
    ".exr": "EXR",
    ".pfm": "PFM",
    ".pgm": "PGM",
}
_EXPANSION, _EXR_SMALL = 1040, 2**24  # bytes that deflate makes of one, at most; those of an EXR that is never refused
_GREY = 16  # what the channels of a grey image may differ by, as JPEG makes them
_EXTRA = 'pip install "jaxup[experiments]"'
_PACKAGES = {"PIL": f"Pillow: {_EXTRA}", "scipy": f"SciPy: {_EXTRA}"} | {
    name: f"{name}: {_EXTRA}" for name in ("tifffile", "imagecodecs")
}
_PACKAGES["pymatting"] = 'PyMatting: pip install "jaxup[matting]"'
_PACKAGES["pycocotools"] = 'pycocotools: pip install "jaxup[detection]"'


class InputError(ValueError):
    """Bad input from the user: a file, folder or option. The message is one line and names it."""


def require(name: str) -> Any:
    """Import a package that is no core dependency."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"this needs {_PACKAGES.get(package, f'{package}: pip install {package}')}") from error


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


def check_pixels(path: Path, height: int, width: int) -> None:
    """Refuse images of more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} is more than {MAX_PIXELS} pixels")


def _picture(path: Path) -> Picture:
    with reading(path):
        picture = decode(path, require, partial(check_pixels, path))
        if picture.pixels.size == 0:
            raise InputError(f"{path}: has no pixels")
        return picture


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour or grey image of at most 16 bits a channel.

    Channels of 8 and 16 bits are the stored numbers; those of other widths (4 or 12 bits, say) are spread over the type
    that holds them, and where a file counts from white they are turned round.

    Returns:
        uint8 or uint16 [H, W, 3]; a grey image in three equal channels, an alpha channel dropped, colours of a palette
        looked up. Divide by `white_level` for numbers in 0 .. 1.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, of several pages, or of other numbers.
    """
    pixels, _, black, white = _picture(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: expected an image of at most 16 bits a channel, got {pixels.dtype}")
    full = np.iinfo(pixels.dtype).max
    if (black, white) != (0, full):
        spread = np.rint((np.arange(full + 1.0) - black) * full / (white - black))
        pixels = np.clip(spread, 0, full).astype(pixels.dtype)[pixels]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)


def white_level(pixels: np.ndarray) -> int:
    """The number of white in an image of 8 or 16 bits, by which to divide it.

    It is the largest number of the type. But 16 bits often hold the 10, 12 or 14 of a sensor, and would be nearly black
    as a guide: it is the largest number of the fewest of these that hold the image.
    """
    if pixels.dtype == np.uint8:
        return 255
    if pixels.dtype != np.uint16:
        raise InputError(f"image: expected uint8 or uint16, got {pixels.dtype}")
    return next(white for white in (2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1) if pixels.max() <= white)


def read_rgb8(path: Path) -> np.ndarray:
    """Read an image as `read_rgb`, with its white as 255: uint8 [H, W, 3]."""
    pixels = read_rgb(path)
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(pixels * np.float32(255 / white_level(pixels))).astype(np.uint8)


def read_trimap(path: Path) -> np.ndarray:
    """Read a trimap: black is background, white foreground, and everything between unknown.

    Of 16 bits the upper 8 count, unless they are all zero: then the lower ones.

    Returns:
        uint8 [H, W] of 0, 128 and 255.

    Raises:
        InputError: as `read_rgb`, or an image of colours.
    """
    pixels = read_rgb(path)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8 if pixels.max() > 255 else pixels).astype(np.uint8)
    if np.ptp(pixels, axis=2).max() > _GREY:
        raise InputError(f"{path}: expected a grey trimap, got colours")
    grey = pixels.min(axis=2), pixels.max(axis=2)
    return np.where(grey[1] == 0, 0, np.where(grey[0] == 255, 255, 128)).astype(np.uint8)


def read_grey(path: Path) -> np.ndarray:
    """Read a grey image as it is stored: integers or floating-point numbers of 8 to 64 bits [H, W].

    Narrower numbers come in uint8 or uint16, unchanged; so do those of TIFF and PGM files that count from or up to
    another white.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, of several pages, or not grey.
    """
    picture = _picture(path)
    if picture.kind != "grey":
        raise InputError(f"{path}: expected an image of one channel, got {picture.kind}")
    return picture.pixels


def read_npy(path: Path) -> np.ndarray:
    """Read an array [H, W], mapped, so that the size in its header is checked before anything is allocated."""
    with reading(path):
        stored: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if stored.nbytes > MAX_PIXELS * 8:
            raise InputError(f"{path}: more than {MAX_PIXELS} pixels")
        return stored


def depth_format(path: Path) -> str:
    """The format of a depth map, by the ending of its name."""
    if path.suffix.lower() not in DEPTH_FORMATS:
        raise InputError(f"{path}: expected a name that ends in {', '.join(DEPTH_FORMATS)}")
    return DEPTH_FORMATS[path.suffix.lower()]


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map: a grey PNG, TIFF, PGM or PFM, an `.npy`, or an EXR of one channel or with a Z.

    Returns:
        [H, W], numbers of the type that the file stores.

    Raises:
        InputError: the file is missing, truncated, of another kind, too large, or not of one channel.
    """
    read = {"NPY": read_npy, "EXR": _read_exr}.get(depth_format(path), read_grey)
    stored = as_map(path, read(path))
    return np.array(stored, stored.dtype.newbyteorder("="))


def as_map(path: Path, stored: np.ndarray) -> np.ndarray:
    """Require real numbers [H, W] or [H, W, 1], and return them as [H, W]."""
    if stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    if stored.ndim != 2 or stored.dtype.kind not in "uif" or stored.size == 0:
        raise InputError(f"{path}: expected numbers [H, W], got {stored.dtype} {stored.shape}")
    return stored


def _read_exr(path: Path) -> np.ndarray:
    openexr = require("OpenEXR")
    with reading(path):
        with openexr.File(str(path), header_only=True) as file:
            (first, last), count = file.header()["dataWindow"], len(file.header()["channels"])
        height, width = int(last[1] - first[1]) + 1, int(last[0] - first[0]) + 1
        check_pixels(path, height, width)
        if 4 * count * height * width > max(_EXR_SMALL, _EXPANSION * path.stat().st_size):
            raise InputError(f"{path}: {width} x {height} pixels are more than the file can hold")
        with openexr.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            if len(channels) > 1 and "Z" not in channels:
                raise InputError(f"{path}: expected one channel or a channel Z, there are {', '.join(channels)}")
            name = "Z" if "Z" in channels else next(iter(channels))
            return np.asarray(channels[name].pixels)


def output_dtype(path: Path, source: Path, dtype: np.dtype) -> np.dtype:
    """What `path` stores: PNG and PGM 8 or 16 bits; else the type of a source of the same format, or float32."""
    written = depth_format(path)
    if written in ("PNG", "PGM"):
        return np.dtype(np.uint8 if dtype == np.uint8 else np.uint16)
    if written == depth_format(source):
        return dtype
    return np.dtype(np.float64 if written in ("NPY", "TIFF") and dtype == np.float64 else np.float32)


def as_stored(values: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    """Values in the type of a file; integers are rounded. What does not fit is an error, never cut off."""
    finite = np.isfinite(values)
    rounded = np.rint(values) if dtype.kind in "ui" else values
    limits: Any = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(dtype)
    if dtype.kind in "ui":
        fits = (rounded >= limits.min) & (rounded <= float(limits.max))
    else:
        fits = ~finite | (np.abs(rounded) <= limits.max)
    if not fits.all():
        other = {".npy": ".tiff", ".tif": ".npy", ".tiff": ".npy"}.get(path.suffix.lower(), ".npy or .tiff")
        hint = f"choose a name that ends in {other}"
        if dtype == np.float32:  # as the other formats would store it, too
            hint = "expected depth in a larger unit"
        what = "NaN or infinity"
        if not fits[finite].all():
            what = f"values from {values[finite].min():.6g} to {values[finite].max():.6g}"
        raise InputError(f"{path}: {what} cannot be stored as {dtype}: {hint}")
    if dtype.kind == "f":
        return rounded.astype(dtype)
    below = rounded < float(limits.max)  # the largest number of 64 bits is no float64: this is the next above it
    return np.where(below, np.where(below, rounded, 0).astype(dtype), dtype.type(limits.max))


def write_depth(path: Path, values: np.ndarray) -> None:
    """Write a map [H, W] in the format of the name, all of it or nothing; a link is replaced, see `jaxup._writing`."""
    _write(path, values, _ENCODERS[depth_format(path)])


def write_rgb(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 [H, W, 3], as PNG, all of it or nothing; a link is replaced, see `jaxup._writing`."""
    _write(path, pixels, _png)


def _write(path: Path, values: np.ndarray, encode: Callable[[np.ndarray], bytes]) -> None:
    try:
        write_file(path, encode(values))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


# Encoded in memory: the writers of these packages do not notice every disk that is full.
def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    require("PIL.Image").fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def _tiff(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    require("tifffile").imwrite(buffer, values, photometric="minisblack", metadata=None)
    return buffer.getvalue()


def _pfm(values: np.ndarray) -> bytes:
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n-1.0\n"
    return head.encode() + values[::-1].astype("<f4").tobytes()


def _pgm(values: np.ndarray) -> bytes:
    head = f"P5\n{values.shape[1]} {values.shape[0]}\n{np.iinfo(values.dtype).max}\n"
    return head.encode() + values.astype(values.dtype.newbyteorder(">")).tobytes()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _exr(values: np.ndarray) -> bytes:
    openexr = require("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:  # it writes to named files only
        path = Path(folder, "depth.exr")
        try:
            with openexr.File(header, {"Z": np.ascontiguousarray(values)}) as file:
                file.write(str(path))
        except RuntimeError as error:
            raise OSError(errno.EIO, " ".join(str(error).split())) from error
        return path.read_bytes()


_ENCODERS = {"PNG": _png, "TIFF": _tiff, "NPY": _npy, "EXR": _exr, "PFM": _pfm, "PGM": _pgm}
