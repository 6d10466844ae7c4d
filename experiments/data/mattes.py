"""Generated foregrounds whose alpha is exact by construction: hair, smoke and lace.

Hair and lace are drawn at four times the resolution and averaged: alpha is the covered area, colours are those of what
covers it. Smoke is a density, alpha = 1 - exp(-density). Sizes are in pixels of a picture of 256: larger pictures show
larger things.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from experiments.data.textures import ROUGH, SIZE, look_up, palette

_FINE = 4  # samples along each side of a pixel

Painted = tuple[np.ndarray, np.ndarray]  # alpha [H, W] and colours [H, W, 3]
Colours = tuple[np.ndarray, np.ndarray]
Rng = np.random.Generator


class Strand(NamedTuple):
    """A curve to draw: points [N, 2] as (x, y), its width, and its shade from 0 to 1 between two colours."""

    points: np.ndarray
    width: float
    shade: float


def hair(rng: Rng, height: int, width: int) -> Painted:
    """A head in hair: straight or wavy locks that fall, and single strands that stand off; all of them taper."""
    unit = min(height, width) / 256
    centre = np.array([width * rng.uniform(0.35, 0.65), height * rng.uniform(0.5, 0.75)])
    radii = unit * rng.uniform((40, 50), (65, 85))
    style = rng.uniform((50, 0.4, 0.0), (150, 3.0, 1.0)) * (unit, 1, 1)  # length, fall, waves
    dark, bright = np.sort(palette(rng, 12)[rng.choice(12, 2, replace=False)], axis=0)
    layers = [(1.0, *_head(rng, centre, radii, height, width, dark + rng.uniform(0.2, 0.8) * (bright - dark)))]
    for locks, thick, opacity, loose in ((60, 1.6, 1.0, 0.12), (45, 1.0, 0.9, 0.25), (25, 0.6, 0.7, 0.6)):
        strands = [strand for _ in range(locks) for strand in _lock(rng, centre, radii, style, unit * thick, loose)]
        layers.append((opacity, *_drawn(strands, (dark, bright), height, width)))
    return _stacked(layers)


def _lock(
    rng: Rng,
    centre: np.ndarray,
    radii: np.ndarray,
    style: np.ndarray,
    thick: float,
    loose: float,
) -> list[Strand]:
    """Strands that start near each other on the upper part of the head and leave it outwards, then fall."""
    length, fall, waves = style
    angle, tone = -np.pi / 2 + rng.uniform(-0.8, 0.8) * np.pi, rng.uniform(0, 1)
    reach, turn, cycles, phase = (
        length * rng.uniform(0.5, 1.2),
        rng.normal(0, 0.5),
        rng.uniform(2, 5),
        rng.uniform(0, 6),
    )
    t = np.linspace(0, 1, 40)
    strands = []
    for _ in range(8):
        at = angle + rng.normal(0, 0.08)
        start = centre + radii * rng.uniform(0.55, 0.98) * (np.cos(at), np.sin(at))
        way = at + rng.normal(0, loose) + (turn + rng.normal(0, loose)) * t
        heading = np.stack([np.cos(way), np.sin(way) + fall * t], 1)
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        path = start + np.cumsum(heading, axis=0) * reach * rng.uniform(0.7, 1.15) / len(t)
        swing = 0.04 * length * waves * t * np.sin(2 * np.pi * cycles * t + phase + rng.normal(0, 0.3))
        path += swing[:, None] * heading[:, ::-1] * (-1, 1)
        shade = float(np.clip(tone + rng.normal(0, 0.2), 0, 1))
        strands.append(Strand(path, thick * rng.uniform(0.5, 1.3), shade))
    return strands


def _drawn(strands: list[Strand], colours: Colours, height: int, width: int) -> Painted:
    """The share of each pixel that strands cover, and their mean colour there; each ends in a point."""
    canvas = Image.new("L", (_FINE * width, _FINE * height))  # 0: nothing, else a shade
    draw = ImageDraw.Draw(canvas)
    for points, thick, shade in strands:
        fine = [tuple(p) for p in (_FINE * points).tolist()]
        for first, last, share in ((0, 20, 1.0), (19, 32, 0.7), (31, len(fine), 0.4)):
            draw.line(fine[first:last], fill=1 + round(254 * shade), width=max(1, round(_FINE * thick * share)))
    drawn = np.asarray(canvas)
    area = _blocks((drawn > 0).astype(np.float32))
    shade = (_blocks(drawn.astype(np.float32)) / np.maximum(area, np.float32(1e-6)) - 1)[..., None] / 254
    return area, np.float32(colours[0]) + shade * np.float32(colours[1] - colours[0])


def _blocks(x: np.ndarray) -> np.ndarray:
    """From the fine grid [F H, F W, ...] to means over pixels [H, W, ...]."""
    height, width = (n // _FINE for n in x.shape[:2])
    rows = x.reshape(height, _FINE, *x.shape[1:]).sum(1)
    means: np.ndarray = rows.reshape(height, width, _FINE, *x.shape[2:]).sum(2) / np.float32(_FINE**2)
    return means


def _head(rng: Rng, centre: np.ndarray, radii: np.ndarray, height: int, width: int, colour: np.ndarray) -> Painted:
    """An ellipse and shoulders below it, of textured colour."""
    y, x = _grid(height, width, _FINE)
    inside = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1]) < 1
    inside |= (y > centre[1] + 0.9 * radii[1]) & (np.abs(x - centre[0]) < radii[0] * rng.uniform(0.5, 1.6))
    y, x = _grid(height, width, 1)
    tone = look_up(int(rng.choice(ROUGH)), rng.uniform(0.5, 2) * x + rng.integers(SIZE), y)[..., None]
    return _blocks(inside.astype(np.float32)), np.float32(colour) * (0.6 + 0.4 * tone)


def smoke(rng: Rng, height: int, width: int) -> Painted:
    """Plumes: turbulence that is drawn out along a rising, widening path, thick in its middle and thin around."""
    unit = min(height, width) / 256
    y, x = _grid(height, width, 1)
    density = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 4)):
        rise = np.clip((height * rng.uniform(0.85, 1.1) - y) / height, 0, None)  # 0 where it starts
        swing = unit * rng.uniform(10, 40) * np.sin(rise * rng.uniform(2, 7) + rng.uniform(0, 6))
        spread = unit * (rng.uniform(6, 20) + rng.uniform(30, 90) * rise)
        across = (x - width * rng.uniform(0.25, 0.75) - swing) / spread
        drift = 14 * unit * (_clouds(rng, height, width, 40 * unit) - 0.5) / spread * 6
        envelope = np.exp(-((across + drift) ** 2)) * np.clip(4 * rise, 0, 1) * np.exp(-rise * rng.uniform(0.3, 1.8))
        wisps = np.clip(_turbulence(rng, height, width, unit) - rng.uniform(0.15, 0.4), 0, None)
        density += rng.uniform(3, 9) * envelope * wisps
    alpha = 1 - np.exp(-density)
    grey = np.float32(rng.uniform(0.5, 1))
    tint = grey * (1 + rng.uniform(-0.12, 0.12, 3))
    shade = 0.75 + 0.25 * _clouds(rng, height, width, 30 * unit)[..., None]
    return alpha.astype(np.float32), np.clip(tint * shade, 0, 1).astype(np.float32)


def _clouds(rng: Rng, height: int, width: int, size: float) -> np.ndarray:
    """Smooth noise of one scale in pixels, 0 .. 1."""
    coarse = [max(2, int(n / size) + 3) for n in (height, width)]
    y, x = _grid(height, width, 1)
    at = [np.broadcast_to(v, (height, width)) / size + rng.uniform(0, 1) for v in (y, x)]
    noise: np.ndarray = ndimage.map_coordinates(rng.random(coarse), at, order=3, mode="grid-wrap")
    return noise.clip(0, 1)


def _turbulence(rng: Rng, height: int, width: int, unit: float) -> np.ndarray:
    """Ridges of noise of several scales, each moved by the larger ones: curling sheets, 0 .. 1."""
    total, weight, moved = np.zeros((height, width)), 0.0, np.zeros((2, height, width))
    y, x = _grid(height, width, 1)
    for octave in range(5):
        size = 64 * unit / 2**octave
        coarse = rng.random([max(2, int(n / size) + 3) for n in (height, width)])
        at = [(v + m) / size for v, m in zip((y, x), moved, strict=True)]
        noise = ndimage.map_coordinates(coarse, at, order=3, mode="grid-wrap")
        total += 0.6**octave * (1 - 2 * np.abs(noise - 0.5))
        weight += 0.6**octave
        gradient = np.stack(np.gradient(noise)) * size
        moved += 0.35 * size * gradient[::-1] * np.array([1, -1])[:, None, None]  # along the level lines
    return (total / weight).clip(0, 1)


def lace(rng: Rng, height: int, width: int) -> Painted:
    """A cloth of net, in folds: flowers and a scalloped border of dense weave, holes that are quite open."""
    unit = min(height, width) / 256
    y, x = _grid(height, width, _FINE)
    angle, cell = rng.uniform(-0.5, 0.5), unit * rng.uniform(5, 9)
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, c * y - s * x
    for _ in range(2):  # folds
        wave, phase = unit * rng.uniform(50, 130), rng.uniform(0, 6)
        u, v = u + unit * rng.uniform(2, 7) * np.sin(v / wave * 6 + phase), v + unit * 4 * np.sin(u / wave * 6 + phase)
    scallop = unit * rng.uniform(24, 44)
    hem = height * rng.uniform(0.6, 0.95) + 0.35 * scallop * np.abs(np.sin(np.pi * u / scallop))
    inside, edge = hem - v, unit * rng.uniform(2.5, 5)
    threads = _net(u / cell, v / cell, unit * rng.uniform(0.7, 1.3) / cell)
    repeat = cell * rng.integers(7, 11)
    pattern = _flowers(u / repeat, v / repeat, int(rng.integers(5, 9)), rng.uniform(0.28, 0.4))
    border = (inside < edge) | ((inside > 3 * edge) & (inside < 3.6 * edge))
    eyelets = np.hypot((u / scallop) % 1 * scallop - scallop / 2, inside - 2 * edge) < 0.55 * edge
    solid = (border | pattern | ((inside < 3.6 * edge) & ~eyelets)) & (inside > 0)
    mask = solid | (threads & (inside > 0))
    weave = 0.85 + 0.15 * np.sin(2 * np.pi * u / (0.22 * cell)) * np.sin(2 * np.pi * v / (0.22 * cell))
    colour = palette(rng, 6)[rng.integers(6)]
    colour = np.float32(colour if rng.random() < 0.5 else 0.75 + 0.25 * colour)
    folds = 0.75 + 0.25 * np.sin(u / (unit * 37) + rng.uniform(0, 6))
    tone = (weave * folds).astype(np.float32)
    area = _blocks(mask.astype(np.float32))
    tone = np.where(area > 0, _blocks(mask * tone) / np.maximum(area, np.float32(1e-6)), _blocks(tone))
    return np.float32(min(rng.uniform(0.8, 1.2), 1)) * area, tone[..., None] * colour


def _net(u: np.ndarray, v: np.ndarray, thick: float) -> np.ndarray:
    """Threads in three directions around hexagonal holes, as bobbin net has them."""
    hit = np.zeros(np.broadcast_shapes(u.shape, v.shape), bool)
    for angle in (0, math.pi / 3, 2 * math.pi / 3):
        along = math.cos(angle) * u + math.sin(angle) * v
        hit |= np.abs(along - np.rint(along)) < thick / 2
    return hit


def _flowers(u: np.ndarray, v: np.ndarray, petals: int, radius: float) -> np.ndarray:
    """Outlined petals around an open middle, every other row displaced by a half."""
    row = np.rint(v)
    u, v = u + 0.5 * (row % 2), v - row
    u = u - np.rint(u)
    r, around = np.hypot(u, v), np.arctan2(v, u)
    outline = radius * (0.62 + 0.38 * np.abs(np.cos(petals * around / 2)))
    return (
        (r < outline) & (r > 0.16 * radius) & ~((r > 0.45 * radius) & (r < 0.8 * outline) & (outline > 0.75 * radius))
    )


def _grid(height: int, width: int, fine: int) -> Painted:
    """Rows [fine H, 1] and columns [1, fine W] of samples, in pixels."""
    rows, columns = ((np.arange(fine * n, dtype=np.float32) + 0.5) / fine for n in (height, width))
    return rows[:, None], columns[None]


def _stacked(layers: list[tuple[float, np.ndarray, np.ndarray]]) -> Painted:
    """Layers (opacity, area, colours) over each other, the last in front: their alpha, and their mean colour."""
    alpha, premultiplied = np.zeros(layers[0][1].shape, np.float32), np.float32(0)
    for opacity, area, colours in layers:
        a = np.float32(opacity) * area
        premultiplied = premultiplied * (1 - a[..., None]) + a[..., None] * colours
        alpha = 1 - (1 - alpha) * (1 - a)
    colour = premultiplied / np.maximum(alpha, np.float32(1e-6))[..., None]
    return alpha, np.where(alpha[..., None] > 0, colour, layers[0][2]).astype(np.float32)


KINDS: dict[str, Callable[[Rng, int, int], Painted]] = {"hair": hair, "smoke": smoke, "lace": lace}
"""Each draws alpha [H, W] and colours [H, W, 3], float32 in 0 .. 1."""
