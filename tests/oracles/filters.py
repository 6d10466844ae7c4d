"""Slow NumPy truth of the filters: one pixel and one window at a time, float64, no trick for any border."""

from fractions import Fraction
from math import ceil, floor

import numpy as np


def window(grid, centre, radius):
    """The pixels (row, col) within `radius` of `centre` inside the image, row by row."""
    (height, width), (ry, rx) = grid, radius
    return [
        (i, j)
        for i in range(centre[0] - ry, centre[0] + ry + 1)
        for j in range(centre[1] - rx, centre[1] + rx + 1)
        if 0 <= i < height and 0 <= j < width
    ]


def box_filter(x, radius):
    out = np.zeros(x.shape)
    for b, i, j in np.ndindex(x.shape[:3]):
        out[b, i, j] = np.mean([x[b, p, q] for p, q in window(x.shape[1:3], (i, j), radius)], axis=0)
    return out


def gaussian_filter(x, sigma, radius):
    """The two-dimensional kernel, not separated; a position outside reads the nearest pixel inside."""
    height, width = x.shape[1:3]
    ry, rx = radius
    out = np.zeros(x.shape)
    for b, i, j in np.ndindex(x.shape[:3]):
        total = 0.0
        for dy in range(-ry, ry + 1):
            for dx in range(-rx, rx + 1):
                weight = np.exp(-(dy**2 + dx**2) / (2 * sigma**2))
                total += weight
                out[b, i, j] += weight * x[b, min(max(i + dy, 0), height - 1), min(max(j + dx, 0), width - 1)]
        out[b, i, j] /= total
    return out


def guided_filter(src, guide, radius, eps):
    """He et al. 2013: fit p = a . I + b in every window, then average the fits that cover a pixel."""
    grid, out = src.shape[1:3], np.zeros(src.shape)
    for b in range(src.shape[0]):
        fits = {}
        for k in np.ndindex(grid):
            pixels = window(grid, k, radius)
            guides = np.array([guide[b, i, j] for i, j in pixels])
            values = np.array([src[b, i, j] for i, j in pixels])
            di, dp = guides - guides.mean(0), values - values.mean(0)
            sigma = di.T @ di / len(pixels)
            a = np.linalg.solve(sigma + eps * np.eye(len(sigma)), di.T @ dp / len(pixels))
            fits[k] = a, values.mean(0) - guides.mean(0) @ a
        for i, j in np.ndindex(grid):
            covering = window(grid, (i, j), radius)
            mean_a = np.mean([fits[k][0] for k in covering], axis=0)
            mean_b = np.mean([fits[k][1] for k in covering], axis=0)
            out[b, i, j] = guide[b, i, j] @ mean_a + mean_b
    return out


def bilateral_filter(x, guide, radius, sigma_spatial, sigma_range):
    out = np.zeros(x.shape)
    for b, i, j in np.ndindex(x.shape[:3]):
        total = 0.0
        for p, q in window(x.shape[1:3], (i, j), (radius, radius)):
            near = np.exp(-((p - i) ** 2 + (q - j) ** 2) / (2 * sigma_spatial**2))
            alike = np.exp(-np.sum((guide[b, p, q] - guide[b, i, j]) ** 2) / (2 * sigma_range**2))
            out[b, i, j] += near * alike * x[b, p, q]
            total += near * alike
        out[b, i, j] /= total
    return out


def joint_bilateral_upsample(src, guide, radius, sigma_spatial, sigma_range, guide_lr=None):
    """Kopf et al. 2007, with distances from the centre of the HR pixel, in LR pixels; sizes in any ratio."""
    batch, height, width, channels = src.shape
    sy, sx = (Fraction(large, small) for large, small in zip(guide.shape[1:3], src.shape[1:3], strict=True))
    if guide_lr is None:
        guide_lr = np.zeros((batch, height, width, guide.shape[-1]))
        for b, p, q in np.ndindex(guide_lr.shape[:3]):
            rows, cols = (slice(floor(s * n), ceil(s * (n + 1))) for s, n in ((sy, p), (sx, q)))
            guide_lr[b, p, q] = guide[b, rows, cols].mean((0, 1))
    out = np.zeros((*guide.shape[:3], channels))
    for b, i, j in np.ndindex(out.shape[:3]):
        y, x = (float((2 * n + 1) / (2 * s) - Fraction(1, 2)) for n, s in ((i, sy), (j, sx)))
        total = 0.0
        cell = floor((2 * i + 1) / (2 * sy)), floor((2 * j + 1) / (2 * sx))
        for p, q in window((height, width), cell, (radius, radius)):
            near = np.exp(-((y - p) ** 2 + (x - q) ** 2) / (2 * sigma_spatial**2))
            alike = np.exp(-np.sum((guide[b, i, j] - guide_lr[b, p, q]) ** 2) / (2 * sigma_range**2))
            out[b, i, j] += near * alike * src[b, p, q]
            total += near * alike
        out[b, i, j] /= total
    return out
