"""Which images with depth."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from experiments.data import HELD_OUT_SEED, data_dir
from experiments.data.monocular import KITTI, Source, folder, kitti
from experiments.data.monocular_batches import Protocol
from experiments.data.nyu import nyu
from experiments.data.photos import Split
from experiments.data.rooms import Rooms
from experiments.data.sources import First
from experiments.engine.config import MAY_DIFFER
from jaxup.files import InputError

SourceName = Literal["scenes", "nyu", "kitti", "folder"]
Manner = Literal["fastdepth", "hu"]
_FULL = {"fastdepth": 224, "hu": 228}  # heights, as published


@dataclass(frozen=True)
class DataConfig:
    """Which images with depth."""

    source: SourceName = "scenes"
    """Generated rooms; in `data_dir` NYU Depth v2, in whatever form is there (nyu_depth_v2_labeled.mat, FastDepth's
    nyudepthv2 of h5 files, Hu's nyu2_train.csv and nyu2_test.csv), or KITTI's depth; or any folder with images/SPLIT
    and depth/SPLIT, where SPLIT is train or test, or with pairs <id>_rgb.* and <id>_depth.*, for both splits."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the data. None: the environment variable JAXUP_DATA."""
    images: int | None = None
    """Only so many of each split; of scenes, how many there are, which is else 500 to train on and 100."""
    size: tuple[int, int] = (120, 160)
    """Height and width of scenes."""
    per_metre: float = KITTI
    """Units of a metre in depth maps of 16 bits in depth/SPLIT of a folder; pairs have millimetres."""

    def open(self, split: Split) -> Source:
        """The frames of a split."""
        if self.source != "folder" and self.per_metre != KITTI:
            raise InputError(f"per_metre: has no effect with the source {self.source}")
        if self.source == "scenes":
            if self.data_dir is not None:
                raise InputError("data_dir: has no effect with the source scenes")
            count = (500 if split == "train" else 100) if self.images is None else self.images
            if count < 1:
                raise InputError(f"images: expected at least 1, got {count}")
            return Rooms(count, self.size, 0 if split == "train" else HELD_OUT_SEED)
        root = data_dir(self.data_dir)
        if self.source == "folder":
            found = folder(root, split, self.per_metre)
        else:
            found = nyu(root, split) if self.source == "nyu" else kitti(root, split)
        return found if self.images is None else First(found, min(self.images, len(found)))


@dataclass(frozen=True)
class HeldOut:
    """Which images to test on, and at what size."""

    source: SourceName | None = None
    """Images to test on, as for training; none: those of the first run."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the first run, or the environment variable JAXUP_DATA."""
    per_metre: float = KITTI
    """Units of a metre in depth maps of 16 bits in depth/SPLIT of another folder; pairs have millimetres."""
    height: int | None = None
    """Of the images that networks see; none: that of the first run, or what it amounts to in another protocol."""

    def open(self, own: DataConfig, images: int | None = None) -> Source:
        """The test frames, or the first ones, where the data of a run are its `own`."""
        if self.source not in (None, own.source):
            data = DataConfig(self.source, self.data_dir, size=own.size, per_metre=self.per_metre)
        elif self.per_metre != KITTI:
            raise InputError("per_metre: has no effect on the source of the run")
        else:
            data = own if self.data_dir is None else replace(own, data_dir=self.data_dir)
        return (data if images is None else replace(data, images=images)).open("test")

    def protocol(self, own: Protocol, manner: Manner | None = None) -> Protocol:
        """This protocol, or that of a run, at this height, or at the share of the full height that the run has."""
        manner = manner or own.manner
        height = self.height
        if height is None and own.height is not None:
            height = round(own.height * _FULL[manner] / _FULL[own.manner])
        return Protocol(manner, height)
