"""Which networks, and which images: the options that training and evaluation share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.config import MAY_DIFFER
from experiments.data import data_dir
from experiments.data.fashion_mnist import fashion_mnist, from_tfds
from experiments.data.photos import embedded, grid_patches, to_grey
from experiments.errors import InputError
from jaxup.ops import resize

SourceName = Literal["photos", "fashion-mnist", "tfds"]
Split = Literal["train", "test"]

SIZE = 32


class Row(NamedTuple):
    """A row of Table 3: its name, and its columns as printed there; "MSE" is the root of the mean squared error."""

    name: str
    psnr: str = ""
    ssim: str = ""
    mae: str = ""
    rmse: str = ""


ROWS = {
    "avg-nearest": Row("AvgPool-NN", "25.88", "0.9811", "0.0259", "0.0509"),
    "conv-bilinear": Row("Conv/2-Bilinear", "24.45", "0.9726", "0.0320", "0.0600"),
    "space-to-depth": Row("S2D-D2S", "28.93", "0.9901", "0.0204", "0.0358"),
    "conv-deconv": Row("Conv/2-Deconv/2", "28.75", "0.9903", "0.0187", "0.0366"),
    "conv-carafe": Row("Conv/2-CARAFE", "25.55", "0.9798", "0.0277", "0.0529"),
    "max-unpool": Row("MaxPool-MaxUnpool", "29.33", "0.9920", "0.0202", "0.0342"),
    "modelwise_o2o": Row("IP-IU, modelwise O2O", "37.83", "0.9989", "0.0089", "0.0128"),
    "holistic": Row("IP-IU, HIN", "45.93", "0.9998", "0.0032", "0.0051"),
    "m2o": Row("IP-IU, M2O", "48.37", "0.9999", "0.0026", "0.0038"),
    "a2u": Row("A2U"),
    "a2u-k1": Row("A2U, K = 1"),
}
"""By method of `jaxup.models.resampling`. A2U is of a later paper (Dai et al., CVPR 2021), with the same task."""


@dataclass(frozen=True)
class DataConfig:
    """Which images."""

    source: SourceName = "photos"
    """Patches of the photographs that scikit-image carries; Fashion-MNIST from a folder (official idx files, or sheets
    of tiles), or as prepared by TensorFlow Datasets (ArrayRecord)."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the files, else the environment variable JAXUP_DATA; for tfds its directory of data sets, else its
    default one."""
    images: int | None = None
    """Use the first ones of each split only; none: all."""

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise InputError(f"images: expected at least 1, got {self.images}")

    def open(self, split: Split) -> np.ndarray:
        """The images of a split, uint8 [N, 32, 32, 1]."""
        if self.source == "photos":
            found = patches(split)
        elif self.source == "tfds":
            found = from_tfds(self.data_dir, split)
        else:
            found = fashion_mnist(data_dir(self.data_dir), split)
        found = found[: self.images]
        if not len(found):
            raise InputError(f"{self.source}: no images")
        return np.concatenate(list(_resized(found[..., None])))


def patches(split: Split) -> np.ndarray:
    """Grey windows of the photographs, which overlap by half in training: uint8 [N, 32, 32]."""
    stride = SIZE // 2 if split == "train" else SIZE
    return np.concatenate([grid_patches(to_grey(photo), SIZE, stride) for photo in embedded(split).values()])


def _resized(images: np.ndarray) -> Iterator[np.ndarray]:
    """To 32 x 32, bilinearly with half-pixel centres, rounded to bytes; some thousands at a time."""
    for start in range(0, len(images), 10_000):
        part = images[start : start + 10_000]
        if part.shape[1:3] != (SIZE, SIZE):
            part = np.rint(resize(jnp.asarray(part, jnp.float32), size=SIZE, method="bilinear")).astype(np.uint8)
        yield part
