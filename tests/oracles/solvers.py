"""Slow NumPy truth of `jaxup.solvers`: every linear system is written out as a matrix and solved directly."""

import numpy as np


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
