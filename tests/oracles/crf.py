"""Mean field in a fully connected CRF by loops over pairs of pixels, and the permutohedral lattice by dictionaries."""

import itertools
import math

import numpy as np


def dense_crf(x, guide, iterations, bilateral_weight, sigma_spatial, sigma_colour, smooth_weight, sigma_smooth):
    """Krähenbühl and Koltun, Algorithm 1, with kernels normalised from both sides; x [H, W, K], guide [H, W, C]."""
    height, width, labels = x.shape
    pixels = list(itertools.product(range(height), range(width)))
    kernels = np.zeros((2, len(pixels), len(pixels)))
    for i, p in enumerate(pixels):
        for j, q in enumerate(pixels):
            apart = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
            unlike = ((guide[p] - guide[q]) ** 2).sum()
            kernels[0, i, j] = math.exp(-apart / (2 * sigma_spatial**2) - unlike / (2 * sigma_colour**2))
            kernels[1, i, j] = math.exp(-apart / (2 * sigma_smooth**2))
    weights = np.zeros_like(kernels[0])
    for weight, kernel in zip((bilateral_weight, smooth_weight), kernels, strict=True):
        degree = kernel.sum(1)
        for i, j in itertools.product(range(len(pixels)), repeat=2):
            weights[i, j] += weight * kernel[i, j] / math.sqrt(degree[i] * degree[j])
    logits = np.array([x[p] for p in pixels])
    found = _softmax(logits)
    for _ in range(iterations):
        cost = np.zeros_like(logits)
        for i, label in itertools.product(range(len(pixels)), range(labels)):
            # What the other labels of all pixels cost this one.
            others = found.sum(1) - found[:, label]
            cost[i, label] = weights[i] @ others
        found = _softmax(logits - cost)
    return found.reshape(x.shape)


def _softmax(logits):
    terms = np.exp(logits - logits.max(1, keepdims=True))
    return terms / terms.sum(1, keepdims=True)


def lattice_sum(points, values):
    """Adams et al., 2010: splat, blur and slice, with vertices in a dictionary by their integer coordinates.

    The simplex of a point is found from its definition: of the vertices of remainder k = 0 .. d that are nearest.
    """
    d = points.shape[1]
    axes = np.zeros((d, d + 1))
    for k in range(d):
        axes[k, : k + 1], axes[k, k + 1] = 1, -(k + 1)
        axes[k] *= (d + 1) * math.sqrt(2 / 3) / math.sqrt((k + 1) * (k + 2))
    table, around = {}, []
    for point, value in zip(points @ axes, values, strict=True):
        vertices = [_nearest(point, remainder) for remainder in range(d + 1)]
        system = np.vstack([np.array(vertices).T, np.ones(d + 1)])
        weights = np.linalg.lstsq(system, np.append(point, 1), rcond=None)[0]
        around.append((vertices, weights))
        for vertex, weight in zip(vertices, weights, strict=True):
            table[vertex] = table.get(vertex, 0) + weight * value
    for direction in range(d + 1):
        step = np.ones(d + 1, int)
        step[direction] -= d + 1
        table = {
            vertex: value + 0.5 * sum(table.get(tuple(np.array(vertex) + s * step), 0) for s in (-1, 1))
            for vertex, value in table.items()
        }
    return np.array([sum(w * table[v] for v, w in zip(*pair, strict=True)) for pair in around])


def _nearest(point, remainder):
    """The vertex nearest to a point whose coordinates all leave this remainder, and have the sum 0."""
    n = len(point)
    first = np.round((point - remainder) / n) * n + remainder
    best, found = math.inf, None
    for change in itertools.product((-1, 0, 1), repeat=n):
        vertex = first + n * np.array(change)
        if vertex.sum() == 0 and ((vertex - point) ** 2).sum() < best:
            best, found = ((vertex - point) ** 2).sum(), tuple(int(v) for v in vertex)
    return found
