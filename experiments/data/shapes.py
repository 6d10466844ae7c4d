"""Surfaces seen by a pinhole camera, each as an image of w = 1 / z.

The camera is at the origin and looks along z, y downwards; a pixel's ray is (x, y, 1). On a plane w is linear
over the image, and the larger w is in front, so a convex solid is a few minima and maxima of linear
functions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.data.textures import ROUGH, SIZE, look_up


class Pose(NamedTuple):
    """An oriented box that bounds an object: centre [3], axes as rows [3, 3], half sizes [3]; all float32."""

    centre: np.ndarray
    axes: np.ndarray
    half: np.ndarray


class Surface(NamedTuple):
    """What the camera sees of an object: w (0 where it misses), the axis of the face hit, its brightness."""

    w: np.ndarray
    face: np.ndarray
    light: np.ndarray


Shape = Callable[[Pose, np.ndarray, np.ndarray, np.ndarray], Surface]


def _lambert(cosine: np.ndarray) -> np.ndarray:
    return np.float32(0.4) + np.float32(0.7) * np.maximum(cosine, 0)


def box(pose: Pose, x: np.ndarray, y: np.ndarray, sun: np.ndarray) -> Surface:
    """A solid box: a ray is inside while w lies between the last front face and the first back face."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    enter, leave = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    face = np.zeros(shape, np.int8)
    lights = np.zeros(3, np.float32)
    for k, (axis, half) in enumerate(zip(pose.axes, pose.half, strict=True)):
        distance = axis @ pose.centre
        if distance < 0:  # look along the axis from the camera's side
            axis, distance = -axis, -distance
        slope = axis[0] * x + axis[1] * y + axis[2]
        lights[k] = _lambert(-axis @ sun)
        leave = np.maximum(leave, slope / (distance + half))
        if distance > half:
            w = slope / (distance - half)
            face[w < enter] = k
            enter = np.minimum(enter, w)
        else:
            leave = np.maximum(leave, slope / (distance - half))
    return Surface(np.where(enter > leave, enter, np.float32(0)), face, lights[face])


def ellipsoid(pose: Pose, x: np.ndarray, y: np.ndarray, sun: np.ndarray) -> Surface:
    """In units of the half sizes a unit sphere: |q / w - p| = 1 for the ray q and the centre p."""
    unit = pose.axes / pose.half[:, None]
    p = unit @ pose.centre
    q = [row[0] * x + row[1] * y + row[2] for row in unit]
    qq, qp = sum(a * a for a in q), sum(a * b for a, b in zip(q, p, strict=True))
    root = qp * qp - qq * (p @ p - 1)
    hit = (root > 0) & (qp > 0)
    w = np.where(hit, (qp + np.sqrt(np.maximum(root, 0))) / (p @ p - 1), np.float32(0))
    safe = np.where(hit, w, np.float32(1))
    local = [(a / safe - b) / half for a, b, half in zip(q, p, pose.half, strict=True)]
    s = pose.axes @ sun
    cosine = sum(a * b for a, b in zip(local, s, strict=True)) / np.sqrt(sum(a * a for a in local))
    return Surface(w, np.full(w.shape, 2, np.int8), _lambert(cosine))


def plane(pose: Pose, x: np.ndarray, y: np.ndarray, sun: np.ndarray) -> Surface:
    """The plane through the centre across the third axis, without end."""
    axis = pose.axes[2]
    w = (axis[0] * x + axis[1] * y + axis[2]) / (axis @ pose.centre)
    light = _lambert(-np.sign(axis @ pose.centre) * (axis @ sun))
    return Surface(np.maximum(w, 0), np.full(w.shape, 2, np.int8), np.broadcast_to(light, w.shape))


def cutout(inside: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Shape:
    """A flat piece cut out of a plane where `inside(u, v)`, u and v in units of the half sizes."""

    def shape(pose: Pose, x: np.ndarray, y: np.ndarray, sun: np.ndarray) -> Surface:
        whole = plane(pose, x, y, sun)
        z = 1 / np.maximum(whole.w, np.float32(1e-3))
        u, v = ((a[0] * x + a[1] * y + a[2]) * z - a @ pose.centre for a in pose.axes[:2])
        hit = inside(u / pose.half[0], v / pose.half[1])
        return Surface(np.where(hit, whole.w, np.float32(0)), whole.face, whole.light)

    return shape


def wheel(rng: np.random.Generator, radius: float) -> Shape:
    """A rim with a hub and spokes, or a bare ring, all of them at least a pixel wide; `radius` in pixels."""
    rim, spoke = rng.uniform(1.5, 5) / radius, rng.uniform(0.5, 1.3) / radius
    spokes = rng.integers(3, 13) * (rng.random() < 0.7)

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        r = np.hypot(u, v)
        hit = (r < 1) & (r > 1 - rim)
        if spokes:
            turn = np.arctan2(v, u) * np.float32(spokes / (2 * np.pi))
            across = np.abs(turn - np.rint(turn)) * np.float32(2 * np.pi / spokes) * r
            hit |= (r < 1) & ((across < spoke) | (r < 0.15))
        return hit

    return cutout(inside)


def board(rng: np.random.Generator, radius: float) -> Shape:
    """A convex polygon, or with many corners nearly a disc."""
    corners = rng.choice([3, 4, 5, 24])
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    normals = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.max([a * u + b * v for a, b in normals], axis=0) < 0.7

    return cutout(inside)


def fence(rng: np.random.Generator, radius: float) -> Shape:
    """Bars with gaps between them, as of a railing or a chair's back, at least four pixels apart."""
    bars = min(int(rng.integers(3, 9)), max(int(radius / 4), 1))
    width = rng.uniform(0.2, 0.6)

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        bar, rail = u * bars % 2 < 2 * width, np.abs(v) > 0.88
        return (np.abs(u) < 1) & (np.abs(v) < 1) & (bar | rail)

    return cutout(inside)


def foliage(rng: np.random.Generator, radius: float) -> Shape:
    """An irregular leaf-like patch with holes: noise above a threshold inside a disc."""
    grain, start = rng.uniform(0.7, 1.5) * radius, int(rng.integers(SIZE))
    texture, level = int(rng.choice(ROUGH)), rng.uniform(0.35, 0.5)

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return (u * u + v * v < 1) & (look_up(texture, u * grain + start, v * grain) > level)

    return cutout(inside)
