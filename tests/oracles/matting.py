"""Errors of alpha mattes by loops over the pixels of one image [H, W], and losses by their sums."""

import math

import numpy as np

SIGMA = 1.4


def stretched(a):
    span = a.max() - a.min()
    return (a - a.min()) / span if span else np.zeros_like(a)


def sad(x, truth, unknown):
    return sum(abs(x[p] - truth[p]) for p in zip(*np.nonzero(unknown), strict=True)) / 1000


def mse(x, truth, unknown):
    return sum((x[p] - truth[p]) ** 2 for p in zip(*np.nonzero(unknown), strict=True)) / unknown.sum()


def slope(a, convention):
    """The length of the gradient: a filter of all its two dimensions at every pixel."""
    radius = 4 if convention == "matlab" else 6
    i = np.arange(-radius, radius + 1)
    g = np.exp(-(i**2) / (2 * SIGMA**2)) / (math.sqrt(2 * math.pi) * SIGMA)
    if convention == "python":
        g = g / g.sum()
    kernel = np.outer(g, -i * g / SIGMA**2)
    if convention == "matlab":
        kernel /= np.sqrt((kernel**2).sum())
    padded = np.pad(a, radius, mode="edge" if convention == "matlab" else "symmetric")
    out = np.zeros(a.shape)
    for y, x in np.ndindex(a.shape):
        window = padded[y : y + len(i), x : x + len(i)]
        out[y, x] = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
    return out


def gradient(x, truth, unknown, convention):
    a, b = slope(stretched(x), convention), slope(stretched(truth), convention)
    return ((a - b)[unknown] ** 2).sum() / (1000 if convention == "matlab" else 10)


def components(mask):
    """Of 4 neighbours, in the order of their first pixels."""
    left, found = {tuple(p) for p in np.argwhere(mask)}, []
    for first in map(tuple, np.argwhere(mask)):
        if first not in left:
            continue
        left.remove(first)
        part, waiting = [first], [first]
        while waiting:
            y, x = waiting.pop()
            for q in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if q in left:
                    left.remove(q)
                    part.append(q)
                    waiting.append(q)
        found.append(part)
    return found


def connectivity(x, truth, unknown, convention):
    if convention == "python":
        x, truth = stretched(x), stretched(truth)
    else:
        x, truth, unknown = x.T, truth.T, unknown.T
    level = np.full(x.shape, -1.0)
    for tenth in range(1, 11):
        parts = components((x >= tenth / 10 - 1e-6) & (truth >= tenth / 10 - 1e-6))
        if not parts:
            continue
        largest = set(max(parts, key=len))  # the first of equals
        for p in np.ndindex(x.shape):
            if p not in largest and level[p] == -1:
                level[p] = (tenth - 1) / 10
    level[level == -1] = 1

    def phi(a):
        return 1 - np.where(a - level >= 0.15, a - level, 0)

    return np.abs(phi(x) - phi(truth))[unknown].sum() / 1000


def matting_errors(x, truth, unknown, convention):
    a, b = (stretched(x), stretched(truth)) if convention == "python" else (x, truth)
    return {
        "SAD": sad(a, b, unknown),
        "MSE": mse(a, b, unknown),
        "Grad": gradient(x, truth, unknown, convention),
        "Conn": connectivity(x, truth, unknown, convention),
    }


def smooth_abs(e):
    return np.sqrt(e**2 + 1e-12)


def laplacian(x, truth, levels, size, sigma):
    """Of one image [H, W]."""
    i = np.arange(size) - size // 2
    kernel = np.exp(-(i[:, None] ** 2) / sigma**2) + np.exp(-(i**2) / sigma**2)
    kernel /= kernel.sum()

    def smoothed(a):
        padded, out = np.pad(a, size // 2, mode="edge"), np.zeros(a.shape)
        for y, x in np.ndindex(a.shape):
            out[y, x] = (padded[y : y + size, x : x + size] * kernel).sum()
        return out

    total = 0.0
    for _ in range(levels):
        a, b = smoothed(x), smoothed(truth)
        total += np.abs((x - a) - (truth - b)).mean()
        height, width = (n // 2 for n in x.shape)
        x, truth = (z[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) for z in (a, b))
    return total + np.abs(x - truth).mean()
