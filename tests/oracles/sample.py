"""Slow NumPy truth of `ops.sample`, point by point: the triangle kernel over all pixels of a continued image."""

import numpy as np


def sample(x, points, method="bilinear", padding="zeros", align_corners=False):
    """x [B,h,w,C], points [B,H,W,g,2] -> [B,H,W,C]."""
    (batch, height, width, groups, _), channels = points.shape, x.shape[-1]
    out = np.zeros((batch, height, width, channels))
    for b, i, j, g in np.ndindex(batch, height, width, groups):
        part = slice(g * channels // groups, (g + 1) * channels // groups)
        (rows, row_weights), (cols, col_weights) = (
            _axis(p, n, method, padding, align_corners)
            for p, n in zip(points[b, i, j, g].astype(np.float64), x.shape[1:3], strict=True)
        )
        for row, u in zip(rows, row_weights, strict=True):
            for col, v in zip(cols, col_weights, strict=True):
                if 0 <= row < x.shape[1] and 0 <= col < x.shape[2]:
                    out[b, i, j, part] += u * v * x[b, row, col, part]
    return out


def _axis(p, n, method, padding, align_corners):
    """Pixels around a position, some of them perhaps outside, and their weights."""
    if padding == "border":
        p = min(max(p, 0), n - 1)
    if padding == "reflection":
        p = _mirror(p, *((0, n - 1) if align_corners else (-0.5, n - 0.5)))
        p = min(max(p, 0), n - 1)
    if method == "nearest":
        return [round(p)], [1.0]  # Python rounds halves to even
    below = int(np.floor(p))
    return [below, below + 1], [1 - (p - below), p - below]


def _mirror(p, low, high):
    if low == high:
        return low
    while not low <= p <= high:
        p = 2 * low - p if p < low else 2 * high - p
    return p
