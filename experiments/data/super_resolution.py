"""Photographs for super-resolution: how their resolution is lowered, and the patches that networks train on.

As FSRCNN prepares its training data, whose way the paper follows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from experiments.data import images
from experiments.data.batching import batched
from experiments.data.photos import embedded, image_files, resized, to_luma
from experiments.engine.samples import Named
from jaxup.files import InputError

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6)  # by which photographs are reduced before anything else, as augmentation
TURNS = 4  # by 0, 90, 180 and 270 degrees
_HELD_OUT = 10

Photos = Mapping[str, np.ndarray]
Example = dict[str, np.ndarray]


class Pair(NamedTuple):
    """Luminance of a photograph in both resolutions, on a scale of 0 to 255: [h, w] and [s*h, s*w]."""

    low: np.ndarray
    high: np.ndarray


def degraded(photograph: np.ndarray, scale: int) -> Pair:
    """Lower the resolution of a photograph.

    It is cut at the bottom and on the right to multiples of the scale, and reduced as 8-bit RGB by antialiased bicubic
    interpolation; of both resolutions the Y channel counts. A photograph of one channel is taken as it is.

    Args:
        photograph: uint8 [H, W, 3] or [H, W].
        scale: s.

    Returns:
        float64.
    """
    height, width = (n // scale for n in photograph.shape[:2])
    high = photograph[: scale * height, : scale * width]
    low = resized(high, (height, width))
    return Pair(*(image.astype(np.float64) if image.ndim == 2 else to_luma(image) for image in (low, high)))


def read_folder(folder: Path) -> Photos:
    """All photographs of a folder by name: uint8 [H, W, 3], or [H, W] where the file has one channel.

    Raises:
        InputError: the folder is missing or has no image, or an image cannot be read.
    """
    return {file.stem: _read(file) for file in image_files(folder)}


def _read(file: Path) -> np.ndarray:
    rgb = images.read_rgb(file)
    with images.reading(file), images.open_image(file) as image:
        return rgb[..., 0] if image.mode == "L" else rgb


def training_photos(train_dirs: Sequence[Path], validation_dirs: Sequence[Path]) -> tuple[Photos, Photos]:
    """The photographs to train on, and those to validate on: where no folder is given, every tenth of the former.

    Without folders, photographs that scikit-image carries.

    Raises:
        InputError: as `read_folder`, or too few photographs.
    """
    found = _read_folders(train_dirs) if train_dirs else embedded("train")
    if validation_dirs:
        return found, _read_folders(validation_dirs)
    if len(found) < 2:
        raise InputError(f"train_dirs: expected at least 2 photographs, one of them for validation, got {len(found)}")
    held_out = list(found)[::_HELD_OUT]
    return {k: v for k, v in found.items() if k not in held_out}, {k: found[k] for k in held_out}


def _read_folders(folders: Sequence[Path]) -> Photos:
    return {f"{folder}/{name}": photo for folder in folders for name, photo in read_folder(folder).items()}


class Patches:
    """All patches of all photographs as a random-access source, cut when they are asked for.

    Each photograph is taken in five sizes (1, 0.9, .. 0.6), each size is degraded, its low resolution is cut at
    multiples of the stride into windows of m x m, and these and their counterparts are turned by 0, 90, 180 and 270
    degrees. Sizes below one patch are left out. In memory are the luminances, as uint8.

    Args:
        photographs: uint8 [H, W, 3] or [H, W] by name.
        scale: s.
        size: s*m, the side of the patches in high resolution; a multiple of s.
        stride: from one patch to the next in high resolution; a multiple of s.
        factors: the sizes.
        turns: how many of the four directions.

    Raises:
        InputError: a photograph is smaller than a patch, or size or stride is no multiple of s.
    """

    def __init__(
        self,
        photographs: Photos,
        *,
        scale: int,
        size: int,
        stride: int,
        factors: Sequence[float] = FACTORS,
        turns: int = TURNS,
    ):
        for name, value in (("patch", size), ("stride", stride)):
            if value < 1 or value % scale:
                raise InputError(f"{name}: expected a multiple of the scale {scale}, got {value}")
        self.scale, self.turns = scale, turns
        self.size, self.stride = size // scale, stride // scale  # in low resolution
        pairs = [(name, _rounded(pair)) for name, pair in self._sizes(photographs, factors)]
        pairs = [(name, pair) for name, pair in pairs if min(pair.low.shape) >= self.size]
        self.names, self.pairs = [name for name, _ in pairs], [pair for _, pair in pairs]
        counts = [int(np.prod(self._grid(pair))) * turns for pair in self.pairs]
        self._ends = np.cumsum(counts)

    def _sizes(self, photographs: Photos, factors: Sequence[float]) -> list[tuple[str, Pair]]:
        pairs = []
        for name, rgb in photographs.items():
            if min(rgb.shape[:2]) < self.scale * self.size:
                size = f"{rgb.shape[1]} x {rgb.shape[0]}"
                raise InputError(f"{name}: {size} pixels are fewer than the patch of {self.scale * self.size}")
            for factor in factors:
                height, width = (round(factor * n) for n in rgb.shape[:2])
                pairs.append((name, degraded(resized(rgb, (height, width)), self.scale)))
        return pairs

    def _grid(self, pair: Pair) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = ((n - self.size) // self.stride + 1 for n in pair.low.shape)
        return rows, columns

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name_of(self, index: int) -> str:
        """The photograph that a patch is from."""
        return self.names[self._number(index)]

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        number = self._number(index)
        pair, index = self.pairs[number], index - (int(self._ends[number - 1]) if number else 0)
        index, turn = divmod(index, self.turns)
        row, column = (self.stride * n for n in divmod(index, self._grid(pair)[1]))
        return {
            name: _unit(np.rot90(image[s * row :, s * column :][: s * self.size, : s * self.size], turn))
            for name, image, s in (("low", pair.low, 1), ("high", pair.high, self.scale))
        }


def _rounded(pair: Pair) -> Pair:
    return Pair(*(np.rint(image).astype(np.uint8) for image in pair))


def _unit(image: np.ndarray) -> np.ndarray:
    """[H, W] of 0 .. 255 -> float32 [H, W, 1] of 0 .. 1."""
    return (image[..., None] / 255).astype(np.float32)


def training_batches(patches: Patches, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches "low" [B, m, m, 1] and "high" [B, s*m, s*m, 1], shuffled anew each epoch, restorable."""
    examples = grain.MapDataset.source(Named(patches)).seed(seed).shuffle().repeat()
    return batched(examples, batch_size, ahead=8)


def validation_batches(patches: Patches, batch_size: int, most: int) -> list[Example]:
    """Batches of equal size of at most so many patches, spread evenly over all."""
    batch_size = min(batch_size, len(patches))
    count = max(min(most, len(patches)) // batch_size, 1) * batch_size
    chosen = [patches[int(index)] for index in np.linspace(0, len(patches) - 1, count)]
    groups = [chosen[i : i + batch_size] for i in range(0, count, batch_size)]
    return [{name: np.stack([example[name] for example in group]) for name in group[0]} for group in groups]
