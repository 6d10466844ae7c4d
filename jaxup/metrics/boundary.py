"""Boundary IoU of label maps, from counts that are made on the device and summed over batches."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import check_int, check_positive, fail, jit
from jaxup.metrics.segmentation import check_labels, counts, masked, share


def boundary_map(labels: jax.Array, *, ratio: float = 0.02) -> jax.Array:
    """Mark the pixels near the border of their segment: inside of it, at most d pixels from what is another label.

    d is `ratio` times the diagonal of the image, rounded, at least 1; the distance is max(|dy|, |dx|). All outside of
    the image is another label. The boundary of class c, its mask without the mask eroded d times by a 3 x 3 square, is
    (labels = c) and this.

    Args:
        labels: integers [B, H, W], all of them >= 0 or -1 for no class.
        ratio: of the diagonal.

    Returns:
        bool [B, H, W].

    Raises:
        ValueError: `labels` is not of integers [B, H, W], or the ratio is not positive.

    Example:
        >>> boundary_map(jnp.zeros((1, 4, 5), int)).astype(int)
        Array([[[1, 1, 1, 1, 1],
                [1, 0, 0, 0, 1],
                [1, 0, 0, 0, 1],
                [1, 1, 1, 1, 1]]], dtype=int32)

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, section 4.
    """
    check_labels("labels", labels)
    check_positive("ratio", ratio)
    labels = jnp.asarray(labels, jnp.int32)
    d = max(1, round(ratio * math.hypot(*labels.shape[1:])))
    padded = jnp.pad(labels, [(0, 0), (d, d), (d, d)], constant_values=-2)
    least, largest = padded, padded
    for window in ((1, 2 * d + 1, 1), (1, 1, 2 * d + 1)):
        least = jax.lax.reduce_window(least, np.int32(2**31 - 1), jax.lax.min, window, (1, 1, 1), "VALID")
        largest = jax.lax.reduce_window(largest, np.int32(-(2**31)), jax.lax.max, window, (1, 1, 1), "VALID")
    return (least != labels) | (largest != labels)


@jit(static_argnames=("num_classes", "ratio", "ignore_label", "keep_ignored"))
def boundary_areas(
    x: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    ratio: float = 0.02,
    ignore_label: int | None = 255,
    keep_ignored: bool = False,
) -> jax.Array:
    """Count the pixels of the boundaries of each class, see `boundary_map`: of both maps, of the label, of `x`.

    Args:
        x: predicted classes, integers [B, H, W].
        labels: true classes, integers [B, H, W].
        num_classes: K.
        ratio: width of the boundary, relative to the diagonal.
        ignore_label: label of pixels that belong to no class.
        keep_ignored: whether predictions keep their pixels under ignored labels, which then only can be wrong. If
            not, these pixels are removed before the boundary is taken.

    Returns:
        int32 [3, K]. Sum it over batches.

    Raises:
        ValueError: as `confusion_matrix` and `boundary_map`.

    Example:
        >>> labels = jnp.zeros((1, 4, 4), int).at[0, 1:3, 1:3].set(1)
        >>> boundary_areas(jnp.zeros((1, 4, 4), int), labels, num_classes=2)
        Array([[12,  0],
               [12,  4],
               [12,  0]], dtype=int32)

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, eq. 4, with areas summed over images.
    """
    check_int("num_classes", num_classes)
    removed, labels = masked(x, labels, num_classes, ignore_label)
    x = jnp.where((x < 0) | (x >= num_classes), -1, jnp.asarray(x, jnp.int32)) if keep_ignored else removed
    x = jnp.where(boundary_map(x, ratio=ratio), x, -1)
    labels = jnp.where(boundary_map(labels, ratio=ratio), labels, -1)
    both = jnp.where(x == labels, labels, -1)
    return jnp.stack([counts(areas, num_classes) for areas in (both, labels, x)])


def boundary_iou(areas: np.ndarray) -> np.ndarray:
    """Intersection over union of the boundaries, I / (L + P - I), of the counts of `boundary_areas`.

    Args:
        areas: [3, K]: I, L and P.

    Returns:
        float64 [K], NaN for a class without any boundary; bIoU is its `np.nanmean`.

    Raises:
        ValueError: the counts are not [3, K].

    Example:
        >>> boundary_iou(np.array([[12, 0, 0], [12, 4, 0], [16, 0, 0]]))
        array([0.75, 0.  ,  nan])

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, eq. 4.
    """
    numbers = np.asarray(areas, np.float64)
    if numbers.ndim != 2 or len(numbers) != 3:
        fail("areas", "counts [3, K]", list(numbers.shape))
    both, labelled, predicted = numbers
    return share(both, labelled + predicted - both)
