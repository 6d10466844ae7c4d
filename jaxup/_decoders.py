"""Decoders of image files: the numbers that a file stores, upright, and what they mean.

Pillow decodes what its modes can hold, which is 8 bits of colour; TIFF files go through tifffile, PNG of 16 bits a
channel through imagecodecs, and Netpbm's and PFM files are arrays behind a line of text.
"""

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Require = Callable[[str], Any]
Check = Callable[[int, int], None]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NETPBM = re.compile(rb"P([2356f])\s")
_LARGEST_FILE = 2**29  # bytes of those that are read by Pillow
_ORIENTATION = 0x0112  # the tag of TIFF and EXIF
_MOST_PAGES, _MOST_PARTS = 64, 2**16  # of a TIFF, with its overviews; strips or tiles of a page
_MOST_SAMPLES = 16  # a pixel of TIFF: colours, alpha, and what programs put beside them
_LONGEST_HEADER, _LONGEST_NUMBER = 2**14, 16  # bytes of Netpbm's, with comments, and with the space before it
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)  # whose parts have no sizes of their own, or JPEG
_JPEG = (6, 7)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's markers before a height and width
_REDUCED_OR_MASK = 1 | 4  # bits of a TIFF page's NewSubfileType: overviews, which are no images of their own

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs about odd files, on stderr by default


class Picture(NamedTuple):
    """The numbers of a file, upright.

    Attributes:
        pixels: [H, W], or [H, W, C] of colours.
        kind: "grey", or in other words what each pixel is; those of a palette have been looked up.
        black: the number of black, which is not 0 where TIFF counts from white.
        white: the number of white.
    """

    pixels: np.ndarray
    kind: str
    black: int
    white: int


def decode(path: Path, require: Require, check: Check) -> Picture:
    """Decode a PNG, JPEG, WebP, BMP, TIFF, PGM, PPM or PFM file.

    Args:
        path: the file.
        require: imports a package.
        check: called with height and width before anything of that size is made.

    Raises:
        Exception: whatever the decoders raise on a damaged file.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head in _TIFF:
        return _tiff(path, require("tifffile"), check)
    if _NETPBM.match(head):
        return _netpbm(path, check)
    return _pillow(path, require, check)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as one of TIFF's and EXIF's orientations 1 to 8 says; other numbers say nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _pillow(path: Path, require: Require, check: Check) -> Picture:
    image_module = require("PIL.Image")
    with warnings.catch_warnings():
        # Pillow warns between one and two times its own limit and raises beyond; here both are refusals.
        warnings.simplefilter("ignore")  # of what it says about odd files
        warnings.simplefilter("error", image_module.DecompressionBombWarning)
        stored = in_memory(path)
        with opened(image_module, stored, _FORMATS) as image:
            check(image.height, image.width)
            stored_as = image.tile[0][3] if image.format == "PNG" else ""
            pixels, kind = _pillow_pixels(image)
            if kind != "grey" and stored_as.endswith(";16B"):  # of which Pillow keeps the high bytes only
                pixels = require("imagecodecs").png_decode(stored)
                kind = "grey with alpha" if stored_as == "LA;16B" else kind
            orientation = 1
            with contextlib.suppress(Exception):  # viewers show images whose EXIF block is damaged
                orientation = image.getexif().get(_ORIENTATION, 1)
    white = {"1": 1, "L;2": 3, "L;4": 15}.get(stored_as, 255 if pixels.dtype == np.uint8 else 65535)
    if kind == "grey" and white < 255:
        pixels = pixels // (255 // white)  # Pillow spreads 0 .. 3 and 0 .. 15 over 0 .. 255
    return Picture(upright(pixels, orientation), kind, 0, white)


def in_memory(path: Path) -> bytes:
    """A file: Pillow asks for as many bytes as a damaged one says, and of these there are no more."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"a file of more than {_LARGEST_FILE} bytes")
    return path.read_bytes()


def opened(image_module: Any, stored: bytes, formats: Sequence[str]) -> Any:
    """Pillow's image of a file in memory, not decoded yet."""
    try:
        return image_module.open(io.BytesIO(stored), formats=formats)
    except image_module.UnidentifiedImageError as error:
        raise ValueError(f"cannot identify image file: expected {', '.join(formats)}") from error


def _pillow_pixels(image: Any) -> tuple[np.ndarray, str]:
    if image.mode in ("L", "1") or image.mode.startswith(("I", "F")):
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), "grey"
    return np.asarray(image.convert("RGB")), {"P": "a palette", "LA": "grey with alpha"}.get(image.mode, image.mode)


def _tiff(path: Path, tifffile: Any, check: Check) -> Picture:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) > _MOST_PAGES:  # iterating would not end where a page leads back to a former one
            raise ValueError(f"expected one page, there are {len(file.pages)}")
        every = [file.pages[i] for i in range(len(file.pages))]
        pages = [page for page in every if not page.subfiletype & _REDUCED_OR_MASK] or every[:1]
        if len(pages) > 1:
            raise ValueError(f"expected one page, there are {len(pages)}")
        page = pages[0]
        if page.samplesperpixel > _MOST_SAMPLES:
            raise ValueError(f"expected up to {_MOST_SAMPLES} samples a pixel, got {page.samplesperpixel}")
        check(page.imagelength, page.imagewidth * max(1, page.samplesperpixel // 4))
        if page.is_tiled:
            check(page.tilelength, page.tilewidth)
        if page.compression not in _COMPRESSIONS:
            raise ValueError(f"compression {getattr(page.compression, 'name', page.compression)} is not read")
        if math.prod(page.chunked) > _MOST_PARTS or max(page.databytecounts, default=0) > path.stat().st_size:
            raise ValueError(f"{math.prod(page.chunked)} strips or tiles that are too many, or larger than the file")
        if page.compression in _JPEG:
            _check_parts(file.filehandle, page, check)
        if page.axes not in ("YX", "YXS", "SYX"):
            raise ValueError(f"expected an image [H, W] or [H, W, C], got axes {page.axes} of {page.shape}")
        pixels = page.asarray()
        pixels = pixels.astype(np.uint8 if pixels.dtype == bool else pixels.dtype.newbyteorder("="), copy=False)
        pixels = np.moveaxis(pixels, 0, 2) if page.axes == "SYX" else pixels
        kind = getattr(page.photometric, "name", f"photometric interpretation {page.photometric}")
        black, white = 0, (1 << page.bitspersample) - 1
        if kind == "PALETTE":  # of 16 bits a colour, that hold 8
            indices = pixels if pixels.ndim == 2 else pixels[..., 0]  # the others are alpha
            pixels, kind, white = (page.colormap >> 8).astype(np.uint8).T[indices], "a palette", 255
        elif kind == "MINISWHITE":
            black, white = white, 0
        elif kind not in ("MINISBLACK", "RGB", "DEPTH_MAP") and not (kind == "YCBCR" and page.compression in (6, 7)):
            raise ValueError(f"expected grey, RGB or a palette, got {kind}")
        if pixels.ndim == 2:
            kind = "grey"
        elif kind in ("MINISBLACK", "MINISWHITE"):
            kind = f"grey and {pixels.shape[2] - 1} more"
        return Picture(upright(pixels, page.tags.valueof(_ORIENTATION, 1)), kind, black, white)


def _netpbm(path: Path, check: Check) -> Picture:
    """PGM, PPM and PFM of one channel: a type, width, height, the number of white (or byte order), and the numbers."""
    gap = rb"(?:\s|#[^\n]*\n)+"
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
        header = re.match(rb"P([2356f])" + (gap + rb"(\d+)") * 2 + gap + rb"([-+.\deE]+)\s", head)
        if header is None:
            raise ValueError("expected width, height and largest value")
        kind, width, height = header[1], int(header[2]), int(header[3])
        check(height, width)
        file.seek(header.end())
        most = _LONGEST_NUMBER * (3 if kind in b"36" else 1) * height * width + _LONGEST_HEADER
        stored = file.read(min(most, path.stat().st_size))
    if kind == b"f":  # from the last row to the first, and a negative number for little-endian
        floats = np.frombuffer(stored, "<f4" if float(header[4]) < 0 else ">f4", height * width)
        return Picture(floats.reshape(height, width)[::-1].astype(np.float32), "grey", 0, 1)
    white, shape = int(header[4]), (height, width, 3) if kind in b"36" else (height, width)
    if not 0 < white < 65536:
        raise ValueError(f"expected a largest value of 1 to 65535, got {white}")
    if kind in b"23":
        numbers = _written(re.sub(rb"#[^\n]*", b"", stored), math.prod(shape))
    else:
        numbers = np.frombuffer(stored, ">u2" if white > 255 else np.uint8, math.prod(shape))
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= white:
        raise ValueError(f"expected numbers up to {white}, got {numbers.min()} to {numbers.max()}")
    pixels = numbers.reshape(shape).astype(np.uint16 if white > 255 else np.uint8)
    return Picture(pixels, "grey" if pixels.ndim == 2 else "RGB", 0, white)


def _written(text: bytes, count: int) -> np.ndarray:
    """So many numbers in digits."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of what is no number
        numbers = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    if numbers.size != count:
        raise ValueError(f"expected {count} numbers, got {numbers.size}")
    return numbers


def _check_parts(file: Any, page: Any, check: Check) -> None:
    """The sizes that strips or tiles of JPEG have in themselves."""
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        data, at = file.read(size), 2
        while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
            if data[at + 1] in _FRAMES:
                check(*(int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7)))
                break
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
