"""Generated images for segmentation: textured shapes in front of each other, each kind of shape a class."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.data.segmentation import IGNORED, Labelled
from experiments.data.textures import SIZE, bank, look_up, palette
from jaxup._checks import Pair, check_int, pair

HELD_OUT_SEED = 1_000_000
"""Seeds below train; this one and those above are for testing."""

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.75) < 0.2


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) < 0.65 + 0.3 * np.cos(5 * np.arctan2(v, u))


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v < 0.6) & (np.abs(u) * 1.6 < v + 0.9)


def _comb(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) < 1) & (np.abs(v) < 0.9) & ((v > 0.6) | (np.floor(4 * u) % 2 == 0))


SHAPES: dict[str, Inside] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.9,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.75,
    "bar": lambda u, v: (np.abs(u) < 0.15) & (np.abs(v) < 1.2),
    "triangle": _triangle,
    "ring": _ring,
    "star": _star,
    "comb": _comb,
}


class Shapes:
    """Generated images: number i of a seed is always the same one, whatever was drawn before it.

    The background is class 0. Shapes are turned and sized at random and cover each other; they have any texture and two
    colours of the picture's palette, so that a class is known by its outline alone, and a radius of 4 to 24 pixels.
    Pictures are rendered at twice their size and averaged; where the four pixels are not of one class, the label is
    that of the first. A frame of one pixel around some shapes is ignored, as annotators leave it out.

    Args:
        count: number of images.
        size: height and width in pixels, an integer or a pair.
        seed: selects the images; train below `HELD_OUT_SEED`, test from there on.

    Raises:
        ValueError: a count, size or seed that is not an integer of at least 1, 16, 0.

    Example:
        >>> source = Shapes(2, size=(48, 64), seed=7)
        >>> source[1].image.shape, source[1].labels.shape, len(source.classes)
        ((48, 64, 3), (48, 64), 8)
    """

    classes = ("background", *SHAPES)

    def __init__(self, count: int, size: int | Pair = 128, seed: int = 0):
        self.count, self.seed = check_int("count", count), check_int("seed", seed, 0)
        self.size = pair("size", size, 16)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Labelled:
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, index))
        height, width = self.size
        row, column = np.meshgrid(*(np.arange(2 * n, dtype=np.float32) / 2 for n in self.size), indexing="ij")
        colours = palette(rng, 24)
        image, labels = painted(rng, colours, row, column), np.zeros(row.shape, np.uint8)
        for _ in range(max(3, round(height * width / 700 * rng.uniform(0.7, 1.3)))):
            shape, radius = int(rng.integers(len(SHAPES))), 4 * 6 ** rng.random()
            centre = rng.uniform(0, self.size)
            part = tuple(slice(max(int(2 * (c - 2 * radius)), 0), int(2 * (c + 2 * radius))) for c in centre)
            hit = placed(rng, list(SHAPES.values())[shape], radius, row[part] - centre[0], column[part] - centre[1])
            image[part][hit] = painted(rng, colours, row[part][hit], column[part][hit])
            labels[part][hit] = shape + 1
            if rng.random() < 0.1:
                labels[part][hit ^ _grown(hit)] = IGNORED
        small = image.reshape(height, 2, width, 2, 3).mean((1, 3))
        noisy = small + rng.normal(0, 0.01, small.shape)
        name = f"shapes_{self.seed}_{index:04d}"
        return Labelled(np.rint(255 * noisy.clip(0, 1)).astype(np.uint8), labels[::2, ::2].copy(), name)


def painted(
    rng: np.random.Generator,
    colours: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    textures: Sequence[int] | None = None,
) -> np.ndarray:
    """One of all or of some textures in two colours at these places, float32 [..., 3]."""
    among = range(len(bank())) if textures is None else textures
    texture, density = among[int(rng.integers(len(among)))], np.float32(rng.uniform(0.5, 3))
    start, (a, b) = rng.integers(0, SIZE, 2), colours[rng.choice(len(colours), 2, replace=False)]
    amount = look_up(texture, density * column + start[0], density * row + start[1])[..., None]
    return a + amount * (b - a)


def placed(rng: np.random.Generator, inside: Inside, radius: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where a shape is, squeezed and turned around the origin."""
    angle, (a, b) = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.7, 1.3, 2)
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / a, (np.cos(angle) * y - np.sin(angle) * x) / b
    return inside(u, v)


def _grown(mask: np.ndarray) -> np.ndarray:
    """By two pixels of the large picture, along the axes."""
    grown = mask.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            moved = np.roll(mask, shift, axis)
            edge = [slice(None)] * 2
            edge[axis] = slice(0, 2) if shift > 0 else slice(-2, None)
            moved[tuple(edge)] = False
            grown |= moved
    return grown
