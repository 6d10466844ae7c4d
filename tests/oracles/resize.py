"""Resize, zero-upsampling and pixel shuffling, one output pixel at a time; positions are exact fractions."""

from fractions import Fraction
from math import ceil, floor

import numpy as np

HALF = Fraction(1, 2)


def triangle(t):
    return max(0.0, 1.0 - abs(t))


def keys(t, a):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def source_pixel(j, n, border):
    """The pixel that a tap at j reads, or None."""
    if border == "clamp":
        return min(max(j, 0), n - 1)
    if border == "drop":
        return j if 0 <= j < n else None
    while not 0 <= j < n:  # mirror: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
        j = -1 - j if j < 0 else 2 * n - 1 - j
    return j


def kernel_samples(i, n, m, method, align_corners, antialias, a, border):
    spacing = Fraction(n, m)
    if align_corners:
        spacing = Fraction(n - 1, m - 1) if m > 1 else Fraction(0)
    p = i * spacing if align_corners and not antialias else (i + HALF) * spacing - HALF
    stretch = max(spacing, 1) if antialias else 1
    reach = stretch * (1 if method == "bilinear" else 2)
    samples = []
    for j in range(floor(p - reach), ceil(p + reach) + 1):
        t = float((j - p) / stretch)
        pixel = source_pixel(j, n, border)
        if pixel is not None:
            samples.append((pixel, triangle(t) if method == "bilinear" else keys(t, a)))
    total = sum(weight for _, weight in samples)
    return [(pixel, weight / total) for pixel, weight in samples]


def samples(i, n, m, method, **options):
    """Pixels and weights along one axis for output i of m, from n pixels."""
    if method == "nearest":
        return [(floor(Fraction(i * n, m)), 1.0)]
    if method == "nearest_exact":
        return [(floor((i + HALF) * Fraction(n, m)), 1.0)]
    if method == "area":
        pixels = range(floor(Fraction(i * n, m)), ceil(Fraction((i + 1) * n, m)))
        return [(pixel, 1 / len(pixels)) for pixel in pixels]
    return kernel_samples(i, n, m, method, **options)


def resize(x, size, method, align_corners=False, antialias=False, cubic_coefficient=None, border=None):
    a = (-0.5 if antialias else -0.75) if cubic_coefficient is None else cubic_coefficient
    options = {
        "align_corners": align_corners,
        "antialias": antialias,
        "a": a,
        "border": border or ("drop" if antialias else "clamp"),
    }
    batch, h, w, channels = x.shape
    out = np.zeros((batch, *size, channels))
    for i in range(size[0]):
        for j in range(size[1]):
            for row, row_weight in samples(i, h, size[0], method, **options):
                for col, col_weight in samples(j, w, size[1], method, **options):
                    out[:, i, j] += row_weight * col_weight * x[:, row, col]
    return out


def zero_upsample(x, sy, sx):
    batch, h, w, channels = x.shape
    out = np.zeros((batch, sy * h, sx * w, channels))
    for i in range(sy * h):
        for j in range(sx * w):
            if i % sy == 0 and j % sx == 0:
                out[:, i, j] = x[:, i // sy, j // sx]
    return out


def pixel_shuffle(x, sy, sx):
    batch, h, w, packed = x.shape
    out = np.zeros((batch, sy * h, sx * w, packed // (sy * sx)))
    for i in range(sy * h):
        for j in range(sx * w):
            for c in range(out.shape[3]):
                out[:, i, j, c] = x[:, i // sy, j // sx, c * sy * sx + (i % sy) * sx + j % sx]
    return out


def pixel_unshuffle(x, sy, sx):
    batch, height, width, channels = x.shape
    out = np.zeros((batch, height // sy, width // sx, channels * sy * sx))
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                out[:, i // sy, j // sx, c * sy * sx + (i % sy) * sx + j % sx] = x[:, i, j, c]
    return out
