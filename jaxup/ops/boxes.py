"""Boxes (x1, y1, x2, y2): their overlap, their coding relative to others, anchors, and matching with the true ones."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype, check_float, check_shape, fail, jit, pair

_LIMIT = math.log(1000 / 16)


def check_boxes(name: str, boxes: jax.Array) -> None:
    """Require a floating-point array [..., 4]."""
    check_float(name, boxes)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        fail(name, "boxes [..., 4]", f"shape {boxes.shape}")


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """Entries along the second axis: [B, N, ...], [B, K] -> [B, K, ...]; the first where the index is below 0."""
    index = jnp.maximum(index, 0).reshape(index.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1)


def area(boxes: jax.Array) -> jax.Array:
    """Width times height, [..., 4] -> [...]; 0 where a box ends before it begins."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """0 where the whole is nothing, and so is the gradient."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)


@jit(static_argnames="generalised")
def box_iou(a: jax.Array, b: jax.Array, *, generalised: bool = False) -> jax.Array:
    """Intersection over union of every box of a with every one of b.

        IoU = |a n b| / |a u b|,    GIoU = IoU - (|h| - |a u b|) / |h|

    with h the smallest box around both. Boxes without any area have an IoU of 0 with all.

    Args:
        a: boxes [..., N, 4].
        b: boxes [..., M, 4].
        generalised: GIoU.

    Returns:
        [..., N, M], in the dtype of the boxes; computed in float32 or more.

    Raises:
        ValueError: no boxes, or of different numbers of axes.

    Example:
        >>> box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 1.0]]))
        Array([[0.33333334, 0.5       ]], dtype=float32)

    Reference:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    check_boxes("a", a)
    check_boxes("b", b)
    if a.ndim != b.ndim or a.ndim < 2:
        fail("b", f"boxes with as many axes as a, {a.shape}", f"shape {b.shape}")
    dtype, out = accum_dtype(a, b), jnp.promote_types(a.dtype, b.dtype)
    a, b = a.astype(dtype)[..., :, None, :], b.astype(dtype)[..., None, :, :]
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    common = area(jnp.concatenate([low, high], axis=-1))
    union = area(a) + area(b) - common
    iou = _ratio(common, union)
    if generalised:
        low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
        hull = area(jnp.concatenate([low, high], axis=-1))
        iou = iou - _ratio(hull - union, hull)
    return iou.astype(out)


def _centres(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centres and sides, [..., 2] each."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def _weights(weights: Sequence[float], like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Those of places and of sides."""
    if len(weights) != 4:
        fail("weights", "four numbers", weights)
    rows = jnp.asarray(weights, like.dtype).reshape((1,) * (like.ndim - 1) + (4,))
    return rows[..., :2], rows[..., 2:]


@jit(static_argnames="weights")
def encode_boxes(
    boxes: jax.Array, anchors: jax.Array, *, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> jax.Array:
    """Boxes relative to anchors: the way from centre to centre in sides of the anchor, and the logarithm of the sides.

        d_xy = w_xy (c - c_a) / s_a,    d_wh = w_wh log(s / s_a)

    Args:
        boxes: [..., 4].
        anchors: [..., 4]; axes of length 1 are repeated.
        weights: of x, y, width and height: 10, 10, 5, 5 for the second stage, which others call deviations of 0.1, 0.1,
            0.2 and 0.2.

    Returns:
        [..., 4] in the dtype of the boxes. Not finite where a box or an anchor has no area.

    Raises:
        ValueError: no boxes.

    Example:
        >>> encode_boxes(jnp.array([[1.0, 0.0, 3.0, 4.0]]), jnp.array([[0.0, 0.0, 2.0, 4.0]]))
        Array([[0.5, 0. , 0. , 0. ]], dtype=float32)

    Reference:
        Girshick et al., Rich Feature Hierarchies for Accurate Object Detection, CVPR 2014, appendix C.
    """
    check_boxes("boxes", boxes)
    check_boxes("anchors", anchors)
    dtype = accum_dtype(boxes, anchors)
    (centre, sides), (centre_a, sides_a) = _centres(boxes.astype(dtype)), _centres(anchors.astype(dtype))
    places, scales = _weights(weights, centre)
    deltas = [places * (centre - centre_a) / sides_a, scales * jnp.log(sides / sides_a)]
    return jnp.concatenate(deltas, axis=-1).astype(boxes.dtype)


@jit(static_argnames=("weights", "limit", "both_sides"))
def decode_boxes(
    deltas: jax.Array,
    anchors: jax.Array,
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    limit: float = _LIMIT,
    both_sides: bool = False,
) -> jax.Array:
    """The boxes that `encode_boxes` made these numbers of.

        c = c_a + s_a d_xy / w_xy,    s = s_a exp(min(limit, d_wh / w_wh))

    Args:
        deltas: [..., 4].
        anchors: [..., 4]; axes of length 1 are repeated.
        weights: as for `encode_boxes`.
        limit: of the logarithm of the sides, log(1000 / 16).
        both_sides: it is at least -limit, too, as in mmdetection; torchvision limits it from above alone.

    Returns:
        [..., 4] in the dtype of the deltas.

    Raises:
        ValueError: no boxes.

    Example:
        >>> decode_boxes(jnp.array([[0.5, 0.0, 0.0, 0.0]]), jnp.array([[0.0, 0.0, 2.0, 4.0]]))
        Array([[1., 0., 3., 4.]], dtype=float32)

    Reference:
        As `encode_boxes`.
    """
    check_boxes("deltas", deltas)
    check_boxes("anchors", anchors)
    dtype = accum_dtype(deltas, anchors)
    moved, (centre, sides) = deltas.astype(dtype), _centres(anchors.astype(dtype))
    places, scales = _weights(weights, moved)
    logs = jnp.minimum(moved[..., 2:] / scales, limit)
    logs = jnp.maximum(logs, -limit) if both_sides else logs
    centre, half = centre + sides * moved[..., :2] / places, sides * jnp.exp(logs) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1).astype(deltas.dtype)


@jit()
def clip_boxes(boxes: jax.Array, limits: jax.Array) -> jax.Array:
    """Boxes cut to their image.

    Args:
        boxes: [..., N, 4].
        limits: height and width of the images, [..., 2].

    Returns:
        [..., N, 4] in the dtype of the boxes.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> clip_boxes(jnp.array([[-1.0, 2.0, 9.0, 9.0]]), jnp.array([4.0, 8.0]))
        Array([[0., 2., 8., 4.]], dtype=float32)

    Reference:
        As `encode_boxes`.
    """
    check_boxes("boxes", boxes)
    check_shape("limits", limits, boxes.shape[:-2] + (2,))
    high = jnp.concatenate([limits[..., ::-1]] * 2, axis=-1).astype(boxes.dtype)[..., None, :]
    return jnp.clip(boxes, 0, high)


def grid_anchors(
    *,
    shape: Pair,
    stride: float | tuple[float, float],
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    rounded: bool = True,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """The boxes that a network starts from: at each cell of a map one of every ratio and size.

    Their width is size / sqrt(ratio) and their height size sqrt(ratio); they are centred on (stride * column, stride *
    row).

    Args:
        shape: of the map, (h, w).
        stride: pixels from one cell to the next, or those of (rows, columns).
        sizes: roots of the areas.
        ratios: heights over widths.
        rounded: corners around the centre are whole numbers, as in torchvision; mmdetection does not round.
        dtype: of the result.

    Returns:
        [h * w * ratios * sizes, 4], row by row, of each cell ratio by ratio.

    Raises:
        ValueError: a wrong shape.

    Example:
        >>> grid_anchors(shape=(1, 2), stride=8, sizes=(16,), ratios=(1.0,))
        Array([[-8., -8.,  8.,  8.],
               [ 0., -8., 16.,  8.]], dtype=float32)

    Reference:
        Ren et al., Faster R-CNN, NeurIPS 2015, Sec. 3.1. Conventions: torchvision (BSD-3-Clause), mmdetection
        (Apache-2.0).
    """
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    roots = np.sqrt(np.asarray(ratios, np.float32))
    height, width = (np.outer(r, np.asarray(sizes, np.float32)).reshape(-1) for r in (roots, 1 / roots))
    base = np.stack([-width, -height, width, height], axis=1) / 2
    base = np.round(base) if rounded else base
    rows, cols = (jnp.arange(n, dtype=dtype) * s for n, s in zip(pair("shape", shape, 0), (down, right), strict=True))
    y, x = jnp.meshgrid(rows, cols, indexing="ij")
    cells = jnp.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (cells + jnp.asarray(base, dtype)[None]).reshape(-1, 4)


@jit(static_argnames="low_quality")
def match_boxes(
    iou: jax.Array, valid: jax.Array | None = None, *, high: float, low: float, low_quality: bool = False
) -> jax.Array:
    """The true box that each box is to find: the one with the largest IoU, if that is large enough.

    Args:
        iou: of true boxes, which are the rows, with boxes, [..., T, N].
        valid: which of the true boxes there are, booleans [..., T]. None: all.
        high: from which IoU on a box has found it.
        low: below which it has found none.
        low_quality: boxes that no other one surpasses for some true box are matched in any case, each with the one
            that it overlaps most.

    Returns:
        int32 [..., N]: the row; -1 for boxes that are to find nothing, -2 for those in between.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> match_boxes(jnp.array([[0.9, 0.4, 0.1], [0.0, 0.2, 0.2]]), high=0.7, low=0.3)
        Array([ 0, -2, -1], dtype=int32)

    Reference:
        Ren et al., Faster R-CNN, NeurIPS 2015, Sec. 3.1; ties as torchvision (BSD-3-Clause) has them.
    """
    check_float("iou", iou)
    if iou.ndim < 2:
        fail("iou", "[..., T, N]", f"shape {iou.shape}")
    if iou.shape[-2] == 0:
        return jnp.full(iou.shape[:-2] + iou.shape[-1:], -1, jnp.int32)
    if valid is not None:
        check_shape("valid", valid, iou.shape[:-1])
        iou = jnp.where(valid[..., None], iou, -1)
    best, row = jnp.max(iou, axis=-2), jnp.argmax(iou, axis=-2).astype(jnp.int32)
    found = jnp.where(best >= high, row, jnp.where(best < low, -1, -2))
    if low_quality:
        top = jnp.max(iou, axis=-1, keepdims=True, initial=-1)
        found = jnp.where(jnp.any((iou == top) & (top >= 0), axis=-2), row, found)
    return found
