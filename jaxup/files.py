"""Safe reading and writing of images and depth maps: allowed formats, a pixel cap, and one error, `InputError`."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
MAX_PIXELS = 2**26  # 67 million: 8192 x 8192
DEPTH_FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY", ".exr": "EXR"}
_COLOUR = ("RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr")
_GREY = ("L", "I", "I;16", "I;16B", "F")
_PACKAGES = {"PIL": 'Pillow: pip install "jaxup[experiments]"', "scipy": 'SciPy: pip install "jaxup[experiments]"'}


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


def decode(path: Path, modes: Sequence[str], convert_to: str | None = None) -> np.ndarray:
    """The pixels of an image of one of Pillow's `modes`; to be called inside `reading`."""
    image_module = require("PIL.Image")
    with warnings.catch_warnings():
        # Pillow warns between one and two times its own limit and raises beyond; here both are refusals.
        warnings.simplefilter("error", image_module.DecompressionBombWarning)
        with image_module.open(path, formats=FORMATS) as image:
            check_pixels(path, image.height, image.width)
            if image.mode not in modes:
                raise InputError(f"{path}: expected an image of mode {', '.join(modes)}, got {image.mode}")
            return np.asarray(image.convert(convert_to) if convert_to else image)


def check_pixels(path: Path, height: int, width: int) -> None:
    """Refuse images of more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} is more than {MAX_PIXELS} pixels")


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour or grey image of 8 bits a channel.

    Returns:
        uint8 [H, W, 3]; a grey image in three equal channels, an alpha channel dropped.

    Raises:
        InputError: the file is missing, truncated, not an image, too large, or of more than 8 bits.
    """
    with reading(path):
        return decode(path, _COLOUR, convert_to="RGB")


def read_grey(path: Path) -> np.ndarray:
    """Read a grey image of 8, 16 or 32 bits as it is stored: uint8, uint16, int32 or float32 [H, W]."""
    with reading(path):
        stored = decode(path, _GREY)
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def read_npy(path: Path) -> np.ndarray:
    """Read an array [H, W], mapped, so that the size in its header is checked before anything is allocated."""
    with reading(path):
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if stored.nbytes > MAX_PIXELS * 8:
            raise InputError(f"{path}: more than {MAX_PIXELS} pixels")
        return stored


def depth_format(path: Path) -> str:
    """The format of a depth map, by the ending of its name."""
    if path.suffix.lower() not in DEPTH_FORMATS:
        raise InputError(f"{path}: expected a name that ends in {', '.join(DEPTH_FORMATS)}")
    return DEPTH_FORMATS[path.suffix.lower()]


def read_depth(path: Path) -> np.ndarray:
    """Read a depth map: a grey PNG or TIFF of 8, 16 or 32 bits, an `.npy`, or an EXR of one channel or with a Z.

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
            first, last = file.header()["dataWindow"]
        check_pixels(path, int(last[1] - first[1]) + 1, int(last[0] - first[0]) + 1)
        with openexr.File(str(path), separate_channels=True) as file:
            channels = file.channels()
            if len(channels) > 1 and "Z" not in channels:
                raise InputError(f"{path}: expected one channel or a channel Z, there are {', '.join(channels)}")
            name = "Z" if "Z" in channels else next(iter(channels))
            return np.array(channels[name].pixels)


def output_dtype(path: Path, source: Path, dtype: np.dtype) -> np.dtype:
    """What `path` stores: the type of a source of the same format; else a PNG 8 or 16 bits, and the others float32."""
    written = depth_format(path)
    if written == "PNG":
        return np.dtype(np.uint8 if dtype == np.uint8 else np.uint16)
    if written == depth_format(source):
        return dtype
    return np.dtype(np.float64 if written == "NPY" and dtype == np.float64 else np.float32)


def as_stored(values: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    """Values in the type of a file; integers are rounded. What does not fit is an error, never cut off."""
    finite = np.isfinite(values)
    rounded = np.rint(values) if dtype.kind in "ui" else values
    limits: Any = np.iinfo(dtype) if dtype.kind in "ui" else np.finfo(dtype)
    fits = (rounded >= limits.min) & (rounded <= limits.max)
    if dtype.kind == "f":
        fits |= ~finite
    if not fits.all():
        other = {".npy": ".tiff", ".tif": ".npy", ".tiff": ".npy"}.get(path.suffix.lower(), ".npy or .tiff")
        what = "NaN or infinity"
        if not fits[finite].all():
            what = f"values from {values[finite].min():.6g} to {values[finite].max():.6g}"
        raise InputError(f"{path}: {what} cannot be stored as {dtype}: choose a name that ends in {other}")
    return rounded.astype(dtype)


def write_depth(path: Path, values: np.ndarray) -> None:
    """Write a map [H, W] in the format of the name, all of it or nothing: under another name first."""
    write = {"NPY": _write_npy, "EXR": _write_exr}.get(depth_format(path), _write_image)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary, values)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_image(path: Path, values: np.ndarray) -> None:
    require("PIL.Image").fromarray(values).save(path, format=depth_format(path))


def _write_npy(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _write_exr(path: Path, values: np.ndarray) -> None:
    openexr = require("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, {"Z": np.ascontiguousarray(values)}) as file:
        file.write(str(path))
