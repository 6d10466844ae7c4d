"""Images for reconstruction: 32 x 32 grey pixels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from experiments.data.fashion_mnist import by_file, from_tfds
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
    found = np.concatenate(list(_parts(source, directory, split).values()))[:count]
    if not len(found):
        raise InputError(f"{source}: no images")
    return np.concatenate(list(_resized(found[..., None])))


def origins(source: str, directory: Path | None, split: Split) -> Callable[[int], str]:
    """By the number of an image: the photograph or file that it is from, and which of its images it is, from 0 on."""
    names = [f"{name} ({n})" for name, part in _parts(source, directory, split).items() for n in range(len(part))]
    return names.__getitem__


def _parts(source: str, directory: Path | None, split: Split) -> dict[str, np.ndarray]:
    """By photograph or file: uint8 [N, H, W]."""
    if source == "tfds":
        return {"fashion_mnist": from_tfds(directory, split)}
    if source == "fashion-mnist":
        return by_file(data_dir(directory), split)
    stride = SIZE // 2 if split == "train" else SIZE  # windows overlap by half in training
    return {name: grid_patches(to_grey(photo), SIZE, stride) for name, photo in embedded(split).items()}


def _resized(found: np.ndarray) -> Iterator[np.ndarray]:
    """To 32 x 32, bilinearly with half-pixel centres, rounded to bytes; some thousands at a time."""
    for start in range(0, len(found), 10_000):
        part = found[start : start + 10_000]
        if part.shape[1:3] != (SIZE, SIZE):
            part = np.rint(resize(jnp.asarray(part, jnp.float32), size=SIZE, method="bilinear")).astype(np.uint8)
        yield part
