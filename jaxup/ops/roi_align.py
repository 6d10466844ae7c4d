"""Features of boxes: means of bilinear samples on a grid of bins, of one map or of the level that fits a box."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, check_image, check_int, check_positive, check_shape, fail, jit, pair
from jaxup.ops.boxes import area, check_boxes
from jaxup.ops.rows import by_rows
from jaxup.ops.sample import sample

# Zeros between the maps on a canvas, so that no window holds pixels of two.
_GAP = 1


class _Grid(NamedTuple):
    """How bins are sampled: all static."""

    size: Pair
    samples: Pair  # per bin; adaptive: at most
    adaptive: bool
    aligned: bool


@by_rows("x", reach=lambda **_: None)
def roi_align(
    x: jax.Array,
    boxes: jax.Array,
    *,
    size: int | Pair,
    stride: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_samples: int | None = None,
) -> jax.Array:
    """Features of boxes, each as a grid of means of bilinear samples.

    A box is divided into bins, and a bin has n x n samples, at the centres of n x n equal parts of it:

        out[i, j] = 1 / n^2 sum_{a, b} x(y1 + (i + (a + 1/2) / n) h / H, x1 + (j + (b + 1/2) / n) w / W)

    Positions up to a pixel beyond the image read its border, further ones are zero. The adaptive n is the side of a bin
    in pixels, rounded up, in both directions by itself. Shapes are fixed before, and so is the largest n: by default
    it is enough for boxes of twice the size of the map, and larger boxes have as many samples as that.

    Samples are made one after the other and summed in float32 or more: scratch memory is a few results. There are
    gradients of x and of the boxes.

    Args:
        x: [B, h, w, C].
        boxes: in pixels of the image, [B, N, 4].
        size: (H, W) of the result.
        stride: pixels of the image per pixel of x.
        sampling_ratio: n; 0: adaptive.
        aligned: pixel centres are at halves, as everywhere in this library. False is torchvision's older form: boxes
            lie half a pixel further down and right, and have sides of at least one pixel of x.
        max_samples: the largest adaptive n.

    Returns:
        [B, N, H, W, C] in the dtype of x. An aligned box that ends before it begins gives zeros where n is adaptive.

    Raises:
        ValueError: a wrong shape or option.

    Example:
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> roi_align(x, jnp.array([[[0.0, 0.0, 4.0, 4.0]]]), size=2)[0, 0, :, :, 0]
        Array([[ 2.5,  4.5],
               [10.5, 12.5]], dtype=float32)

    Reference:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3. Conventions: torchvision (BSD-3-Clause).
    """
    check_image("x", x)
    options = dict(sampling_ratio=sampling_ratio, aligned=aligned, max_samples=max_samples)
    return multilevel_roi_align(boxes, x, size=size, strides=(stride,), **options)  # type: ignore[arg-type]


@by_rows("maps", reach=lambda **_: None)
def multilevel_roi_align(
    boxes: jax.Array,
    *maps: jax.Array,
    size: int | Pair,
    strides: tuple[float, ...],
    sampling_ratio: int = 2,
    aligned: bool = True,
    max_samples: int | None = None,
    canonical: tuple[float, int] = (224.0, 2),
) -> jax.Array:
    """`roi_align` of boxes on that map of a pyramid whose stride fits their size.

        level = clip(floor(canonical level + log2(sqrt(area) / canonical size) + 1e-6), 0, number of maps - 1)

    All maps are put side by side once, and each sample is made once.

    Args:
        boxes: in pixels of the image, [B, N, 4].
        maps: [B, h_i, w_i, C], fine to coarse.
        size: (H, W) of the result.
        strides: pixels of the image per pixel of each map.
        sampling_ratio: as for `roi_align`.
        aligned: as for `roi_align`.
        max_samples: as for `roi_align`; by default that of the finest map.
        canonical: the size of a box, and the number of the map that it is on: 224, and that of stride 16 where the
            first one has stride 4.

    Returns:
        [B, N, H, W, C] in the dtype of the maps.

    Raises:
        ValueError: a wrong shape or option.

    Example:
        >>> maps = jnp.zeros((1, 8, 8, 1)), jnp.ones((1, 4, 4, 1))
        >>> boxes = jnp.array([[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 32.0, 32.0]]])
        >>> multilevel_roi_align(boxes, *maps, size=1, strides=(4, 8), canonical=(16, 0)).ravel()
        Array([0., 1.], dtype=float32)

    Reference:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, Eq. 1.
    """
    check_boxes("boxes", boxes)
    check_shape("boxes", boxes, (None, None, 4))
    if not maps or len(maps) != len(strides):
        fail("strides", f"one for each of {len(maps)} maps", strides)
    for x, stride in zip(maps, strides, strict=True):
        check_image("maps", x)
        check_shape("maps", x, (boxes.shape[0], None, None, maps[0].shape[3]))
        check_positive("stride", stride)
    size, ratio = pair("size", size), check_int("sampling_ratio", sampling_ratio, 0)
    samples = (ratio, ratio)
    if ratio == 0:
        height, width = (2 * -(-n // out) for n, out in zip(maps[0].shape[1:3], size, strict=True))
        samples = (height, width) if max_samples is None else (check_int("max_samples", max_samples),) * 2
    grid = _Grid(size, samples, ratio == 0, bool(aligned))
    return _align(boxes, maps, grid, tuple(map(float, strides)), (float(canonical[0]), int(canonical[1])))


@jit(static_argnums=(2, 3, 4))
def _align(
    boxes: jax.Array,
    maps: tuple[jax.Array, ...],
    grid: _Grid,
    strides: tuple[float, ...],
    canonical: tuple[float, int],
) -> jax.Array:
    boxes = boxes.astype(accum_dtype(boxes, maps[0]))
    level = _level(boxes, len(maps), canonical)
    canvas, corners = _canvas(maps)

    def of_level(values: list[float]) -> jax.Array:
        chosen = jnp.full_like(boxes[..., 0], values[0])
        for i, value in enumerate(values[1:], start=1):
            chosen = jnp.where(level == i, value, chosen)
        return chosen

    stride = of_level(list(strides))[..., None]
    axes = []
    for axis in (0, 1):
        edges = boxes[..., (1 - axis, 3 - axis)] / stride - (0.5 if grid.aligned else 0.0)
        bounds = of_level([float(x.shape[1 + axis]) for x in maps]), of_level([float(c[axis]) for c in corners])
        axes.append((edges, *bounds))
    count = boxes.shape[1]

    def term(n: jax.Array) -> jax.Array:
        """The n-th sample of every bin, with its weight."""
        (rows, row_weights), (cols, col_weights) = (
            _samples(*axes[axis], grid, axis, n // grid.samples[1] if axis == 0 else n % grid.samples[1])
            for axis in (0, 1)
        )
        shape = (*boxes.shape[:2], *grid.size)
        points = jnp.stack(
            [jnp.broadcast_to(rows[..., :, None], shape), jnp.broadcast_to(cols[..., None, :], shape)], axis=-1
        )
        points = points.reshape(boxes.shape[0], count * grid.size[0], grid.size[1], 2)
        weights = row_weights[..., :, None] * col_weights[..., None, :]
        read = sample(canvas, points, padding="border").reshape(*shape, canvas.shape[3])
        return read.astype(boxes.dtype) * weights[..., None]

    def step(total: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        return total + term(n), None

    first, numbers = jnp.zeros((), jnp.int32), jnp.arange(1, grid.samples[0] * grid.samples[1], dtype=jnp.int32)
    total, _ = jax.lax.scan(jax.checkpoint(step), term(first), numbers)
    return total.astype(maps[0].dtype)


def _level(boxes: jax.Array, count: int, canonical: tuple[float, int]) -> jax.Array:
    """The number of the map, [B, N]."""
    root = jnp.sqrt(jnp.maximum(area(jax.lax.stop_gradient(boxes)), 1e-12))
    level = jnp.floor(canonical[1] + jnp.log2(root / canonical[0]) + 1e-6)
    return jnp.clip(level, 0, count - 1).astype(jnp.int32)


def _canvas(maps: tuple[jax.Array, ...]) -> tuple[jax.Array, list[Pair]]:
    """The first map and, to its right, the others below each other; and the upper left corner of each."""
    if len(maps) == 1:
        return maps[0], [(0, 0)]
    first, others = maps[0], maps[1:]
    below = sum(x.shape[1] + _GAP for x in others)
    height, width = max(first.shape[1], below), max(x.shape[2] for x in others)
    column, corners, row = [], [(0, 0)], 0
    for x in others:
        corners.append((row, first.shape[2] + _GAP))
        column.append(jnp.pad(x, ((0, 0), (0, _GAP), (0, width - x.shape[2]), (0, 0))))
        row += x.shape[1] + _GAP
    right = jnp.pad(jnp.concatenate(column, axis=1), ((0, 0), (0, height - below), (0, 0), (0, 0)))
    left = jnp.pad(first, ((0, 0), (0, height - first.shape[1]), (0, _GAP), (0, 0)))
    return jnp.concatenate([left, right], axis=2), corners


def _samples(
    edges: jax.Array, extent: jax.Array, corner: jax.Array, grid: _Grid, axis: int, n: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Positions on the canvas of the n-th samples of the bins along an axis, and their weights, [B, N, bins]."""
    bins, most, dtype = grid.size[axis], grid.samples[axis], edges.dtype
    start, length = edges[..., 0], edges[..., 1] - edges[..., 0]
    length = length if grid.aligned else jnp.maximum(length, 1)
    count = jnp.full_like(length, most)
    if grid.adaptive:
        count = jax.lax.stop_gradient(jnp.clip(jnp.ceil(length / bins), 0, most))
    share = (n.astype(dtype) + 0.5) / jnp.maximum(count, 1)
    places = jnp.arange(bins, dtype=dtype)[None, None] + share[..., None]
    at = start[..., None] + places * (length / bins)[..., None]
    extent = extent[..., None]
    read = (at >= -1) & (at <= extent) & (n.astype(dtype) < count)[..., None]
    inside = jnp.where((at > 0) & (at < extent - 1), at, jax.lax.stop_gradient(jnp.clip(at, 0, extent - 1)))
    return inside + corner[..., None], jnp.where(read, 1 / jnp.maximum(count, 1)[..., None], 0)
