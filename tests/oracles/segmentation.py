"""Slow NumPy truth of the weighted F-measure: one pixel after the other."""

import numpy as np


def weighted_f_measure(prediction, truth, sigma=5.0, size=7, beta=1.0):
    """`prediction` [H,W] in 0 .. 1, `truth` [H,W] bool; the nearest object pixel of the others must be unique."""
    height, width = truth.shape
    objects = [(i, j) for i, j in np.ndindex(height, width) if truth[i, j]]
    error = np.abs(truth.astype(float) - prediction)

    def nearest(p):
        distances = sorted(((p[0] - i) ** 2 + (p[1] - j) ** 2, (i, j)) for i, j in objects)
        assert len(distances) == 1 or distances[0][0] < distances[1][0]
        return np.sqrt(distances[0][0]), distances[0][1]

    true_positive = false_positive = false_negative = 0.0
    for i, j in np.ndindex(height, width):
        if not truth[i, j]:  # its location: 1 beside the object, and 2 far from it
            weight = 2 - np.exp(np.log(0.5) / 5 * nearest((i, j))[0])
            false_positive += error[i, j] * weight
            continue
        # It depends on its neighbours: an error among correct pixels counts less.
        total = normaliser = 0.0
        for a, b in np.ndindex(size, size):
            y, x = a - size // 2, b - size // 2
            weight = np.exp(-(x**2 + y**2) / (2 * sigma**2))
            normaliser += weight
            if 0 <= i + y < height and 0 <= j + x < width:
                q = (i + y, j + x)
                total += weight * error[q if truth[q] else nearest(q)[1]]
        weighted = min(error[i, j], total / normaliser)
        true_positive += 1 - weighted
        false_negative += weighted
    precision = true_positive / (true_positive + false_positive)
    recall = true_positive / (true_positive + false_negative)
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def confusion_matrix(x, labels, num_classes, ignore_label):
    """[K, K], a row for each label; pixels without a class do not count."""
    counts = np.zeros((num_classes, num_classes), int)
    for p in np.ndindex(*labels.shape):
        if labels[p] != ignore_label and 0 <= labels[p] < num_classes and 0 <= x[p] < num_classes:
            counts[labels[p], x[p]] += 1
    return counts


def boundary(mask, ratio):
    """[H, W] bool: the mask without its erosion, d times by a 3 x 3 square, in a frame of zeros."""
    height, width = mask.shape
    inner = np.pad(mask, 1)
    for _ in range(max(1, round(ratio * np.sqrt(height**2 + width**2)))):
        eroded = np.zeros_like(inner)
        for i, j in np.ndindex(height, width):
            eroded[i + 1, j + 1] = inner[i : i + 3, j : j + 3].all()
        inner = eroded
    return mask & ~inner[1:-1, 1:-1]


def border_distances(x, truth, spacing):
    """Of each border pixel of `x` from the nearest border pixel of `truth`; beyond the array is background."""

    def border(mask):
        padded, found = np.pad(mask, 1), []
        for p in zip(*np.nonzero(mask), strict=True):
            around = [tuple(np.add(p, 1) + sign * step) for step in np.eye(mask.ndim, dtype=int) for sign in (-1, 1)]
            if not all(padded[q] for q in around):
                found.append(np.multiply(p, spacing))
        return found

    return np.array([min(np.linalg.norm(p - q) for q in border(truth)) for p in border(x)])
