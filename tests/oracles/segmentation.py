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
