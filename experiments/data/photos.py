"""Photographs for restoration: folders of image files, and the grey versions that papers train and test on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from experiments.data import images
from jaxup.files import InputError

# Weights of R, G and B, of MATLAB's rgb2gray, and of its rgb2ycbcr for Y, which spans 16 to 235.
_GREY = np.array([0.298936021293775390, 0.587043074451121360, 0.114020904255103250])
_LUMA = np.array([65.481, 128.553, 24.966]) / 255

Split = Literal["train", "test"]

# What scikit-image carries in its wheel, of natural images.
_EMBEDDED = {
    "train": ("astronaut", "brick", "coffee", "coins", "grass", "gravel", "rocket"),
    "test": ("camera", "cat"),
}


def image_files(folder: Path | str) -> list[Path]:
    """The image files of a folder by name, without those of its subfolders.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in images.SUFFIXES)
    if not files:
        raise InputError(f"{folder}: no images ({', '.join(images.SUFFIXES)})")
    return files


def embedded(split: Split) -> dict[str, np.ndarray]:
    """Photographs in scikit-image's wheel, uint8 [H, W, 3] by name; grey ones in three equal channels."""
    from skimage import data  # here, because it is slow to import

    found = {name: getattr(data, name)() for name in _EMBEDDED[split]}
    return {name: a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for name, a in found.items()}


def photos(folder: Path | str) -> dict[str, np.ndarray]:
    """All photographs of a folder: uint8 [H, W, 3] by file name without its ending.

    Raises:
        InputError: the folder is missing or has no image, or an image cannot be read.
    """
    return {file.stem: images.read_rgb(file) for file in image_files(folder)}


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """Grey values as MATLAB's rgb2gray rounds them: uint8 [H, W, 3] -> uint8 [H, W]."""
    return np.floor(rgb @ _GREY + 0.5).astype(np.uint8)


def to_luma(rgb: np.ndarray) -> np.ndarray:
    """The Y channel of ITU-R BT.601 as MATLAB's rgb2ycbcr computes it, not rounded.

    Args:
        rgb: [..., 3] on a scale of 0 to 255.

    Returns:
        float64 [...], from 16 to 235.
    """
    return 16 + rgb @ _LUMA


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by antialiased bicubic interpolation with a = -0.5, as MATLAB's imresize.

    Args:
        image: uint8 or float32, [H, W] or [H, W, 3].
        size: (height, width).

    Returns:
        The dtype of `image`; integers are rounded and clipped.
    """
    if image.ndim == 3 and image.dtype != np.uint8:
        return np.stack([resized(channel, size) for channel in np.moveaxis(image, 2, 0)], axis=2)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], Image.Resampling.BICUBIC))


def middles(images: Mapping[str, np.ndarray], count: int | None, side: int | None) -> dict[str, np.ndarray]:
    """The first images of a set, and of each the middle, at most so many pixels wide and high; none: all.

    Raises:
        InputError: a count or a side below 1.
    """
    for name, value in (("images", count), ("crop", side)):
        if value is not None and value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    found = dict(list(images.items())[:count])
    if side is None:
        return found
    corners = {name: [max(n - side, 0) // 2 for n in image.shape[:2]] for name, image in found.items()}
    return {name: found[name][top : top + side, left : left + side] for name, (top, left) in corners.items()}


def grid_patches(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    """All windows of size x size pixels at multiples of `stride`: [N, size, size, ...], none of a smaller image."""
    if min(image.shape[:2]) < size:
        return np.empty((0, size, size, *image.shape[2:]), image.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), (0, 1))[::stride, ::stride]
    windows = np.moveaxis(windows, (-2, -1), (2, 3))
    return windows.reshape(-1, size, size, *image.shape[2:])
