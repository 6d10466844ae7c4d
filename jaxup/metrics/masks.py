"""Measures of maps of objects against their masks, in two or three dimensions, on NumPy arrays."""

from collections.abc import Sequence

import numpy as np

from jaxup._checks import fail


def dice(x: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, 2 |X and T| / (|X| + |T|).

    Args:
        x: bool, of any shape.
        truth: bool, of the same shape.

    Returns:
        0 to 1; NaN if both are empty. The protocol of TransUNet has 0 for an empty `x`, and 1 for an empty `truth`
        where x is not empty.

    Raises:
        ValueError: a mask is not bool, or the shapes differ.

    Example:
        >>> dice(np.array([True, True, False]), np.array([True, False, False])).__round__(3)
        0.667

    Reference:
        Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 1945.
    """
    _check_masks(x, truth)
    total = int(x.sum()) + int(truth.sum())
    return 2 * int((x & truth).sum()) / total if total else float("nan")


def jaccard(x: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks, |X and T| / |X or T|.

    Args:
        x: bool, of any shape.
        truth: bool, of the same shape.

    Returns:
        0 to 1; NaN if both are empty.

    Raises:
        ValueError: a mask is not bool, or the shapes differ.

    Example:
        >>> jaccard(np.array([True, True, False]), np.array([True, False, False]))
        0.5

    Reference:
        Jaccard, The Distribution of the Flora in the Alpine Zone, New Phytologist 1912.
    """
    _check_masks(x, truth)
    union = int((x | truth).sum())
    return int((x & truth).sum()) / union if union else float("nan")


def hausdorff_distance(
    x: np.ndarray, truth: np.ndarray, *, percentile: float = 100.0, spacing: Sequence[float] | None = None
) -> float:
    """How far the borders of two masks are from each other: Hausdorff's distance, or a percentile like HD95.

    With d(p, S) the distance of p from the nearest pixel of S:

        the percentile of {d(p, border of T), p in border of X} and {d(p, border of X), p in border of T} together

    The border is the mask without its erosion by a cross;
    outside of the image is background.

    Args:
        x: bool, [H, W] or [D, H, W].
        truth: bool, of the same shape.
        percentile: 0 to 100: 95 for HD95, 100 for Hausdorff's distance, the maximum; between two distances linear.
        spacing: size of a pixel along each axis; None: 1.

    Returns:
        A distance in the unit of `spacing`; infinite if one mask is empty, NaN if both are. The protocol of TransUNet
        has 0 there.

    Raises:
        ValueError: a mask is not bool, the shapes differ, or percentile or spacing do not fit.

    Example:
        >>> x, truth = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
        >>> x[:, 2], truth[:, 5] = True, True
        >>> hausdorff_distance(x, truth, percentile=95, spacing=(1, 0.5))
        1.5

    Reference:
        Huttenlocher et al., Comparing Images Using the Hausdorff Distance, TPAMI 1993.
    """
    if not 0 <= percentile <= 100:
        fail("percentile", "0 to 100", percentile)
    there, back = _border_distances(x, truth, spacing), _border_distances(truth, x, spacing)
    distances = np.concatenate([there, back])
    if not distances.size:
        return float("nan")
    return float(np.percentile(distances, percentile)) if np.isfinite(distances).all() else float("inf")


def surface_distance(x: np.ndarray, truth: np.ndarray, *, spacing: Sequence[float] | None = None) -> float:
    """Average distance of the border of `x` from that of `truth`, mean over p in border of X of d(p, border of T).

    Args:
        x: bool, [H, W] or [D, H, W].
        truth: bool, of the same shape.
        spacing: size of a pixel along each axis; None: 1.

    Returns:
        A distance in the unit of `spacing`, see `hausdorff_distance`; not the same the other way round. Infinite if
        only `truth` is empty, NaN if `x` is.

    Raises:
        ValueError: a mask is not bool, the shapes differ, or the spacing does not fit.

    Example:
        >>> x, truth = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
        >>> x[:, 2], truth[:, 5] = True, True
        >>> surface_distance(x, truth)
        3.0

    Reference:
        Heimann et al., Comparison and Evaluation of Methods for Liver Segmentation from CT Datasets, TMI 2009.
    """
    distances = _border_distances(x, truth, spacing)
    return float(distances.mean()) if distances.size else float("nan")


def _border_distances(x: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None) -> np.ndarray:
    """Of each pixel in the border of `x` from the border of `truth`."""
    from scipy import ndimage  # here, because only these measures need it

    _check_masks(x, truth)
    if x.ndim not in (2, 3):
        fail("x", "[H, W] or [D, H, W]", list(x.shape))
    if spacing is not None and (len(spacing) != x.ndim or min(spacing) <= 0):
        fail("spacing", f"{x.ndim} positive numbers", spacing)
    if not truth.any():
        return np.full(int(_border(x).sum()), np.inf)
    box = ndimage.find_objects((x | truth).astype(np.int8))[0]  # which holds both borders; the rest costs time
    x, truth = _border(x)[box], _border(truth)[box]
    distances: np.ndarray = ndimage.distance_transform_edt(~truth, sampling=spacing)[x]
    return distances


def _border(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    border: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return border


def _check_masks(x: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("truth", truth), ("x", x)):
        if mask.dtype != bool:
            fail(name, "bool", mask.dtype)
    if x.shape != truth.shape:
        fail("x", f"the shape of truth, {truth.shape}", x.shape)


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
