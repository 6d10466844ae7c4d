"""Generated RGB-D scenes: cluttered rooms whose texture edges and depth edges disagree, as the world's do.

Colours are rendered at twice the resolution and averaged, so that colour edges are anti-aliased; depth is one
of the four values, so that depth edges are never mixed. Object sizes are drawn in pixels: a larger image
shows more objects, not larger ones, and its local statistics are the same.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from experiments.data import shapes
from experiments.data.rgbd import RGBD
from experiments.data.shapes import Pose, Shape
from experiments.data.textures import SIZE, bank, look_up, palette
from jaxup._checks import Pair, check_int, pair

FOCAL = 200.0  # focal length in pixels
HELD_OUT_SEED = 1_000_000
"""Seeds below train; this one and those above are for testing."""

Item = tuple[Shape, Pose]
Region = tuple[slice, slice]


class Material(NamedTuple):
    """A texture of the bank, texels per pixel, and the two colours it blends."""

    texture: int
    density: float
    colours: np.ndarray


class Canvas(NamedTuple):
    """The picture being painted, rgb [3, 2H, 2W] and w [2H, 2W], and its rays x [1, 2W] and y [2H, 1]."""

    rgb: np.ndarray
    w: np.ndarray
    x: np.ndarray
    y: np.ndarray


class Scenes:
    """Generated scenes: number i of a seed is always the same picture, whatever was drawn before it.

    Depth is a disparity in pixels (far wall 4 to 12, nearest object up to about 80, larger = nearer). One
    scene in four holds distances instead (larger = farther), stretched to the interval its disparities had:
    the unit of errors stays, and nothing trained on the scenes can rely on the sign. Every pixel is valid. A
    scene of 128 x 128 pixels takes about 10 ms; `Cached` keeps a fixed pool.

    Args:
        count: Number of scenes.
        size: Height and width in pixels, an integer or a pair.
        seed: Selects the scenes; train below `HELD_OUT_SEED`, test from there on.

    Raises:
        ValueError: a count, size or seed that is not an integer of at least 1, 16, 0.

    Example:
        >>> scenes = Scenes(2, size=(48, 64), seed=7)
        >>> scenes[1].guide.shape, scenes[1].depth.shape
        ((48, 64, 3), (48, 64, 1))
    """

    def __init__(self, count: int, size: int | Pair = 128, seed: int = 0):
        self.count, self.seed = check_int("count", count), check_int("seed", seed, 0)
        self.size, self.unit = pair("size", size, 16), "px"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> RGBD:
        index = range(self.count)[index]
        rng = np.random.default_rng((self.seed, index))
        canvas = _blank(self.size)
        _furnish(canvas, rng)
        guide = photograph(_downsample(canvas.rgb), rng)
        depth = _measure(canvas.w, rng)
        return RGBD(guide, depth[..., None], np.ones((*self.size, 1), bool), f"scene_{self.seed}_{index:04d}")


def _f32(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)


def _blank(size: Pair) -> Canvas:
    height, width = (2 * n for n in size)
    y, x = (((np.arange(n, dtype=np.float32) + 0.5 - n / 2) / 2) / FOCAL for n in (height, width))
    grey, far = np.full((3, height, width), 0.3, np.float32), np.full((height, width), 0.3, np.float32)
    return Canvas(grey, far, _f32(x[None, :]), _f32(y[:, None]))


def _furnish(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint the room, then the objects from the farthest to the nearest."""
    sun = _direction(rng.normal(0, 1, 3) * (1, 1, 0.3) - (0, 0.6, 0.8))
    colours = palette(rng, 6)
    materials = [_material(colours, rng) for _ in range(6)]
    for item in _room(canvas, rng):
        _paint(canvas, item, materials[rng.integers(2)], sun, rng)
    nearest = np.exp(rng.uniform(np.log(1.6), np.log(6)))
    area = canvas.w.size / 4 / 128**2
    groups = [_group(canvas, nearest, rng) for _ in range(round(rng.uniform(7, 16) * max(area, 0.5)))]
    for group in sorted(groups, key=lambda items: -items[0][1].centre[2]):
        material = materials[rng.integers(6)]  # often the wall's own: a depth edge without a colour edge
        for item in group:
            _paint(canvas, item, material, sun, rng)
    _illuminate(canvas, rng)


def _material(colours: np.ndarray, rng: np.random.Generator) -> Material:
    first, second = colours[rng.choice(len(colours), 2, replace=False)]
    contrast = np.float32(rng.uniform(0.2, 1))
    density = float(np.exp(rng.uniform(np.log(0.6), np.log(3))))
    colours = np.stack([first, first + contrast * (second - first)])
    return Material(int(rng.integers(len(bank()))), density, colours)


def _direction(v: np.ndarray) -> np.ndarray:
    return _f32(v / np.linalg.norm(v))


def _facing(rng: np.random.Generator, tilt: float) -> np.ndarray:
    """Axes of which the third is turned from the camera's by about `tilt` radians, and rolled around it."""
    third = _direction(np.array([rng.normal(0, tilt), rng.normal(0, tilt), 1.0]))
    roll = rng.uniform(0, 2 * np.pi)
    first = _direction(np.cross(third, [np.cos(roll), np.sin(roll), 0.0]))
    return np.stack([first, _f32(np.cross(third, first)), third])


def _room(canvas: Canvas, rng: np.random.Generator) -> Iterator[Item]:
    """A far wall at z = 1 and, each with its chance, floor, ceiling and side walls that meet it in view."""
    half = np.ones(3, np.float32)
    yield shapes.plane, Pose(_f32([0, 0, 1]), _facing(rng, 0.25), half)
    bottom, right = float(canvas.y[-1, 0]), float(canvas.x[0, -1])
    sides = ([0, bottom, 0], 0.7), ([0, -bottom, 0], 0.15), ([right, 0, 0], 0.3), ([-right, 0, 0], 0.3)
    for edge, chance in sides:
        if rng.random() < chance:
            point = _f32(edge) * np.float32(rng.uniform(0.25, 0.95))
            third = _direction(point)
            first = _direction(np.cross(third, [0.0, 0.0, 1.0]))
            yield shapes.plane, Pose(point, np.stack([first, _f32([0, 0, 1]), third]), half)


def _group(canvas: Canvas, nearest: float, rng: np.random.Generator) -> list[Item]:
    """One object, or a few that belong together, somewhere between the far wall and the camera."""
    w = rng.uniform(1.03, nearest)
    across, down = rng.uniform(-1.1, 1.1, 2) * (canvas.x[0, -1], canvas.y[-1, 0])
    centre = _f32([across / w, down / w, 1 / w])
    pixel = 1 / (FOCAL * w)  # in world units, there
    kind = rng.choice(5, p=(0.28, 0.16, 0.26, 0.12, 0.18))
    if kind == 2:
        return list(_poles(centre, pixel, rng))
    half = _f32(np.exp(rng.uniform(np.log(6), np.log(40))) * pixel * rng.uniform(0.35, 1, 3))
    if kind < 2:
        solid = shapes.box if kind == 0 else shapes.ellipsoid
        return [(solid, Pose(centre, _facing(rng, 0.8), half))]
    make = shapes.wheel if kind == 3 else (shapes.board, shapes.fence, shapes.foliage)[rng.integers(3)]
    return [(make(rng, half[0] / pixel), Pose(centre, _facing(rng, 0.4), half[[0, 0, 0]]))]


def _poles(centre: np.ndarray, pixel: float, rng: np.random.Generator) -> Iterator[Item]:
    """Poles, legs, wires: long boxes, 1 to 7 pixels thick, parallel or fanned out."""
    length, thickness = np.exp(rng.uniform(np.log((12, 0.5)), np.log((90, 3.5)))) * pixel
    angle, fan = rng.uniform(0, 2 * np.pi), rng.choice([0.0, 0.0, 0.5])
    depth = rng.uniform(-0.3, 0.3)
    for step in range(rng.integers(1, 5)):
        theta = angle + fan * step
        first = _direction(np.array([np.cos(theta), np.sin(theta), depth]))
        second = _direction(np.cross(first, [0.0, 0.0, 1.0]))
        axes = np.stack([first, second, _f32(np.cross(first, second))])
        offset = np.float32(step * 7 * thickness) * second * (fan == 0)
        yield shapes.box, Pose(centre + offset, axes, _f32([length, thickness, thickness]))


def _region(canvas: Canvas, pose: Pose) -> Region:
    """The rows and columns that the projected corners of an object span."""
    signs = np.float32(np.indices((2, 2, 2)).reshape(3, 8) * 2 - 1)
    corners = pose.centre[:, None] + pose.axes.T @ (pose.half[:, None] * signs)
    px = corners[:2] / np.maximum(corners[2], np.float32(0.02)) * np.float32(2 * FOCAL)
    spans = []
    for p, n in zip((px[1], px[0]), canvas.w.shape, strict=True):
        low, high = np.clip((np.floor(p.min()) + n / 2 - 1, np.ceil(p.max()) + n / 2 + 1), 0, n).astype(int)
        spans.append(slice(low, high))
    return spans[0], spans[1]


def _paint(canvas: Canvas, item: Item, material: Material, sun: np.ndarray, rng: np.random.Generator) -> None:
    shape, pose = item
    everywhere = (slice(0, canvas.w.shape[0]), slice(0, canvas.w.shape[1]))
    region = everywhere if shape is shapes.plane else _region(canvas, pose)
    x, y = canvas.x[:, region[1]], canvas.y[region[0]]
    if not x.size or not y.size:
        return
    surface = shape(pose, x, y, sun)
    if shape is not shapes.plane:
        _cast_shadow(canvas, region, surface.w, rng)
    visible = surface.w > canvas.w[region]
    z = 1 / np.maximum(surface.w, np.float32(1e-3))  # whole arrays throughout: picking out pixels costs more
    distance = pose.centre[2] or 1.0  # a floor's centre is below the camera
    texels = np.float32(material.density * FOCAL / distance)
    a, b, c = (((row[0] * x + row[1] * y + row[2]) * z - row @ pose.centre) * texels for row in pose.axes)
    u = np.where(surface.face == 0, b, np.where(surface.face == 1, c, a))  # the two axes along the face
    v = np.where(surface.face == 0, c, np.where(surface.face == 1, a, b))
    tone = look_up(material.texture, u + int(rng.integers(SIZE)), v) * surface.light
    for layer, dark, bright in zip(canvas.rgb, *material.colours, strict=True):
        np.copyto(layer[region], dark * surface.light + tone * (bright - dark), where=visible)
    np.copyto(canvas.w[region], surface.w, where=visible)


def _cast_shadow(canvas: Canvas, region: Region, w: np.ndarray, rng: np.random.Generator) -> None:
    """Darken what lies behind the object's outline moved a little: an edge of colour, not of depth."""
    strength, moves = np.float32(rng.uniform(0.45, 1)), rng.integers(-14, 15, 2)
    spans = zip(region, moves.tolist(), canvas.w.shape, strict=True)
    (rows, from_rows), (columns, from_columns) = (_overlap(*span) for span in spans)
    behind = w[from_rows, from_columns] > canvas.w[rows, columns]
    canvas.rgb[:, rows, columns] *= np.where(behind, strength, np.float32(1))


def _overlap(span: slice, move: int, length: int) -> tuple[slice, slice]:
    """The part of a moved span that is still in the picture: where it is now, and counted within the span."""
    start = max(span.start + move, 0)
    stop = max(min(span.stop + move, length), start)
    return slice(start, stop), slice(start - span.start - move, stop - span.start - move)


def _illuminate(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gradient over the whole picture and the hard edge of a lit patch, neither of which depth knows of."""
    gx, gy = rng.normal(0, 0.6, 2)
    light = _f32(1 + gx * canvas.x + gy * canvas.y)
    if rng.random() < 0.5:
        angle, at = rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15)
        lit = np.float32(np.cos(angle)) * canvas.x + np.float32(np.sin(angle)) * canvas.y > np.float32(at)
        light = light * np.where(lit, np.float32(1), np.float32(rng.uniform(0.55, 0.9)))
    canvas.rgb[...] *= light


def _downsample(rgb: np.ndarray) -> np.ndarray:
    rows = rgb[:, ::2] + rgb[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)


def photograph(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lens blur, exposure, tone curve, sensor noise, 8 bits: colours [3, H, W] -> [H, W, 3] in 0 to 1."""
    side = np.float32(rng.uniform(0, 0.2))
    for _ in range(2):  # along x, then, the axes being swapped, along y, which swaps them back
        padded = np.pad(rgb, ((0, 0), (0, 0), (1, 1)), mode="edge")
        rgb = (1 - 2 * side) * rgb + side * (padded[..., :-2] + padded[..., 2:])
        rgb = np.ascontiguousarray(rgb.swapaxes(1, 2))
    rgb *= np.float32(rng.uniform(0.3, 0.55)) / rgb.mean()
    rgb = np.clip(rgb, 0, 1) ** np.float32(rng.uniform(0.7, 1.3))
    rgb += np.float32(rng.uniform(0.002, 0.02)) * rng.standard_normal(rgb.shape, np.float32)
    return np.ascontiguousarray(np.rint(np.clip(rgb, 0, 1) * 255).transpose(1, 2, 0)) / np.float32(255)


def _second_nearest(w: np.ndarray) -> np.ndarray:
    """One true value per pixel, of its four."""
    a, b, c, d = w[::2, ::2], w[1::2, ::2], w[::2, 1::2], w[1::2, 1::2]
    return np.maximum(np.minimum(np.maximum(a, b), np.maximum(c, d)), np.maximum(np.minimum(a, b), np.minimum(c, d)))


def _measure(w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Disparity or (one in four) distance."""
    disparity = np.float32(rng.uniform(4, 12)) * _second_nearest(w)
    if rng.random() < 0.75:
        return disparity
    return disparity.min() * disparity.max() / disparity  # swaps the two ends
