"""Which images with labels."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.data import data_dir
from experiments.data.segmentation import IGNORED, First, Source
from experiments.data.segmentation_sets import SETS, Prepared, Split, folder
from experiments.data.segmentation_shapes import HELD_OUT_SEED, Shapes
from experiments.engine.config import MAY_DIFFER
from jaxup.files import InputError


@dataclass(frozen=True)
class DataConfig:
    """Which images with labels."""

    source: Literal[
        "shapes", "camvid", "ade20k", "ade20k-tfds", "sun-rgbd", "voc", "cityscapes", "coco-stuff", "folder"
    ] = "shapes"
    """Generated shapes; a data set in `data_dir`, ade20k-tfds as TensorFlow Datasets prepared it; or any folder with
    images/SPLIT and labels/SPLIT, where SPLIT is train or val."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the data. None: the environment variable JAXUP_DATA, for ade20k-tfds the default of TFDS."""
    num_classes: int | None = None
    """Of a folder."""
    images: int | None = None
    """Only so many images of each split; of shapes, how many there are, which is else 500 to train on and 100."""
    size: tuple[int, int] = (128, 160)
    """Height and width of shapes."""

    def open(self, split: Split) -> Source:
        """The images of a split; test is what results are reported on."""
        if self.source == "folder" and self.num_classes is None:
            raise InputError("num_classes: expected a number, which a folder does not tell")
        if self.num_classes is not None and not 1 <= self.num_classes < IGNORED:
            raise InputError(f"num_classes: expected 1 to {IGNORED - 1}, got {self.num_classes}")
        if self.source != "folder" and self.num_classes is not None:
            raise InputError(f"num_classes: has no effect with the source {self.source}")
        if self.source == "shapes":
            if self.data_dir is not None:
                raise InputError("data_dir: has no effect with the source shapes")
            seeds = {"train": 0, "val": HELD_OUT_SEED, "test": HELD_OUT_SEED + 1}
            return Shapes(self.images or (500 if split == "train" else 100), self.size, seeds[split])
        found = self._find(split)
        return found if self.images is None else First(found, min(self.images, len(found)))

    def _find(self, split: Split) -> Source:
        if self.source == "ade20k-tfds":
            return Prepared(self.data_dir, split)
        root = data_dir(self.data_dir)
        if self.source == "folder":
            return folder(root, "train" if split == "train" else "val", self.num_classes or 0)
        return SETS[self.source](root, split)
