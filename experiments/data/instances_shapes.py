"""Generated scenes of objects and stuff: textured shapes that cover each other, on grounds of other textures."""

from collections.abc import Sequence

import numpy as np

from experiments.data.instances import Scene, boxes_of
from experiments.data.segmentation import IGNORED
from experiments.data.segmentation_shapes import SHAPES, painted, placed
from experiments.data.textures import palette
from jaxup._checks import Pair, check_int, pair

_STUFF = {"wood": range(24, 30), "checks": range(36, 42), "dots": range(48, 54)}  # which of the bank's textures
_OBJECTS = range(24)  # plain and rough ones
_FEWEST = 4  # pixels of an object that is not wholly covered


class Scenes:
    """Generated scenes: number i of a seed is always the same one, whatever was drawn before it.

    An object's class is its outline, that of stuff its texture. Objects of 4 to 24 pixels in radius cover each other
    and are seen in part; what is left of one with fewer than four pixels is ignored. In every fourth picture on average
    some objects of one kind stand close together and are one crowd. Pictures are rendered at twice their size.

    Args:
        count: number of scenes.
        size: height and width in pixels, an integer or a pair.
        seed: selects them; see `segmentation_shapes.HELD_OUT_SEED`.

    Raises:
        ValueError: a count, size or seed that is not an integer of at least 1, 16, 0.

    Example:
        >>> source = Scenes(2, size=(48, 64), seed=7)
        >>> scene = source[1]
        >>> scene.masks.shape[1:], len(scene.boxes) == len(scene.masks), len(source.things), len(source.stuff)
        ((48, 64), True, 7, 3)
    """

    things, stuff, ids = tuple(SHAPES), tuple(_STUFF), tuple[int, ...]()

    def __init__(self, count: int, size: int | Pair = 128, seed: int = 0):
        self.count, self.seed = check_int("count", count), check_int("seed", seed, 0)
        self.size = pair("size", size, 16)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Scene:
        number = range(self.count)[index]
        rng = np.random.default_rng((self.seed, number, 1))
        grid = np.meshgrid(*(np.arange(2 * n, dtype=np.float32) / 2 for n in self.size), indexing="ij")
        colours = palette(rng, 24)
        image, stuff = _ground(rng, colours, grid, self.size)
        objects, kinds, crowd = np.zeros(stuff.shape, np.int32), [0], [False]
        wanted = max(2, round(self.size[0] * self.size[1] / 1400 * rng.uniform(0.6, 1.4)))
        for place in range(wanted):
            together = place == 0 and rng.random() < 0.25
            kinds.append(int(rng.integers(len(SHAPES))))
            crowd.append(together)
            centre, radius = rng.uniform(0, self.size), 4 * 6 ** rng.random()
            for _ in range(5 if together else 1):
                at, size = (centre + rng.normal(0, 6, 2), 4.0) if together else (centre, radius)
                _draw(rng, colours, grid, (image, objects), (at, size, kinds[-1], len(kinds) - 1))
        picture = image.reshape(self.size[0], 2, self.size[1], 2, 3).mean((1, 3))
        picture = (picture + rng.normal(0, 0.01, picture.shape)).clip(0, 1)
        seen, stuff = objects[::2, ::2], stuff[::2, ::2].copy()
        stuff[seen > 0] = len(self.stuff)
        masks = seen[None] == np.arange(1, len(kinds))[:, None, None]
        areas = masks.sum((1, 2), dtype=np.float32)
        kept = areas >= _FEWEST
        stuff[masks[~kept].any(0)] = IGNORED
        return Scene(
            np.rint(255 * picture).astype(np.uint8),
            boxes_of(masks[kept]),
            np.array(kinds[1:], np.int32)[kept],
            masks[kept],
            np.array(crowd[1:])[kept],
            areas[kept],
            stuff,
            f"scene_{self.seed}_{number:04d}",
        )


def _ground(
    rng: np.random.Generator, colours: np.ndarray, grid: Sequence[np.ndarray], size: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """Regions around three points, each of a kind of stuff: colours and classes."""
    points = rng.uniform(0, size, (3, 2)).astype(np.float32)
    nearest = np.argmin(
        [np.hypot(*(axis - p for axis, p in zip(grid, point, strict=True))) for point in points], axis=0
    )
    image, stuff = np.zeros((*nearest.shape, 3), np.float32), np.zeros(nearest.shape, np.uint8)
    for region in range(3):
        kind, inside = int(rng.integers(len(_STUFF))), nearest == region
        stuff[inside] = kind
        image[inside] = painted(rng, colours, grid[0][inside], grid[1][inside], list(_STUFF.values())[kind])
    return image, stuff


def _draw(
    rng: np.random.Generator,
    colours: np.ndarray,
    grid: Sequence[np.ndarray],
    onto: tuple[np.ndarray, np.ndarray],
    what: tuple[np.ndarray, float, int, int],
) -> None:
    """Puts an object, of a place, radius, kind and number, in front of the others."""
    (image, objects), (centre, radius, kind, number) = onto, what
    part = tuple(slice(max(int(2 * (c - 2 * radius)), 0), max(int(2 * (c + 2 * radius)), 0)) for c in centre)
    row, column = (axis[part] for axis in grid)
    hit = placed(rng, list(SHAPES.values())[kind], radius, row - centre[0], column - centre[1])
    image[part][hit] = painted(rng, colours, row[hit], column[hit], _OBJECTS)
    objects[part][hit] = number
