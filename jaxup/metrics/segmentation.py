"""Measures of maps of objects against their masks, on NumPy arrays."""

import numpy as np

from jaxup._checks import fail


def weighted_f_measure(x: np.ndarray, truth: np.ndarray) -> float:
    """How well a map of [0, 1] agrees with a mask: errors far from the object count more, blurred borders less.

    With E = |truth - x|, F the pixels of the object, B all others, and d(p) the distance of p from F:

        E'(p)  = E(p) in F, and in B the E of the nearest pixel of F
        Ew(p)  = min(E(p), (g * E')(p)) in F,    g a 7 x 7 Gaussian, sigma 5, that sums to 1, zeros outside the image
        Ew(p)  = E(p) (2 - exp(d(p) log(1/2) / 5)) in B
        recall = 1 - mean_F Ew,    precision = |F| recall / (|F| recall + sum_B Ew)
        score  = 2 precision recall / (precision + recall)

    Args:
        x: [H, W] from 0 to 1.
        truth: [H, W], bool, true somewhere.

    Returns:
        The score, 0 to 1; 1 where they agree.

    Raises:
        ValueError: a shape is not [H, W], they differ, `truth` is not bool, or the mask is empty.

    Example:
        >>> truth = np.zeros((9, 9), bool)
        >>> truth[3:6, 3:6] = True
        >>> weighted_f_measure(truth.astype(float), truth)
        1.0

    Reference:
        Margolin, Zelnik-Manor, Tal, How to Evaluate Foreground Maps, CVPR 2014, with beta = 1.
    """
    from scipy import ndimage  # here, because only this measure needs it

    if truth.ndim != 2 or truth.dtype != bool:
        fail("truth", "bool [H, W]", f"{truth.dtype} {list(truth.shape)}")
    if x.shape != truth.shape:
        fail("x", f"the shape of truth, {truth.shape}", x.shape)
    if not truth.any():
        fail("truth", "at least one pixel of the object", "none")
    error = np.abs(truth - x.astype(np.float64))
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    spread = ndimage.correlate(error[tuple(nearest)], _gaussian(7, 5.0), mode="constant")
    inner = np.minimum(error, spread)[truth]
    outer = (error * (2 - np.exp(distance * np.log(0.5) / 5)))[~truth]
    recall = 1 - inner.mean()
    hits = recall * truth.sum()
    if hits <= 0:
        return 0.0
    precision = hits / (hits + outer.sum())
    return float(2 * precision * recall / (precision + recall))


def _gaussian(size: int, sigma: float) -> np.ndarray:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    kernel: np.ndarray = np.outer(weights, weights) / weights.sum() ** 2
    return kernel
