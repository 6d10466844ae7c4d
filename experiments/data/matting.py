"""Foregrounds with alphas over backgrounds, for training, and images with trimaps and true mattes, for tests.

What is done to them for training is in `matting_batches`, the sets of papers in `matting_sets`, generated foregrounds
in `mattes`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import images, sources
from experiments.data.mattes import KINDS
from experiments.data.photos import embedded
from experiments.data.textures import palette
from jaxup import matting
from jaxup._checks import Pair, check_int, pair
from jaxup._opencv import resize_cubic
from jaxup.files import InputError

HELD_OUT_SEED = 1_000_000
"""Generated foregrounds: seeds below train; this one and those above are for testing."""


class Layers(NamedTuple):
    """What an image is composed of.

    Attributes:
        foreground: uint8 [H, W, 3].
        alpha: uint8 [H, W].
        background: uint8 [h, w, 3], of any size.
        name: what tables and file names call it.
    """

    foreground: np.ndarray
    alpha: np.ndarray
    background: np.ndarray
    name: str


class Matted(NamedTuple):
    """An image to test on.

    Attributes:
        image: uint8 [H, W, 3].
        trimap: uint8 [H, W]: 0, 128 where alpha is unknown, 255.
        alpha: uint8 [H, W], the truth.
        name: what tables and file names call it.
    """

    image: np.ndarray
    trimap: np.ndarray
    alpha: np.ndarray
    name: str


LayerSource = sources.Source[Layers]
Source = sources.Source[Matted]  # to test on


class Foreground(NamedTuple):
    """The files of one foreground."""

    name: str
    colours: Path
    alpha: Path


class Composed:
    """Each foreground over several backgrounds, from files that are decoded when they are asked for.

    Args:
        foregrounds: N of them.
        backgrounds: files of images.
        per_foreground: how many backgrounds each has.
        listed: whether backgrounds are in order, the first `per_foreground` for the first foreground, and so on.
            If not, each number draws one of them, the same in every process.

    Raises:
        InputError: no foregrounds or backgrounds, or a list of another length; when layers are read, a file that is
            missing or cannot be read, or an alpha of another size than its colours.
    """

    def __init__(
        self, foregrounds: Sequence[Foreground], backgrounds: Sequence[Path], per_foreground: int, listed: bool = False
    ):
        if not foregrounds or not backgrounds:
            raise InputError(
                f"foregrounds and backgrounds: expected at least one each, got {len(foregrounds)} and "
                f"{len(backgrounds)}"
            )
        if per_foreground < 1:
            raise InputError(f"per_foreground: expected at least 1, got {per_foreground}")
        if listed and len(backgrounds) != per_foreground * len(foregrounds):
            raise InputError(
                f"backgrounds: expected {per_foreground} for each of {len(foregrounds)} foregrounds, got "
                f"{len(backgrounds)}"
            )
        self.foregrounds, self.backgrounds = foregrounds, backgrounds
        self.per_foreground, self.listed = per_foreground, listed

    def __len__(self) -> int:
        return self.per_foreground * len(self.foregrounds)

    def __getitem__(self, index: int) -> Layers:
        index = range(len(self))[index]
        number, turn = divmod(index, self.per_foreground)
        name, colours, alpha = self.foregrounds[number]
        chosen = index if self.listed else int(np.random.default_rng(index).integers(len(self.backgrounds)))
        foreground, matte = images.read_rgb(colours), read_matte(alpha)
        check_size(alpha, "an alpha", matte, "a foreground", foreground)
        return Layers(foreground, matte, images.read_rgb(self.backgrounds[chosen]), f"{name}_{turn}")


class Generated:
    """Generated hair, smoke and lace in turn, over photographs that scikit-image carries.

    Number i of a seed is always the same, whatever was drawn before it. Grey photographs are toned in a colour.

    Args:
        count: number of images.
        size: height and width in pixels, an integer or a pair.
        seed: selects the images; train below `HELD_OUT_SEED`, test from there on, over other photographs.
        kinds: of foregrounds, in turn.

    Raises:
        ValueError: a count, size or seed that is not an integer of at least 1, 16, 0, or an unknown kind.

    Example:
        >>> source = Generated(3, size=(32, 48), seed=7)
        >>> source[1].alpha.shape, source[1].background.shape, source[1].name
        ((32, 48), (32, 48, 3), 'smoke_7_0001')
    """

    def __init__(self, count: int, size: int | Pair = 256, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)):
        self.count, self.seed = check_int("count", count), check_int("seed", seed, 0)
        self.size, self.kinds = pair("size", size, 16), kinds
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"kinds: expected {', '.join(KINDS)}, got {kind!r}")
        if not kinds:
            raise InputError(f"kinds: expected at least one of {', '.join(KINDS)}")
        self.photographs = list(embedded("train" if seed < HELD_OUT_SEED else "test").values())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Layers:
        index = range(self.count)[index]
        kind, rng = self.kinds[index % len(self.kinds)], np.random.default_rng((self.seed, index))
        alpha, colours = KINDS[kind](rng, *self.size)
        background = self._background(rng)
        foreground, matte = (np.rint(255 * x.clip(0, 1)).astype(np.uint8) for x in (colours, alpha))
        return Layers(foreground, matte, background, f"{kind}_{self.seed}_{index:04d}")

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """A part of a photograph, mirrored or not, enlarged by 1/2 to 2."""
        photograph = self.photographs[rng.integers(len(self.photographs))]
        ratio = min(n / m for n, m in zip(photograph.shape[:2], self.size, strict=True))
        factor = min(2 ** rng.uniform(-1, 1), ratio)
        height, width = (max(1, int(n * factor)) for n in self.size)
        y, x = (int(rng.integers(n - m + 1)) for n, m in zip(photograph.shape[:2], (height, width), strict=True))
        part = photograph[y : y + height, x : x + width]
        part = part[:, ::-1] if rng.random() < 0.5 else part
        if (part == part[..., :1]).all():
            tone = 0.5 + 0.5 * palette(rng, 6)[rng.integers(6)]
            part = np.rint(part * tone).astype(np.uint8)
        return resize_cubic(part, self.size)


class Examined:
    """Layers as images to test on: composed in 8 bits, truncated as in Adobe's script, with a trimap.

    Args:
        layers: a source of layers.
        trimaps: a file for each; None: alphas are eroded by ellipses whose sizes are drawn from 1 to `widest`, the same
            in every process.
        widest: pixels.
        reduce: whether backgrounds larger than the foreground are reduced, or cut.
    """

    def __init__(
        self, layers: LayerSource, trimaps: Sequence[Path] | None = None, widest: int = 29, reduce: bool = True
    ):
        if trimaps is not None and len(trimaps) != len(layers):
            raise InputError(f"trimaps: expected {len(layers)}, one for each image, got {len(trimaps)}")
        self.layers, self.trimaps, self.widest, self.reduce = layers, trimaps, check_int("widest", widest), reduce

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Matted:
        index = range(len(self))[index]
        foreground, alpha, background, name = self.layers[index]
        covering = matting.covering_background(background, size=alpha.shape, reduce=self.reduce)
        image = matting.compose(foreground, covering, alpha).astype(np.uint8)
        if self.trimaps is None:
            first, second = np.random.default_rng(index).integers(1, self.widest + 1, 2)
            return Matted(image, matting.trimap_by_erosion(alpha, foreground=first, background=second), alpha, name)
        trimap = read_matte(self.trimaps[index])
        check_size(self.trimaps[index], "a trimap", trimap, "an image", image)
        return Matted(image, matting.clean_trimap(trimap), alpha, name)


def read_matte(path: Path) -> np.ndarray:
    """Read an alpha or a trimap: uint8 [H, W]; 16 bits are rounded to 8, of a palette the colours count.

    Raises:
        InputError: the file is missing, cannot be read, or is of colours.
    """
    stored = images.read_rgb(path)
    if (stored != stored[..., :1]).any():
        raise InputError(f"{path}: expected a grey image, got one of colours")
    return stored[..., 0]


def check_size(origin: Path, what: str, x: np.ndarray, whose: str, image: np.ndarray) -> None:
    """Require an image's height and width; errors name `origin`."""
    if x.shape[:2] != image.shape[:2]:
        raise InputError(
            f"{origin}: {what} of {x.shape[1]} x {x.shape[0]} pixels for {whose} of {image.shape[1]} x {image.shape[0]}"
        )
