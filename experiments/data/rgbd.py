"""Sources of RGB-D pairs: random-access sequences of `RGBD`, each decoding its own files."""

import os
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py
import numpy as np

from experiments.data import images, sources
from jaxup._hdf5 import dataset, numbers
from jaxup.cli.depth import fill_holes
from jaxup.files import MAX_PIXELS, InputError, check_pixels


class RGBD(NamedTuple):
    """A registered pair.

    Attributes:
        guide: float32 [H, W, 3], RGB in [0, 1], multiples of 1/255.
        depth: float32 [H, W, 1] in the source's unit, finite everywhere: holes hold the nearest valid value.
        valid: bool [H, W, 1], true where the depth was measured.
        name: What tables and file names call it.
    """

    guide: np.ndarray
    depth: np.ndarray
    valid: np.ndarray
    name: str

    def cut(self, rows: slice, columns: slice) -> "RGBD":
        """A window of the pair, or with a negative step its mirror image; no copy is made."""
        guide, depth, valid = (array[rows, columns] for array in self[:3])
        return RGBD(guide, depth, valid, self.name)


class Source(Protocol):
    """A sequence of pairs. `unit` is that of its depths, as printed in tables."""

    unit: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> RGBD: ...


def make_pair(guide: np.ndarray, depth: np.ndarray, valid: np.ndarray, name: str, origin: object) -> RGBD:
    """Check and complete a pair: guide uint8 [H, W, 3], depth, valid [H, W]; errors name `origin`."""
    if guide.shape[:2] != depth.shape:
        raise InputError(
            f"{origin}: depth of {depth.shape[1]} x {depth.shape[0]} pixels for an RGB image of "
            f"{guide.shape[1]} x {guide.shape[0]}"
        )
    if not valid.any():
        raise InputError(f"{origin}: no valid depth in any pixel")
    filled = fill_holes(depth.astype(np.float32), valid)
    return RGBD(guide.astype(np.float32) / np.float32(255), filled[..., None], valid[..., None], name)


class Motorcycle:
    """The real pair in scikit-image's wheel: Middlebury 2014 "Motorcycle", 741 x 500, disparity in pixels.

    Larger = nearer, 7 to 60; 7 % of the pixels have no ground truth (NaN in the file).

    Reference:
        Scharstein et al., High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth, GCPR 2014.
    """

    unit = "px"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> RGBD:
        from skimage import data  # here, because it is slow to import and only this source needs it

        range(1)[index]  # an IndexError ends a loop over the source
        left, _, disparity = data.stereo_motorcycle()
        return make_pair(left, disparity, np.isfinite(disparity), "motorcycle", "stereo_motorcycle")


class NYUDepthV2:
    """The labelled NYU Depth v2 pairs, 640 x 480, depth in centimetres (as papers report), larger = farther.

    Read one frame at a time from `nyu_depth_v2_labeled.mat` (HDF5: images [N, 3, W, H] uint8, depths [N, W,
    H] float32 in metres). The file is opened for each read, so the source may be shared by threads and
    processes.

    Args:
        path: The `.mat` file.
        split: "train", the first 1000 frames, or "test", the other 449.

    Raises:
        InputError: the file is missing, is not HDF5, has not these arrays, or has no frame of that split.

    Reference:
        Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012.
    """

    unit = "cm"
    _TRAIN = 1000

    def __init__(self, path: Path | str, split: str):
        if split not in ("train", "test"):
            raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
        self.path = Path(path)
        every = range(nyu_frames(self.path))
        self.frames = every[: self._TRAIN] if split == "train" else every[self._TRAIN :]
        if not self.frames:
            raise InputError(f"{self.path}: no frame of the {split} split among its {len(every)}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> RGBD:
        frame = self.frames[index]
        guide, metres = nyu_frame(self.path, frame)
        valid = np.isfinite(metres) & (metres > 0)
        return make_pair(guide, metres * np.float32(100), valid, f"nyu_{frame:04d}", f"{self.path} frame {frame}")


def nyu_frames(path: Path) -> int:
    """How many frames `nyu_depth_v2_labeled.mat` has, after a check of its arrays."""

    with images.reading(path), h5py.File(path, "r") as file:
        rgb, depth = (dataset(file, name) for name in ("images", "depths"))
        fits = rgb.shape is not None and len(rgb.shape) == 4 and rgb.shape[1] == 3
        if not fits or depth.shape != rgb.shape[:1] + rgb.shape[2:]:
            raise InputError(
                f"{path}: expected images [N, 3, W, H] and depths [N, W, H], got {rgb.shape} and {depth.shape}"
            )
        check_pixels(path, rgb.shape[3], rgb.shape[2])
        return int(rgb.shape[0])


def nyu_frame(path: Path, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """One of them: uint8 [H, W, 3], and float32 [H, W] in metres."""
    with images.reading(path), h5py.File(path, "r") as file:
        rgb, depth = (numbers(dataset(file, name), 8 * MAX_PIXELS, frame) for name in ("images", "depths"))
        if rgb.dtype != np.uint8 or depth.dtype.kind != "f":
            raise InputError(f"{path}: expected images uint8 and depths floating, got {rgb.dtype} and {depth.dtype}")
        return rgb.transpose(2, 1, 0), depth.T


class PairFolder:
    """A folder of pairs `<id>_rgb.*` with one of `<id>_depth.*`, `<id>_disp.*`, `<id>_depth8.*`.

    RGB is read in 8 bits; depth is a grey image, a `.pfm`, an `.npy`, or an `.npz` with the key "depth". Values
    are used as stored, whatever their unit. Other files are ignored. Files are decoded when they are asked for: wrap
    the folder in `Cached` to keep them.

    Args:
        path: The folder.
        invalid_zero: Whether 0 marks a pixel without depth, as sensors and Middlebury write it; false for
            maps stretched to the full range, where 0 is a depth. Non-finite values are always invalid.

    Raises:
        InputError: no such folder, no pair in it, an RGB image or depth map without its partner; when a pair
            is read, an unreadable file, different sizes, or a depth map without a valid pixel.
    """

    unit = "stored units"

    def __init__(self, path: Path | str, *, invalid_zero: bool = True):
        self.path, self.invalid_zero = Path(path), invalid_zero
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        rgb = self._files(images.SUFFIXES, "_rgb")
        depth = self._files(images.SUFFIXES + images.ARRAY_SUFFIXES, "_depth", "_disp", "_depth8")
        if not rgb and not depth:
            raise InputError(f"{self.path}: no pairs <id>_rgb.* and <id>_depth.* (or _disp, _depth8)")
        for alone in sorted(rgb.keys() ^ depth.keys()):
            there, missing = (rgb, "depth map") if alone in rgb else (depth, "RGB image")
            raise InputError(f"{there[alone]}: no {missing} beside it")
        self.pairs = [(name, rgb[name], depth[name]) for name in sorted(rgb)]

    def _files(self, suffixes: tuple[str, ...], *endings: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in sorted(self.path.iterdir()):
            name, mark, ending = file.stem.rpartition("_")
            if mark + ending not in endings or file.suffix.lower() not in suffixes:
                continue
            if name in found:
                raise InputError(f"{file}: {found[name].name} is there too, which one is meant?")
            found[name] = file
        return found

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> RGBD:
        name, rgb, depth = self.pairs[index]
        values, valid = images.with_mask(images.read_map(depth), self.invalid_zero)
        return make_pair(images.read_rgb(rgb), values, valid, name, depth)


class Cached:
    """Keep the samples of a source in memory after their first use: 8 bytes a pixel, guides as uint8."""

    def __init__(self, source: Source):
        self.source, self.unit = source, source.unit
        self._kept: dict[int, RGBD] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> RGBD:
        index = range(len(self))[index]
        if index not in self._kept:
            sample = self.source[index]
            self._kept[index] = sample._replace(guide=np.rint(sample.guide * 255).astype(np.uint8))
        guide, depth, valid, name = self._kept[index]
        return RGBD(guide.astype(np.float32) / np.float32(255), depth, valid, name)


class First(sources.First[RGBD]):
    """The first `count` samples of a source."""

    name = "pairs"

    def __init__(self, source: Source, count: int):
        super().__init__(source, count)
        self.unit = source.unit


def data_dir(given: Path | None = None) -> Path:
    """The folder of real data: `given` (the option `--data_dir`), or else the variable JAXUP_DATA."""
    chosen = given or os.environ.get("JAXUP_DATA")
    if not chosen:
        raise InputError("data_dir: give --data_dir or set the environment variable JAXUP_DATA")
    if not Path(chosen).is_dir():
        raise InputError(f"{chosen}: no such folder")
    return Path(chosen)
