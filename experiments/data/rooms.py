"""Generated rooms in metres, which show their depth as photographs do: perspective, sizes, textures, feet, shading.

The camera has the field of view of NYU Depth v2's and the height of a head. Tiles, boards and bricks have sizes in
metres, and furniture those of furniture, which stands on the floor; floors are dark, ceilings white, walls pale; a lamp
above the camera lights what is turned to it and near. (Sizes in `Scenes` are in pixels, and say nothing of distance.)
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.data.monocular import Frame
from experiments.data.scenes import photograph
from experiments.data.shapes import Pose, Shape, box, plane
from experiments.data.textures import SIZE, bank, palette
from jaxup._checks import Pair, check_int, pair

FOCAL = 1.08  # in heights of the image
_TEXELS = 100.0  # a metre
_LEVELS = 7  # of ever coarser textures, whose pixels are means
_THIN = 0.025  # metres: half a board, or half a leg
_WOOD = np.array([0.45, 0.3, 0.2])

Rng = np.random.Generator
Part = tuple[np.ndarray, np.ndarray]  # centre, from where it stands on the floor, and half sizes


class Space(NamedTuple):
    """Where walls, floor and ceiling are: metres from the camera along x (right), y (down) and z (away)."""

    left: float
    right: float
    floor: float
    ceiling: float
    far: float


class Item(NamedTuple):
    """A surface or a box, a texture of the bank, and the two colours that it blends."""

    shape: Shape
    pose: Pose
    texture: int
    colours: np.ndarray


class Rooms:
    """Generated rooms with distances in metres: number i of a seed is always the same, whatever was drawn before it.

    Depth is the distance along the axis of the camera, exact in the middle of each pixel, at most 10 m. A room of 120 x
    160 pixels takes about 15 ms; `Cached` keeps a fixed pool.

    Args:
        count: Number of rooms.
        size: Height and width in pixels, an integer or a pair.
        seed: Selects the rooms; train below `HELD_OUT_SEED`, test from there on.

    Raises:
        ValueError: a count, size or seed that is not an integer of at least 1, 16, 0.

    Example:
        >>> frame = Rooms(2, size=(48, 64), seed=7)[1]
        >>> frame.image.shape, frame.depth.shape, bool(frame.depth.max() <= 10)
        ((48, 64, 3), (48, 64), True)
    """

    def __init__(self, count: int, size: int | Pair = (120, 160), seed: int = 0):
        self.count, self.seed = check_int("count", count), check_int("seed", seed, 0)
        self.size = pair("size", size, 16)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Frame:
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, index))
        items, lamp = _room(rng)
        rgb, depth = _render(items, lamp, self.size, FOCAL * rng.uniform(0.95, 1.05))
        return Frame(np.rint(255 * photograph(rgb, rng)).astype(np.uint8), depth, f"room_{self.seed}_{index:04d}")


def _room(rng: Rng) -> tuple[list[Item], np.ndarray]:
    """What is in a room, and where its lamp is, both as the camera sees them."""
    space = Space(*rng.uniform((-3.5, 1.2, 1.25, -1.3, 2.2), (-1.2, 3.5, 1.55, -1.0, 7)))
    tilt, turn, roll = np.radians(rng.normal((8, 0, 0), (4, 18, 1)))
    view = _turn(2, roll) @ _turn(0, tilt) @ _turn(1, turn)
    colours = palette(rng, 8)
    items = [*_surfaces(space, colours, rng), *_furnished(space, colours, rng), *_hung(space, colours, rng)]
    lamp = np.array([rng.uniform(-1, 1), space.ceiling + 0.3, rng.uniform(-0.5, 1.5)])
    return [item._replace(pose=_seen(item.pose, view)) for item in items], (view @ lamp).astype(np.float32)


def _seen(pose: Pose, view: np.ndarray) -> Pose:
    return Pose(*(a.astype(np.float32) for a in (view @ pose.centre, pose.axes @ view.T, pose.half)))


def _item(shape: Shape, pose: Pose, ends: np.ndarray, rng: Rng) -> Item:
    """With any texture, of the first colour and one at most half of the way to the second."""
    first, second = ends
    tones = np.stack([first, first + rng.uniform(0.1, 0.5) * (second - first)])
    return Item(shape, pose, int(rng.integers(len(bank()))), tones)


def _surfaces(space: Space, colours: np.ndarray, rng: Rng) -> Iterator[Item]:
    """A floor like wood, a white ceiling, and pale walls at the left, at the right and ahead."""
    sides, ones = np.eye(3), np.ones(3)
    wood, paint = _WOOD * rng.uniform(0.6, 1), 0.7 + 0.3 * rng.choice(colours)
    yield _item(plane, Pose(space.floor * sides[1], sides[[0, 2, 1]], ones), np.stack([wood, rng.choice(colours)]), rng)
    yield _item(plane, Pose(space.ceiling * sides[1], sides[[0, 2, 1]], ones), np.stack([ones, 0.8 * ones]), rng)
    walls = np.stack([paint, rng.choice(colours)])
    for at, side in ((space.left, 0), (space.right, 0), (space.far, 2)):
        yield _item(plane, Pose(at * sides[side], sides[[2 - side, 1, side]], ones), walls, rng)


def _furnished(space: Space, colours: np.ndarray, rng: Rng) -> Iterator[Item]:
    """Three to nine pieces of furniture, turned more or less as the walls are."""
    for _ in range(rng.integers(3, 10)):
        parts = list((_block, _block, _table, _chair)[rng.integers(4)](rng))
        extent = max(float(np.hypot(*(abs(centre) + half)[[0, 2]])) for centre, half in parts)
        aside = max((space.right - space.left) / 2 - extent, 0)
        x = (space.left + space.right) / 2 + rng.uniform(-aside, aside)
        z = rng.uniform(0.9 + extent, max(space.far - extent, 1.2 + extent))
        axes = _turn(1, rng.choice(4) * np.pi / 2 + rng.normal(0, 0.1)).T
        own = rng.choice(colours, 2)
        for centre, half in parts:
            yield _item(box, Pose(centre @ axes + (x, space.floor, z), axes, half), own, rng)


def _turn(axis: int, angle: float) -> np.ndarray:
    """The rotation about an axis."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turned = np.eye(3)
    turned[[a, b], [a, b]], turned[a, b], turned[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
    return turned


def _part(x: float, y: tuple[float, float], z: float, half_x: float, half_z: float) -> Part:
    """A box from one height above the floor to another."""
    low, high = y
    return np.array([x, -(low + high) / 2, z]), np.array([half_x, (high - low) / 2, half_z])


def _block(rng: Rng) -> Iterator[Part]:
    """A cupboard, wardrobe, bed or crate."""
    low, high = _BLOCKS[rng.integers(len(_BLOCKS))]
    width, height, depth = rng.uniform(low, high)
    yield _part(0, (0, height), 0, width / 2, depth / 2)


_BLOCKS = (
    ((0.5, 0.7, 0.4), (1.4, 1.0, 0.6)),
    ((0.8, 1.8, 0.5), (1.6, 2.1, 0.6)),
    ((0.9, 0.4, 1.9), (1.6, 0.6, 2.1)),
    ((0.3, 0.3, 0.3), (0.6, 0.5, 0.6)),
)  # least and largest width, height and depth


def _table(rng: Rng, top: float = 0.74, half: tuple[float, float] | None = None) -> Iterator[Part]:
    x, z = rng.uniform((0.4, 0.3), (0.8, 0.45)) if half is None else half
    yield _part(0, (top - 2 * _THIN, top), 0, x, z)
    for side in (-1, 1):
        for end in (-1, 1):
            yield _part(side * (x - _THIN), (0, top), end * (z - _THIN), _THIN, _THIN)


def _chair(rng: Rng) -> Iterator[Part]:
    yield from _table(rng, 0.45, (0.21, 0.21))
    yield _part(0, (0.45, rng.uniform(0.8, 0.95)), 0.19, 0.21, _THIN)


def _hung(space: Space, colours: np.ndarray, rng: Rng) -> Iterator[Item]:
    """A door, and pictures at the height of the eyes, on walls."""
    for kind in range(rng.integers(1, 5)):
        width, low, high = (0.9, 0.0, 2.05) if kind == 0 else (rng.uniform(0.3, 1), 1.2, rng.uniform(1.5, 2))
        wall = rng.integers(3)
        if wall == 2:
            centre, half = _part(rng.uniform(space.left, space.right), (low, high), space.far, width / 2, _THIN)
        else:
            centre, half = _part(space[wall], (low, high), rng.uniform(0.5, space.far), _THIN, width / 2)
        yield _item(box, Pose(centre + (0, space.floor, 0), np.eye(3), half), rng.choice(colours, 2), rng)


def _render(items: list[Item], lamp: np.ndarray, size: Pair, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours [3, H, W], and the distance along z [H, W]: which face each pixel sees, then its texture and light."""
    height, width = size
    y, x = ((np.arange(n, dtype=np.float32) + 0.5 - n / 2) / np.float32(focal * height) for n in size)
    ray = np.stack(np.broadcast_arrays(x[None], y[:, None], np.float32(1)))
    w, seen = np.full((height, width), 0.1, np.float32), np.zeros((height, width), int)  # 10 m
    for i, item in enumerate(items):
        surface = item.shape(item.pose, ray[0], ray[1], lamp)
        nearer = surface.w > w
        np.copyto(seen, 3 * i + surface.face.astype(int), where=nearer)
        np.copyto(w, surface.w, where=nearer)
    axes = np.stack([item.pose.axes[[(k + 1) % 3, (k + 2) % 3, k]] for item in items for k in range(3)])
    across, along, normal = axes[seen].transpose(2, 3, 0, 1)
    which, point = seen // 3, ray / w
    local = point - np.stack([item.pose.centre for item in items])[which].transpose(2, 0, 1)
    slope = np.abs((normal * ray).sum(0)) / np.sqrt((ray * ray).sum(0))
    texels = _TEXELS / (focal * height * w * np.sqrt(np.maximum(slope, 0.02)))  # of a pixel's side, there
    u, v = (_TEXELS * (axis * local).sum(0) for axis in (across, along))
    tone = _looked_up(np.array([item.texture for item in items])[which], u, v, texels)
    dark, bright = np.stack([item.colours for item in items])[which].transpose(2, 3, 0, 1)
    rgb = (dark + tone * (bright - dark)) * _light(lamp[:, None, None] - point, normal)
    return rgb.astype(np.float32), (1 / w).astype(np.float32)


def _light(to_lamp: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """What is turned to the lamp, and near it, is brighter."""
    square = (to_lamp * to_lamp).sum(0)
    cosine = np.abs((to_lamp * normal).sum(0)) / np.sqrt(square)
    light: np.ndarray = 0.35 + 0.9 * cosine * 4 / (4 + square)
    return light


@functools.lru_cache(maxsize=1)
def _coarser() -> list[np.ndarray]:
    """All textures, and their means over blocks of 2 x 2, 4 x 4 ..., each kind flat."""
    levels = [bank()]
    while len(levels) < _LEVELS:
        last = levels[-1]
        levels.append(last.reshape(len(last), last.shape[1] // 2, 2, -1, 2).mean((2, 4)))
    return levels


def _looked_up(texture: np.ndarray, u: np.ndarray, v: np.ndarray, texels: np.ndarray) -> np.ndarray:
    """Textures at these texels, means over about so many a side."""
    level = np.clip(np.rint(np.log2(np.maximum(texels, 1))), 0, _LEVELS - 1).astype(int)
    tone = np.empty(u.shape, np.float32)
    for k, coarse in enumerate(_coarser()):
        here, side = level == k, SIZE >> k
        row, column = (np.floor(a[here] / 2**k).astype(int) % side for a in (v, u))
        tone[here] = coarse[texture[here], row, column]
    return tone
