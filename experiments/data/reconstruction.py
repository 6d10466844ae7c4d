"""Images for reconstruction: 32 x 32 grey pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from experiments.data.fashion_mnist import fashion_mnist, from_tfds
from experiments.data.photos import embedded, grid_patches, to_grey
from experiments.data.rgbd import data_dir
from jaxup.files import InputError
from jaxup.ops import resize

Split = Literal["train", "test"]

SIZE = 32


def images(source: str, directory: Path | None, split: Split, count: int | None = None) -> np.ndarray:
    """The first images of a split, by default all: uint8 [N, 32, 32, 1].

    Args:
        source: "photos", patches of photographs in scikit-image's wheel; "fashion-mnist"; or "tfds", the same as
            prepared by TensorFlow Datasets.
        directory: the data directory; none: the environment variable JAXUP_DATA, for tfds its own default.
        split: which.
        count: how many.

    Raises:
        InputError: something is missing, or cannot be read.
    """
    if source == "photos":
        found = patches(split)
    elif source == "tfds":
        found = from_tfds(directory, split)
    else:
        found = fashion_mnist(data_dir(directory), split)
    found = found[:count]
    if not len(found):
        raise InputError(f"{source}: no images")
    return np.concatenate(list(_resized(found[..., None])))


def patches(split: Split) -> np.ndarray:
    """Grey windows of the photographs, which overlap by half in training: uint8 [N, 32, 32]."""
    stride = SIZE // 2 if split == "train" else SIZE
    return np.concatenate([grid_patches(to_grey(photo), SIZE, stride) for photo in embedded(split).values()])


def _resized(found: np.ndarray) -> Iterator[np.ndarray]:
    """To 32 x 32, bilinearly with half-pixel centres, rounded to bytes; some thousands at a time."""
    for start in range(0, len(found), 10_000):
        part = found[start : start + 10_000]
        if part.shape[1:3] != (SIZE, SIZE):
            part = np.rint(resize(jnp.asarray(part, jnp.float32), size=SIZE, method="bilinear")).astype(np.uint8)
        yield part
