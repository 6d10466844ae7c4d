"""NYU Depth v2 for monocular depth, in its three public forms."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from experiments.data import images
from experiments.data.monocular import Frame, Source, folder, kitti, make_frame
from experiments.data.photos import Split
from experiments.data.rgbd import nyu_frame, nyu_frames
from jaxup._hdf5 import dataset, numbers
from jaxup._matlab import numbers_of, read_mat
from jaxup.files import MAX_PIXELS, InputError, check_pixels, read_grey

_MAT = "nyu_depth_v2_labeled.mat"
_TRAIN = 1000  # frames, where there is no list
_NEAR = 10 / 255  # metres of a unit of 8 bits, in Hu's training set
_MILLIMETRE = 1 / 1000


class Labelled:
    """The 1449 labelled pairs of `nyu_depth_v2_labeled.mat`, 640 x 480.

    With splits.mat beside it (trainNdxs, testNdxs) 795 train and 654 test; else the first 1000, and the others.

    Raises:
        InputError: a file is missing, cannot be read, has not these arrays, or has no frame of that split.

    Reference:
        Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012.
    """

    def __init__(self, root: Path, split: Split):
        self.path = root if root.suffix == ".mat" else root / _MAT
        every = range(nyu_frames(self.path))
        splits = self.path.with_name("splits.mat")
        if splits.is_file():
            chosen = _split(splits, "trainNdxs" if split == "train" else "testNdxs")
        else:
            chosen = every[:_TRAIN] if split == "train" else every[_TRAIN:]
        if not len(chosen) or not set(chosen) <= set(every):
            raise InputError(f"{self.path}: no frame of the {split} split, or not all, among its {len(every)}")
        self.frames = chosen

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        frame = self.frames[index]
        return make_frame(*nyu_frame(self.path, frame), f"nyu_{frame:04d}", f"{self.path} frame {frame}")


def _split(path: Path, name: str) -> Sequence[int]:
    with images.reading(path):
        return [int(n) - 1 for n in numbers_of(read_mat(path, name)).flat]  # MATLAB counts from 1


class FastDepthFrames:
    """FastDepth's frames, one `.h5` each: rgb uint8 [3, H, W] and depth float32 [H, W] in metres.

    nyudepthv2/train/SCENE/*.h5 (47,584 frames) and nyudepthv2/val/official/*.h5 (654).

    Raises:
        InputError: no such files; when one is read, it is corrupt, or has not these arrays.

    Reference:
        Wofk et al., FastDepth: Fast Monocular Depth Estimation on Embedded Systems, ICRA 2019.
    """

    def __init__(self, root: Path, split: Split):
        part = "train" if split == "train" else "val"
        base = root / "nyudepthv2" if (root / "nyudepthv2").is_dir() else root
        self.files = sorted((base / part).glob("**/*.h5"))
        if not self.files:
            raise InputError(f"{base / part}: no frames *.h5 in it or its folders")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        path = self.files[index]
        with images.reading(path), h5py.File(path, "r") as file:
            stored = [dataset(file, name) for name in ("rgb", "depth")]
            if stored[1].ndim == 2:
                check_pixels(path, *stored[1].shape)
            rgb, depth = (numbers(each, 8 * MAX_PIXELS) for each in stored)
        if rgb.ndim != 3 or len(rgb) != 3 or rgb.dtype != np.uint8 or depth.ndim != 2 or depth.dtype.kind != "f":
            raise InputError(
                f"{path}: expected rgb uint8 [3, H, W] and depth floating [H, W], got {rgb.dtype} {rgb.shape} and "
                f"{depth.dtype} {depth.shape}"
            )
        return make_frame(rgb.transpose(1, 2, 0), depth, f"{path.parent.name}_{path.stem}", path)


class HuFrames:
    """Hu's frames by his lists, nyu2_train.csv (50,688) and nyu2_test.csv (654): an image and a depth map a line.

    Depth maps are of 8 bits, 10 m over 255, for training, and of 16 bits in millimetres for tests.

    Raises:
        InputError: the list is missing, or a line is no pair; when a frame is read, a file is missing, cannot be read,
            or is of other bits.

    Reference:
        Hu et al., Revisiting Single Image Depth Estimation, WACV 2019.
    """

    def __init__(self, root: Path, split: Split):
        name = f"nyu2_{split}.csv"
        path = next((p for p in (root / name, root / "data" / name) if p.is_file()), root / name)
        with images.reading(path):
            lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        self.pairs = [tuple(line.split(",")) for line in lines]
        wrong = next((line for line, pair in zip(lines, self.pairs, strict=True) if len(pair) != 2), None)
        if not lines or wrong is not None:
            raise InputError(f"{path}: expected lines IMAGE,DEPTH, got {wrong or 'nothing'!r}")
        self.path, self.train = path, split == "train"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Frame:
        image, depth = (self._found(name.strip()) for name in self.pairs[index])
        stored = read_grey(depth)
        if stored.dtype.itemsize != (1 if self.train else 2) or stored.dtype.kind != "u":
            raise InputError(f"{depth}: expected depth of {8 if self.train else 16} bits, got {stored.dtype}")
        metres = stored * np.float32(_NEAR if self.train else _MILLIMETRE)
        return make_frame(images.read_rgb(image), metres, f"{image.parent.name}_{image.stem}", depth)

    def _found(self, name: str) -> Path:
        """Names are from above the folder of the list, which is called data, or from this folder."""
        for base in (self.path.parent.parent, self.path.parent):
            if (file := images.listed_file(self.path, base, name)).is_file():
                return file
        raise InputError(f"{self.path}: lists {name}, which is not there")


def nyu(root: Path, split: Split) -> Source:
    """Whatever form of it is in a folder: FastDepth's frames, Hu's lists, or the labelled pairs."""
    if any((base / "train").is_dir() or (base / "val").is_dir() for base in (root / "nyudepthv2", root)):
        return FastDepthFrames(root, split)
    if any((root / place).is_file() for place in (f"nyu2_{split}.csv", f"data/nyu2_{split}.csv")):
        return HuFrames(root, split)
    if root.suffix == ".mat" or (root / _MAT).is_file():
        return Labelled(root, split)
    raise InputError(f"{root}: has neither nyudepthv2/train, nyu2_{split}.csv, nor {_MAT}")


SETS: Mapping[str, Callable[[Path, Split], Source]] = {"nyu": nyu, "kitti": kitti, "folder": folder}
"""All sets of monocular depth by name; each takes the data directory, or the folder of the set itself."""
