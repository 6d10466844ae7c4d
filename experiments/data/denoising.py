"""Grey photographs, and noisy patches of them: the pictures stay on the device, and batches are numbers of patches."""

import csv
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import data_dir
from experiments.data.batching import batched
from experiments.data.images import listed_file, read_rgb, reading
from experiments.data.photos import embedded, photos, resized, to_grey
from jaxup._checks import check_int
from jaxup.files import InputError

Images = dict[str, np.ndarray]
Batch = dict[str, jax.Array]

FOLDERS: Mapping[str, str] = {"train400": "Train400", "set12": "Set12", "bsd68": "BSD68"}
"""Data sets by name: the folder of images, which lies in the data directory or in its subfolder `denoise`. A file
NAME.csv beside it takes its place: it lists name, file (from the data directory), and for train400 y, x, the corner of
the window."""

_WINDOW = 180  # side of the images of train400


def grey_images(source: str, directory: Path | None, split: str) -> Images:
    """Grey photographs.

    Args:
        source: "photos", those in scikit-image's wheel; "folder", all of `directory`; or one of `FOLDERS`.
        directory: the data directory; none: the environment variable JAXUP_DATA.
        split: "train" or "test", of the photographs in the wheel.

    Returns:
        uint8 [H, W] by name. Colours become grey as MATLAB's rgb2gray.

    Raises:
        InputError: something is missing, or cannot be read.
    """
    if source == "photos":
        found = embedded("train" if split == "train" else "test")
    elif source == "folder":
        found = photos(data_dir(directory))
    else:
        return _data_set(source, data_dir(directory))
    return {name: to_grey(image) for name, image in found.items()}


def _data_set(name: str, root: Path) -> Images:
    for base in (root / "denoise", root):
        if (base / f"{name}.csv").is_file():
            return _listed(base / f"{name}.csv", root)
        if (base / FOLDERS[name]).is_dir():
            return {stem: to_grey(image) for stem, image in photos(base / FOLDERS[name]).items()}
    raise InputError(f"{root}: has neither denoise/{name}.csv nor denoise/{FOLDERS[name]}")


def _listed(path: Path, root: Path) -> Images:
    """The images of a list, or windows of them."""
    with reading(path):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        corners = [(int(row["y"]), int(row["x"])) if "y" in row else None for row in rows]
        files = [(row["name"], listed_file(path, root, row["file"])) for row in rows]
    images = {}
    for (name, file), corner in zip(files, corners, strict=True):
        image = to_grey(read_rgb(file))
        if corner is not None:
            image = image[corner[0] : corner[0] + _WINDOW, corner[1] : corner[1] + _WINDOW]
            if min(corner) < 0 or image.shape != (_WINDOW, _WINDOW):
                raise InputError(f"{path}: {name}: no window of {_WINDOW} x {_WINDOW} pixels at {corner} in {file}")
        images[name] = image
    if not images:
        raise InputError(f"{path}: lists no images")
    return images


class Patches(NamedTuple):
    """Images one after the other, row by row, and where in them each patch begins."""

    pixels: jax.Array  # uint8 [all pixels]
    starts: jax.Array  # int32 [N]: of its first pixel
    widths: jax.Array  # int32 [N]: of the image that it is in


def cut_patches(images: Images, size: int, stride: int, scales: Sequence[float]) -> Patches:
    """All windows of size x size pixels at multiples of `stride`, of the images at every scale.

    Raises:
        InputError: an image is smaller than a patch, or all together have 2^31 pixels. An image that is only too small
            at another scale has no patches there.
    """
    check_int("patch", size)
    check_int("stride", stride)
    if not scales or not all(0 < scale <= 1 for scale in scales):
        raise InputError(f"scales: expected numbers from 0 to 1, got {tuple(scales)}")
    pixels, starts, widths, offset = [], [], [], 0
    for name, image in images.items():
        if min(image.shape) < size:
            raise InputError(f"{name}: {image.shape[1]} x {image.shape[0]} pixels are fewer than the patch of {size}")
        for scale in scales:
            height, width = _scaled(image, scale)
            pixels.append((image if scale == 1 else resized(image, (height, width))).ravel())
            rows, columns = (np.arange(0, length - size + 1, stride) for length in (height, width))
            starts.append((offset + rows[:, None] * width + columns).ravel())
            widths.append(np.full(starts[-1].size, width, np.int32))
            offset += height * width
    if offset > np.iinfo(np.int32).max:
        raise InputError(f"images: {offset} pixels at all scales are too many for one array")
    found = np.concatenate(starts).astype(np.int32)
    if not found.size:
        raise InputError(f"scales: no image has {size} x {size} pixels at {tuple(scales)}")
    return Patches(jnp.asarray(np.concatenate(pixels)), jnp.asarray(found), jnp.asarray(np.concatenate(widths)))


def _scaled(image: np.ndarray, scale: float) -> tuple[int, int]:
    height, width = (max(1, round(scale * length)) for length in image.shape)
    return height, width


def owners(images: Images, patches: Patches, scales: Sequence[float]) -> Callable[[int], str]:
    """The name of the image that a patch of `cut_patches` is from, by the patch's number."""
    sizes = [sum(math.prod(_scaled(image, scale)) for scale in scales) for image in images.values()]
    names, ends, starts = list(images), np.cumsum(sizes), np.asarray(patches.starts)
    return lambda patch: names[int(np.searchsorted(ends, starts[patch], side="right"))]


def batches(
    count: int, batch_size: int, seed: int, owner: Callable[[int], str] | None = None
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Endless batches of numbers: "patch", shuffled anew each epoch, and "example", which counts on and never repeats.

    What is drawn for an example depends on its number alone, so that a run that is continued draws the same. `owner`
    names what a patch is of, where a loss is not finite.
    """
    order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    numbered = order.map_with_index(lambda i, patch: {"patch": np.int32(patch), "example": np.uint32(i)})
    name = None if owner is None else lambda example: owner(int(example["patch"]))
    return batched(numbered, batch_size, threads=0, name=name)  # numbers need no threads to be ready in time


def noisy_patches(patches: Patches, size: int, sigma: float, seed: int) -> Callable[[Batch], Batch]:
    """What makes training examples of numbers, on the device: mirrored, turned, and with noise.

    Returns:
        Function of a batch of `batches`, which gives "clean" and "noisy" float32 [B, size, size, 1], the former from
        0 to 1. Noise is Gaussian, of standard deviation sigma / 255.
    """
    key = jax.random.split(jax.random.key(seed))[1]  # the initial weights come from the key itself
    level = jnp.float32(sigma / 255)
    return lambda batch: _examples(size, patches, key, level, batch)


@functools.partial(jax.jit, static_argnums=0)
def _examples(size: int, patches: Patches, key: jax.Array, level: jax.Array, batch: Batch) -> Batch:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["example"])
    turns, noise = jax.vmap(lambda k: (jax.random.bits(k, (3,)) % 2 == 1, _noise(jax.random.fold_in(k, 1), size)))(keys)
    down, right, swapped = (turns[:, i, None, None] for i in range(3))
    row, column = (index[None] for index in jnp.indices((size, size), dtype=jnp.int32))
    row, column = jnp.where(down, size - 1 - row, row), jnp.where(right, size - 1 - column, column)
    start, width = (array[batch["patch"]][:, None, None] for array in (patches.starts, patches.widths))
    at = start + jnp.where(swapped, column * width + row, row * width + column)
    clean = patches.pixels[at][..., None].astype(jnp.float32) / 255
    return {"clean": clean, "noisy": clean + level * noise}


def _noise(key: jax.Array, size: int) -> jax.Array:
    return jax.random.normal(key, (size, size, 1), jnp.float32)
