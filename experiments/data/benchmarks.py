"""Test sets beside NYU Depth v2: of depth, on which papers report errors on a scale of 0 to 255, and of saliency."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.data import images
from experiments.data.rgbd import RGBD, PairFolder, make_pair
from jaxup.files import InputError

Split = Literal["train", "test"]
Files = tuple[str, Path, Path]  # name, RGB image, depth map

_SINTEL_TESTED = 864  # of 1064


class Pairs:
    """Pairs of files whose depths lie between 0 and 255.

    Args:
        pairs: name, RGB image and depth map of each.
        read: reads the map.
        invalid_zero: as for `PairFolder`.
    """

    unit = "grey levels"

    def __init__(
        self,
        pairs: Sequence[Files],
        *,
        read: Callable[[Path], np.ndarray] = images.read_map,
        invalid_zero: bool = False,
    ):
        self.pairs, self.read, self.invalid_zero = list(pairs), read, invalid_zero

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> RGBD:
        name, rgb, depth = self.pairs[index]
        return make_pair(images.read_rgb(rgb), *images.with_mask(self.read(depth), self.invalid_zero), name, depth)


def middlebury(path: Path | str) -> Pairs:
    """The Middlebury stereo pairs of 2001 to 2006: left views and their disparities as stored, larger = nearer.

    A folder of any depth with one folder per scene, as they are unpacked: `view1.png` and `disp1.png` (2005 and 2006,
    third size, disparity x 3), `im2.png` and `disp2.png` (2003, x 4) or `im2.ppm` and `disp2.pgm` (2001, x 8). 0 is
    unknown. Papers use 30 of these scenes, with the holes filled by Lu et al.; a folder of such pairs, `<id>_rgb.*` and
    `<id>_disp.*` as for `PairFolder`, is read as well.

    Raises:
        InputError: no such folder, nothing of this kind in it, or a disparity map without its view.

    Reference:
        Scharstein and Szeliski, IJCV 2002 and CVPR 2003; Scharstein and Pal, and Hirschmueller and Scharstein, CVPR
        2007. Lu, Ren, Liu, Depth Enhancement via Low-rank Matrix Completion, CVPR 2014.
    """
    path = Path(path)
    pairs = [pair for folder in _folders(path) for pair in _stereo_scene(folder)]
    if not pairs and not any(path.glob("*_rgb.*")):
        raise InputError(f"{path}: no scenes view1.* and disp1.* (or im2.* and disp2.*), no pairs <id>_rgb.*")
    return Pairs(pairs or PairFolder(path).pairs, invalid_zero=True)


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    return [path, *sorted(folder for folder in path.rglob("*") if folder.is_dir())]


def _stereo_scene(folder: Path) -> list[Files]:
    """The pair of one folder, or none."""
    for view, disparity in (("view1", "disp1"), ("im2", "disp2")):
        maps, views = (
            [file for suffix in images.SUFFIXES if (file := folder / (stem + suffix)).is_file()]
            for stem in (disparity, view)
        )
        if maps and not views:
            raise InputError(f"{maps[0]}: no {view} beside it")
        if maps:
            return [(folder.name, views[0], maps[0])]
    return []


def lu(path: Path | str) -> Pairs:
    """The six pairs of Lu et al.: dark rooms, dense depth of 8 bits, 640 x 480, larger = nearer.

    A folder of `<id>_rgb.*` and `<id>_depth.*`, see `PairFolder`; the release has to be renamed so. 0 is a depth.

    Raises:
        InputError: as `PairFolder`.

    Reference:
        Lu, Ren, Liu, Depth Enhancement via Low-rank Matrix Completion, CVPR 2014.
    """
    return Pairs(PairFolder(path).pairs)


def sintel(path: Path | str, split: Split) -> Pairs:
    """MPI Sintel: frames of the final pass, 1024 x 436, with depth, larger = farther.

    Read from `training/final/SCENE/frame_0001.png` and `training/depth/SCENE/frame_0001.dpt`, where both archives were
    unpacked; see `read_dpt`. The depth of each frame is mapped linearly to 0 .. 255 from its least to its greatest
    value. That papers leave open, as well as which 864 of the 1064 frames they test on: here, the first by name.

    Args:
        path: The folder that holds `training`.
        split: "test", the first 864 frames, or "train", the other 200.

    Raises:
        InputError: there is no depth map, no frame of that split, or no image beside a depth map.

    Reference:
        Butler, Wulff, Stanley, Black, A Naturalistic Open Source Movie for Optical Flow Evaluation, ECCV 2012.
    """
    root = Path(path) / "training"
    maps = sorted((root / "depth").glob("*/frame_*.dpt"))
    if not maps:
        raise InputError(f"{root / 'depth'}: no depth maps SCENE/frame_*.dpt")
    maps = maps[:_SINTEL_TESTED] if split == "test" else maps[_SINTEL_TESTED:]
    if not maps:
        raise InputError(f"{root}: no frame of the {split} split, which begins after {_SINTEL_TESTED} frames")
    pairs = []
    for depth in maps:
        rgb = root / "final" / depth.parent.name / f"{depth.stem}.png"
        if not rgb.is_file():
            raise InputError(f"{depth}: no {rgb}")
        pairs.append((f"{depth.parent.name}_{depth.stem}", rgb, depth))
    return Pairs(pairs, read=_sintel_depth)


def _sintel_depth(path: Path) -> np.ndarray:
    """Depth from 0 to 255; what is not finite stays so."""
    depth = images.read_dpt(path)
    known = depth[np.isfinite(depth)]
    if not known.size:
        return depth
    low, high = (float(end) for end in (known.min(), known.max()))
    return (255 * ((depth.astype(np.float64) - low) / ((high - low) or 1))).astype(np.float32)


def saliency(path: Path | str) -> Pairs:
    """Images with saliency maps, the masks of their salient objects: the depths of these pairs are 0 and 1.

    A folder of any depth. An image is `<id>_image.*` and its mask, a grey image, `<id>_mask.*` in the same folder; or,
    as DUT-OMRON is unpacked, the image is a `.jpg` and its mask the `.png` of the same name, anywhere. Grey levels of
    128 and more are the object.

    Raises:
        InputError: no such folder, nothing of this kind in it, or a mask without its image; when a pair is read, a
            mask without any pixel of the object.

    Reference:
        Yang, Zhang, Lu, Ruan, Yang, Saliency Detection via Graph-based Manifold Ranking, CVPR 2013 (DUT-OMRON: 5168
        images).
    """
    files = [file for folder in _folders(Path(path)) for file in sorted(folder.iterdir()) if file.is_file()]
    found = {file.with_suffix("").as_posix(): file for file in files if file.stem.endswith("_image")}
    found |= {file.stem: file for file in files if file.suffix.lower() == ".jpg"}
    pairs = []
    for mask in files:
        if mask.suffix.lower() not in images.SUFFIXES:
            continue
        beside = mask.with_suffix("").as_posix().removesuffix("_mask") + "_image"
        name = beside if mask.stem.endswith("_mask") else mask.stem if mask.suffix.lower() == ".png" else None
        if name is None or mask.stem.endswith("_image"):
            continue
        if name not in found:
            raise InputError(f"{mask}: no image of the same name")
        pairs.append((mask.stem.removesuffix("_mask"), found[name], mask))
    if not pairs:
        raise InputError(f"{path}: no images <id>_image.* with masks <id>_mask.*, and no .jpg with masks .png")
    return Pairs(sorted(pairs), read=_mask)


def _mask(path: Path) -> np.ndarray:
    mask = (images.read_rgb(path)[..., 0] >= 128).astype(np.float32)
    if not mask.any():
        raise InputError(f"{path}: no pixel of the object")
    return mask


def by_family(source: Pairs | PairFolder, split: Split, every: int) -> Pairs | PairFolder:
    """Split pairs such that views of one scene, whose names differ in a number at the end, stay together.

    Args:
        source: The pairs.
        split: "test", one family in `every`, or "train", the others.
        every: At least 2.

    Returns:
        The part, in the order of the source.

    Raises:
        InputError: the part is empty.
    """

    def family(name: str) -> str:
        return name.rstrip("0123456789") or name

    names = sorted({family(name) for name, _, _ in source.pairs})
    tested = set(names[every - 1 :: every]) if every > 1 else set()
    part = copy.copy(source)
    part.pairs = [pair for pair in source.pairs if (family(pair[0]) in tested) == (split == "test")]
    if not part.pairs:
        raise InputError(f"held_out: one in {every} of {len(names)} scene families leaves none to {split}")
    return part
