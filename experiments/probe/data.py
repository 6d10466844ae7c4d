"""Which images, with labels or with depth, cut to squares of one size."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from experiments.data.photos import Split
from experiments.data.sources import Cached
from experiments.engine.config import MAY_DIFFER
from experiments.monocular_depth.data import DataConfig as WithDepth
from experiments.segmentation.data import DataConfig as WithLabels
from jaxup.files import InputError

_DEPTH = {"rooms": "scenes", "nyu": "nyu", "kitti": "kitti", "depth-folder": "folder"}  # names of that task


class Sample(NamedTuple):
    """A square of an image, and what is known of its pixels.

    Attributes:
        image: uint8 [S, S, 3].
        truth: uint8 [S, S], labels; or float32 [S, S], depth in metres, 0 where it was not measured.
        name: what file names call it.
    """

    image: np.ndarray
    truth: np.ndarray
    name: str


@dataclass(frozen=True)
class DataConfig:
    """Which images, with labels or with depth."""

    source: Literal[
        "shapes",
        "camvid",
        "ade20k",
        "ade20k-tfds",
        "sun-rgbd",
        "voc",
        "cityscapes",
        "coco-stuff",
        "folder",
        "rooms",
        "nyu",
        "kitti",
        "depth-folder",
    ] = "shapes"
    """With labels: generated shapes, a data set as of the task segmentation, or a folder with images/SPLIT and
    labels/SPLIT. With depth: generated rooms, a data set as of monocular-depth, or its folder, images/SPLIT and
    depth/SPLIT."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the data. None: the environment variable JAXUP_DATA."""
    num_classes: int | None = None
    """Of a folder with labels."""
    images: int | None = None
    """Only so many of each split."""
    side: int = 448
    """Images are brought to this size of their shorter side, and the middle square of them is taken."""

    @property
    def depth(self) -> bool:
        """Whether images have depth, not labels."""
        return self.source in _DEPTH

    def open(self, split: Split) -> "Squares":
        """The squares of a split."""
        if self.side < 1:
            raise InputError(f"side: expected at least 1, got {self.side}")
        given: dict[str, Any] = {"data_dir": self.data_dir, "images": self.images}
        given["size"] = self.side, self.side * 5 // 4  # of what is generated
        if self.depth:
            if self.num_classes is not None:
                raise InputError(f"num_classes: has no effect with the source {self.source}")
            name: Any = _DEPTH[self.source]
            return Squares(WithDepth(name, **given).open(split), self.side, keep=self.source == "rooms")
        labelled: Any = self.source
        found = WithLabels(labelled, **given, num_classes=self.num_classes).open(split)
        return Squares(found, self.side, keep=self.source in ("shapes", "camvid"))


class Squares:
    """The middle squares of a source of images with labels or depth, which on request are kept in memory."""

    def __init__(self, source: Any, side: int, *, keep: bool = False):
        self.source, self.side = Cached(source) if keep else source, side
        self.classes: tuple[str, ...] = tuple(getattr(source, "classes", ()))
        """Of labels."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        image, truth, name = self.source[index]
        return Sample(
            square(image, self.side, Image.Resampling.BILINEAR),
            square(truth, self.side, Image.Resampling.NEAREST),
            name,
        )


def square(x: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
    """The middle square of an image that is brought to this size of its shorter side, as torchvision rounds."""
    height, width = x.shape[:2]
    size = (max(side, side * width // height), side) if height <= width else (side, max(side, side * height // width))
    if (width, height) != size:
        x = np.asarray(Image.fromarray(x).resize(size, method))
    left, top = (round((n - side) / 2) for n in size)
    return np.ascontiguousarray(x[top : top + side, left : left + side])
