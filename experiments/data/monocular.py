"""Images with the depth of their pixels in metres: what a source of them is, and folders of files.

Generated ones are in `rooms`, NYU Depth v2 in `nyu`, and what is done to frames for training and tests in
`monocular_batches`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import images, sources
from experiments.data.images import ARRAY_SUFFIXES
from experiments.data.photos import Split, image_files
from experiments.data.rgbd import PairFolder
from jaxup.files import InputError, read_depth

KITTI = 256.0
"""Units of a metre in the depth maps of KITTI."""
_MILLIMETRES = 1000.0


class Frame(NamedTuple):
    """An image and its depth.

    Attributes:
        image: uint8 [H, W, 3].
        depth: float32 [H, W] in metres, larger = farther; 0 where it was not measured.
        name: what tables and file names call it.
    """

    image: np.ndarray
    depth: np.ndarray
    name: str


Source = sources.Source[Frame]


class Files(NamedTuple):
    """The files of one frame."""

    name: str
    image: Path
    depth: Path


class Folder:
    """Frames from pairs of files, which are decoded when they are asked for.

    Args:
        files: of at least one frame. Depth is a grey image of 16 bits, or floating-point numbers, which are metres.
        per_metre: units of a metre in images of 16 bits, 256 for KITTI; 0 is no depth.

    Raises:
        InputError: no frames; when one is read, a file that is missing or cannot be read, different sizes, depth of 8
            bits, or no measured pixel.
    """

    def __init__(self, files: Sequence[Files], per_metre: float = KITTI):
        if not files:
            raise InputError("frames: expected at least one image with its depth")
        if not per_metre > 0:
            raise InputError(f"per_metre: expected a number above 0, got {per_metre}")
        self.files, self.per_metre = files, per_metre

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        name, image, depth = self.files[index]
        return make_frame(images.read_rgb(image), _metres(depth, self.per_metre), name, depth)


def make_frame(image: np.ndarray, depth: np.ndarray, name: str, origin: object) -> Frame:
    """Check a frame, and bring what was not measured to 0; errors name `origin`."""
    if image.shape[:2] != depth.shape:
        raise InputError(
            f"{origin}: depth of {depth.shape[1]} x {depth.shape[0]} pixels for an image of "
            f"{image.shape[1]} x {image.shape[0]}"
        )
    measured = np.isfinite(depth) & (depth > 0)
    if not measured.any():
        raise InputError(f"{origin}: no measured depth in any pixel")
    return Frame(image, np.where(measured, depth, 0).astype(np.float32), name)


def _metres(path: Path, per_metre: float) -> np.ndarray:
    if path.suffix.lower() == ".npz":
        return images.read_map(path)
    stored = read_depth(path)
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    if stored.dtype.itemsize < 2:
        raise InputError(f"{path}: expected depth of 16 bits, or floating-point numbers, got {stored.dtype}")
    return (stored / per_metre).astype(np.float32)


def kitti(root: Path, split: Split) -> Source:
    """KITTI's depth, 16-bit PNG of 256 units a metre, in one of its layouts.

    For tests depth_selection/val_selection_cropped with image and groundtruth_depth; else train or val with
    DRIVE/proj_depth/groundtruth/image_02 and image_03, and raw images beside them in DATE/DRIVE/image_02/data.

    Reference:
        Uhrig et al., Sparsity Invariant CNNs, 3DV 2017.
    """
    selection = "depth_selection/val_selection_cropped"
    chosen = next((root / name for name in (selection, "val_selection_cropped") if (root / name).is_dir()), None)
    if split == "test" and chosen is not None:
        maps = image_files(chosen / "groundtruth_depth")
        return Folder([_selected(chosen, depth) for depth in maps])
    part = root / ("train" if split == "train" else "val")
    maps = sorted(part.glob("*/proj_depth/groundtruth/image_0[23]/*.png"))
    if not maps:
        raise InputError(f"{part}: no depth maps DRIVE/proj_depth/groundtruth/image_02/*.png")
    return Folder([_raw(root, depth) for depth in maps])


def _selected(folder: Path, depth: Path) -> Files:
    image = folder / "image" / depth.name.replace("_groundtruth_depth_", "_image_")
    return Files(depth.stem, _existing(image, depth), depth)


def _raw(root: Path, depth: Path) -> Files:
    drive, camera = depth.parents[3].name, depth.parent.name
    for base in (root / drive[:10], root / "raw" / drive[:10]):
        for suffix in (".png", ".jpg"):
            image = base / drive / camera / "data" / f"{depth.stem}{suffix}"
            if image.is_file():
                return Files(f"{drive}_{camera}_{depth.stem}", image, depth)
    raise InputError(f"{depth}: has no image {drive[:10]}/{drive}/{camera}/data/{depth.stem}.png in {root}")


def folder(root: Path, split: Split, per_metre: float = KITTI) -> Source:
    """Any images with depth maps of the same names: images/SPLIT and depth/SPLIT, or <id>_rgb.* and <id>_depth.*.

    The latter are taken for both splits, in millimetres where they are of 16 bits.
    """
    if (root / "images" / split).is_dir():
        pictures, maps = image_files(root / "images" / split), root / "depth" / split
        return Folder([Files(file.stem, file, _map(file, maps)) for file in pictures], per_metre)
    pairs = [Files(*pair) for pair in PairFolder(root).pairs if pair[2].stem.endswith("_depth")]
    if not pairs:
        raise InputError(f"{root}: no pairs <id>_rgb.* and <id>_depth.* in metres or millimetres")
    return Folder(pairs, _MILLIMETRES)


def _map(image: Path, folder: Path) -> Path:
    for suffix in (*images.SUFFIXES, *ARRAY_SUFFIXES):
        if (folder / f"{image.stem}{suffix}").is_file():
            return folder / f"{image.stem}{suffix}"
    raise InputError(f"{image}: has no depth map {image.stem} in {folder}")


def _existing(path: Path, partner: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file, which belongs to {partner}")
    return path
