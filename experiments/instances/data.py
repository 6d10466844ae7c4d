"""Which images with objects."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.data import data_dir
from experiments.data.instances import First, Source
from experiments.data.instances_coco import coco, coco_panoptic
from experiments.data.instances_shapes import Scenes
from experiments.data.segmentation_sets import Split
from experiments.data.segmentation_shapes import HELD_OUT_SEED
from experiments.engine.config import MAY_DIFFER
from jaxup.files import InputError

_SETS = {"coco": coco, "coco-panoptic": coco_panoptic}


@dataclass(frozen=True)
class DataConfig:
    """Which images with objects."""

    source: Literal["shapes", "coco", "coco-panoptic"] = "shapes"
    """Generated scenes; COCO 2017's objects; or its panoptic maps, in which stuff has its place, too."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of COCO, with annotations, train2017 and val2017. None: the environment variable JAXUP_DATA."""
    images: int | None = None
    """Only so many of each split; of generated scenes 500 to train on and 100 to test on where this is none."""
    size: tuple[int, int] = (128, 160)
    """Height and width of generated scenes."""

    def open(self, split: Split) -> Source:
        """The scenes of a split; test is what results are reported on."""
        if self.source != "shapes":
            found = _SETS[self.source](data_dir(self.data_dir), split)
            return found if self.images is None else First(found, min(self.images, len(found)))
        if self.data_dir is not None:
            raise InputError("data_dir: has no effect on generated scenes")
        train = split == "train"
        return Scenes(self.images or (500 if train else 100), self.size, 0 if train else HELD_OUT_SEED)
