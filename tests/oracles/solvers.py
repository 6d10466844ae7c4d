"""Slow NumPy truth of `jaxup.solvers`: every linear system is written out as a matrix and solved directly."""

from fractions import Fraction
from math import floor

import numpy as np

from tests.oracles.resize import resize


def wls_lines(x, guide, strength, sigma, axis):
    """One exact solution per line of [H, W, C]: (I + lambda L) u = x."""
    x, guide = np.moveaxis(x, axis, 1), np.moveaxis(guide, axis, 1)
    out = np.empty_like(x)
    for line in range(x.shape[0]):
        n = x.shape[1]
        matrix = np.eye(n)
        for p in range(n - 1):
            weight = strength * np.exp(-np.linalg.norm(guide[line, p] - guide[line, p + 1]) / sigma)
            matrix[p, p] += weight
            matrix[p + 1, p + 1] += weight
            matrix[p, p + 1] -= weight
            matrix[p + 1, p] -= weight
        out[line] = np.linalg.solve(matrix, x[line])
    return np.moveaxis(out, 1, axis)


def wls_smooth(x, guide, smoothness, sigma, iterations, confidence=None):
    """x [H, W, C], guide [H, W, G], confidence [H, W, 1]."""
    if confidence is not None:
        top = wls_smooth(confidence * x, guide, smoothness, sigma, iterations)
        return top / wls_smooth(confidence, guide, smoothness, sigma, iterations)
    for t in range(1, iterations + 1):
        strength = 1.5 * 4 ** (iterations - t) / (4**iterations - 1) * smoothness
        x = wls_lines(x, guide, strength, sigma, 1)
        x = wls_lines(x, guide, strength, sigma, 0)
    return x


def bilateral_solver(target, guide, confidence, smoothness, sigmas):
    """target [H, W, C], grey guide [H, W, 1] or RGB: the grid as a dictionary, the system as a dense matrix."""
    spatial, luma, chroma = sigmas
    height, width, channels = guide.shape
    codes = []
    for i, j in np.ndindex(height, width):
        r, g, b = guide[i, j] if channels == 3 else (guide[i, j, 0],) * 3
        y = 0.299 * r + 0.587 * g + 0.114 * b
        position = [i / spatial, j / spatial, y / luma]
        if channels == 3:
            position += [(0.5 - 0.168736 * r - 0.331264 * g + 0.5 * b) / chroma]
            position += [(0.5 + 0.5 * r - 0.418688 * g - 0.081312 * b) / chroma]
        codes.append(tuple(np.round(position).astype(int)))
    vertices = sorted(set(codes))
    splat = np.array([[code == vertex for code in codes] for vertex in vertices], float)
    blur = np.zeros((len(vertices),) * 2)
    for a, v in enumerate(vertices):
        for b, w in enumerate(vertices):
            steps = np.abs(np.subtract(v, w)).sum()
            blur[a, b] = 2 * len(v) if steps == 0 else float(steps == 1)
    pixels = splat.sum(1)
    scaling = np.ones(len(vertices))
    for _ in range(20):
        scaling = np.sqrt(scaling * pixels / (blur @ scaling))
    affinity = scaling[:, None] * blur * scaling
    laplacian = np.diag(affinity.sum(1)) - affinity
    trust = confidence.reshape(-1, 1)
    system = smoothness * laplacian + np.diag((splat @ trust)[:, 0])
    y = np.linalg.solve(system, splat @ (trust * target.reshape(-1, target.shape[-1])))
    return (splat.T @ y).reshape(target.shape)


def bilateral_solver_upsample(x, guide, bump, smoothness, sigmas):
    """x [h, w, C], guide [H, W, 1 or 3], sizes in any ratio."""
    confidence = np.zeros((*guide.shape[:2], 1))
    for i, j in np.ndindex(guide.shape[:2]):
        ratios = (Fraction(large, small) for large, small in zip(guide.shape[:2], x.shape[:2], strict=True))
        places = [(2 * n + 1) / (2 * ratio) for n, ratio in zip((i, j), ratios, strict=True)]
        squared = sum(float(p - floor(p) - Fraction(1, 2)) ** 2 for p in places)
        confidence[i, j] = np.exp(-squared / (2 * bump**2))
    enlarged = resize(x[None], guide.shape[:2], "bicubic")[0]
    return bilateral_solver(enlarged, guide, confidence, smoothness, sigmas)


def guided_interpolation(x, guide, sizes, smoothness, sigma, sigma_src, iterations, prior):
    """x [h, w, C], guide [H, W, G], through the given sizes, the last of which is that of the guide."""
    result = x
    for size in sizes:
        data, confidence = resize(result[None], size, "bilinear")[0], np.full((*size, 1), prior)
        ratios = [Fraction(large, small) for large, small in zip(size, x.shape[:2], strict=True)]
        for i, j in np.ndindex(x.shape[:2]):
            centre = tuple(floor((n + Fraction(1, 2)) * ratio) for n, ratio in zip((i, j), ratios, strict=True))
            data[centre], confidence[centre] = x[i, j], 1
        strength, small_guide = smoothness * float(np.prod(ratios)), resize(guide[None], size, "area")[0]
        coloured = wls_smooth(data, small_guide, strength, sigma, iterations, confidence)
        result = wls_smooth(data, coloured, strength, sigma_src, iterations, confidence)
    return result
