"""Bilateral weights: near in space times alike in the guide (or in the image itself).

Weights come from squared distances only, so that gradients exist also where two pixels are equal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxup._checks import Pair, Ratio, accum_dtype, check_image, check_int, check_shape, jit, renamed
from jaxup.ops.filters import Number, check_guide, check_larger_guide, check_scalar, falloff
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import resize, take_lines
from jaxup.ops.rows import by_rows
from jaxup.ops.tiling import in_cached_strips
from jaxup.ops.windows import fill_blocks, pad_window, source_cells, sum_blocks, sum_by_halves, window_offsets

Step = tuple[jax.Array, jax.Array]  # the number of an offset, and the offset from the corner of the window
Best = tuple[jax.Array, jax.Array]  # the best score of each pixel, and the number of its offset
Sums = tuple[list[jax.Array], jax.Array]  # of weighted values, one per channel or of all, and of weights

# Channels up to which each is an array of its own.
_FEW = 8
# Planes of scores and sums.
_SUMS = 4


@by_rows("x", "guide", reach=lambda radius, **_: radius)
def bilateral_filter(
    x: jax.Array,
    guide: jax.Array | None = None,
    *,
    radius: int,
    sigma_spatial: Number,
    sigma_range: Number,
) -> jax.Array:
    r"""Mean over a window, weighted by distance and by likeness; with a guide, the joint bilateral filter.

        y_p = \sum_q w_pq x_q / \sum_q w_pq,
        w_pq = exp(-|p - q|^2 / (2 sigma_spatial^2)) exp(-|I_p - I_q|^2 / (2 sigma_range^2))

    over the part of the (2 radius + 1)^2 window of p that lies inside the image, where I is the guide, or `x`
    itself. The window is visited one offset at a time, in the backward pass too, so that memory does not
    grow with `radius`.

    Args:
        x: [B, H, W, C].
        guide: [B, H, W, G], any number of channels; None takes `x`.
        radius: of the window in pixels, an integer >= 0.
        sigma_spatial: in pixels, a number > 0.
        sigma_range: in the guide's unit, a number > 0. Both sigmas may be traced and differentiated; values
            below 1e-9 act as 1e-9.

    Returns:
        [B, H, W, C] in the dtype of `x`; weights and sums are in float32, or in float64 if either input is.
        A NaN in an input spoils the outputs whose windows touch it.

    Raises:
        ValueError: an input is not a floating-point array [B, H, W, C], the guide has another B, H or W or no channel,
            `radius` is negative or no integer, or a sigma is not a positive scalar.

    Example:
        >>> x = jnp.array([1.0, 2.0, 1.0, 9.0, 8.0, 9.0]).reshape(1, 1, 6, 1)
        >>> print(bilateral_filter(x, radius=2, sigma_spatial=100.0, sigma_range=2.0).ravel().round(2))
        [1.31 1.37 1.31 8.69 8.63 8.69]

    Reference:
        Tomasi, Manduchi, "Bilateral Filtering for Gray and Color Images", ICCV 1998, Eq. (5).
    """
    check_image("x", x)
    check_guide(x if guide is None else guide, x.shape[:3])
    check_scalar("sigma_spatial", sigma_spatial)
    check_scalar("sigma_range", sigma_range)
    radius = _clipped(check_int("radius", radius, minimum=0), x)
    dtype = accum_dtype(x, x if guide is None else guide)
    near, alike = falloff(sigma_spatial, dtype), falloff(sigma_range, dtype)
    values = x.astype(dtype)
    return _bilateral_mean(values, values if guide is None else guide.astype(dtype), radius, near, alike).astype(
        jnp.result_type(x)
    )


@renamed("src", "x")
@by_rows("x", "guide", "guide_lr", reach=lambda radius, **_: radius)
def joint_bilateral_upsample(
    x: jax.Array,
    guide: jax.Array,
    *,
    scale: Ratio | None = None,
    radius: int,
    sigma_spatial: Number,
    sigma_range: Number,
    guide_lr: jax.Array | None = None,
) -> jax.Array:
    r"""Upsample under a guide: a mean of LR neighbours, weighted by distance and by likeness of their guides.

        y_p = \sum_q w_pq x_q / \sum_q w_pq,
        w_pq = exp(-|p' - q|^2 / (2 sigma_spatial^2)) exp(-|I_p - J_q|^2 / (2 sigma_range^2))

    over the LR pixels q inside the image and in the (2 radius + 1)^2 window around the source cell of the
    HR pixel p; p' = (p + 1/2) / scale - 1/2 is p in LR pixels, I the guide and J the LR guide. The weights
    are a softmax, so that some neighbour counts however small the sigmas are. The sizes may have any ratio;
    a pixel between two cells belongs to the second.

    Args:
        x: [B, h, w, C].
        guide: [B, sy*h, sx*w, G], any number of channels.
        scale: a number >= 1 that makes whole pixels (7.5, say), or a pair (vertical, horizontal); None takes the ratio
            of the sizes.
        radius: of the window in LR pixels, an integer >= 0.
        sigma_spatial: in LR pixels, a number > 0.
        sigma_range: in the guide's unit, a number > 0. Both sigmas may be traced and differentiated; values
            below 1e-9 act as 1e-9.
        guide_lr: [B, h, w, G]; None takes the guide's mean over each sy x sx block (and the pixels that it cuts).

    Returns:
        [B, sy*h, sx*w, C] in the dtype of `x`; weights and sums are in float32, or in float64 if an input
        is. A NaN in an input spoils the outputs whose windows touch it.

    Raises:
        ValueError: an input is not a floating-point array [B, H, W, C], `guide` is not `scale` times as large as
            `x` or has no channel, `guide_lr` is not as large as `x` or has other channels than `guide`,
            `scale` or `radius` is out of range, or a sigma is not a positive scalar.

    Example:
        >>> x = jnp.array([2.0, 8.0]).reshape(1, 1, 2, 1)
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> y = joint_bilateral_upsample(
        ...     x, guide, scale=(1, 3), radius=1, sigma_spatial=1.0, sigma_range=0.1
        ... )
        >>> print(y.ravel().round(2))
        [2. 2. 2. 8. 8. 8.]

    Reference:
        Kopf, Cohen, Lischinski, Uyttendaele, "Joint Bilateral Upsampling", SIGGRAPH 2007, Eq. (3), which
        leaves the LR guide open.
    """
    check_image("x", x)
    check_larger_guide(guide, x, scale)
    if guide_lr is not None:
        check_image("guide_lr", guide_lr)
        check_shape("guide_lr", guide_lr, (*x.shape[:3], guide.shape[-1]))
    check_scalar("sigma_spatial", sigma_spatial)
    check_scalar("sigma_range", sigma_range)
    radius = _clipped(check_int("radius", radius, minimum=0), x)
    dtype = accum_dtype(x, guide, *([] if guide_lr is None else [guide_lr]))
    near, alike = falloff(sigma_spatial, dtype), falloff(sigma_range, dtype)
    coarse = None if guide_lr is None else guide_lr.astype(dtype)
    return _upsample(x.astype(dtype), guide.astype(dtype), coarse, near, alike, radius).astype(jnp.result_type(x))


class _Axis(NamedTuple):
    """The pixels of an axis by the cells that hold them, every cell with as many as the fullest has."""

    pixels: np.ndarray  # [cells, phases]; a cell that has fewer goes on with those of the next
    place: np.ndarray  # [pixels], the first place of each pixel in `pixels`
    offset: np.ndarray  # [cells, phases], from the centre of the cell
    even: bool  # whether every pixel stands there once, in order


def _axis(low: int, high: int) -> _Axis:
    cell, offset = source_cells(low, high)
    phases = -(-high // low)
    first = np.searchsorted(cell, np.arange(low))[:, None]
    pixels = np.minimum(first + np.arange(phases), high - 1)
    away = cell[pixels] + offset[pixels] - np.arange(low)[:, None]
    return _Axis(pixels, cell * phases + np.arange(high) - first[cell, 0], away, high % low == 0)


@jit(static_argnames="radius")
def _upsample(
    x: jax.Array, guide: jax.Array, guide_lr: jax.Array | None, near: jax.Array, alike: jax.Array, radius: int
) -> jax.Array:
    sides = [_axis(low, high) for low, high in zip(x.shape[1:3], guide.shape[1:3], strict=True)]
    scale = (sides[0].pixels.shape[1], sides[1].pixels.shape[1])
    if guide_lr is None and all(side.even for side in sides):
        guide_lr = sum_blocks(guide, scale) / (scale[0] * scale[1])
    elif guide_lr is None:
        guide_lr = resize(guide, size=x.shape[1:3], method="area")
    for axis, side in enumerate(sides, 1):
        guide = guide if side.even else take_lines(guide, side.pixels.ravel(), axis)
    tables = [_table(side.offset, radius, x.dtype) for side in sides]
    out = _by_strips(_Images(x, guide, guide_lr), tables, near, alike)
    if x.shape[-1] > _FEW:
        out = reassemble(x, out, scale=scale, kernel_size=2 * radius + 1)
    for axis, side in enumerate(sides, 1):
        out = out if side.even else take_lines(out, side.place, axis)
    return out


def _clipped(radius: int, x: jax.Array) -> int:
    """The largest radius that makes a difference."""
    return min(radius, max(*x.shape[1:3], 1) - 1)


@jit(static_argnames="radius")  # so that eager calls do not compile the loop again
def _bilateral_mean(x: jax.Array, guide: jax.Array, radius: int, near: jax.Array, alike: jax.Array) -> jax.Array:
    """A few channels are separate [B, H, W] arrays: on CPUs, sums over a short channel axis cost ten times as much."""

    def strip(
        cells: jax.Array, coarse: jax.Array, valid: jax.Array, guide: jax.Array, near: jax.Array, alike: jax.Array
    ) -> jax.Array:
        """Of what is around the pixels, and the guide at them."""
        height, width = guide.shape[1:3]
        around, guides = (_channels(cells), _channels(coarse), valid), _channels(guide)

        def shifted(z: jax.Array, top_left: jax.Array) -> jax.Array:
            rows = lax.dynamic_slice_in_dim(z, top_left[0], height, axis=1)
            return lax.dynamic_slice_in_dim(rows, top_left[1], width, axis=2)

        @jax.checkpoint  # the weights are cheaper to compute twice than to keep for every offset
        def add(sums: Sums, offset: jax.Array) -> tuple[Sums, None]:
            near_values, near_guides, near_valid = jax.tree.map(lambda z: shifted(z, offset + radius), around)
            unlike = sum(_squared(a - b) for a, b in zip(near_guides, guides, strict=True))
            weight = near_valid * jnp.exp(-near * jnp.sum(offset**2).astype(jnp.result_type(x)) - alike * unlike)
            added = [total + _beside(weight, v) * v for total, v in zip(sums[0], near_values, strict=True)]
            return (added, sums[1] + weight), None

        zeros = jnp.zeros_like(guide[..., 0])
        of_values = (
            [zeros] * x.shape[-1] if x.shape[-1] <= _FEW else [jnp.zeros_like(guide, shape=(*zeros.shape, x.shape[-1]))]
        )
        (totals, weights), _ = lax.scan(add, (of_values, zeros), jnp.array(window_offsets(2 * radius + 1)))
        means = [total / _beside(weights, total) for total in totals]  # the pixel itself has weight 1
        return jnp.stack(means, axis=-1) if x.shape[-1] <= _FEW else means[0]

    around = tuple(pad_window(z, (radius, radius)) for z in (x, guide, jnp.ones_like(x, shape=(1, *x.shape[1:3]))))
    planes = 2 * x.shape[-1] + 2 * guide.shape[-1]
    return in_cached_strips(strip, around, (guide,), (near, alike), margin=radius, channels=x.shape[-1], planes=planes)


def _channels(x: jax.Array) -> list[jax.Array]:
    return [x[..., c] for c in range(x.shape[-1])] if x.shape[-1] <= _FEW else [x]


def _squared(difference: jax.Array) -> jax.Array:
    """Of one channel, or of all together."""
    square = difference**2
    return square if square.ndim == 3 else sum_by_halves(square)


def _beside(weight: jax.Array, x: jax.Array) -> jax.Array:
    return weight if x.ndim == 3 else weight[..., None]


class _Images(NamedTuple):
    """What is averaged, and what is compared."""

    cells: jax.Array  # [B, h, w, C]
    guide: jax.Array  # [B, sy*h, sx*w, G]
    coarse: jax.Array  # [B, h, w, G]


class _Table(NamedTuple):
    """Of an axis, from each pixel to each cell of its window."""

    distance: jax.Array  # [K, pixels], squared
    inside: jax.Array  # [K, pixels], 1 where the image has that cell, and 0


def _table(offset: np.ndarray, radius: int, dtype: Any) -> _Table:
    """From the places of pixels, [cells, phases], beside the centres of their cells."""
    cells, steps = np.arange(len(offset)), np.arange(-radius, radius + 1)[:, None]
    distance = ((offset - steps[..., None]) ** 2).reshape(steps.size, -1)
    inside = (cells + steps >= 0) & (cells + steps < cells.size)
    return _Table(jnp.asarray(distance, dtype), jnp.asarray(inside.repeat(offset.shape[1], axis=1), dtype))


def _by_strips(images: _Images, tables: list[_Table], near: jax.Array, alike: jax.Array) -> jax.Array:
    """Means [B, sy*h, sx*w, C], or weights [B, sy*h, sx*w, K*K] where there are many channels."""
    channels, window = images.cells.shape[3], len(tables[0].distance)
    outputs = channels if channels <= _FEW else window**2
    planes = images.guide.shape[3] + (channels + _SUMS if channels <= _FEW else window**2)

    def strip(cells: jax.Array, coarse: jax.Array, guide: jax.Array, *others: jax.Array) -> jax.Array:
        return _over_window(_Images(cells, guide, coarse), _Table(*others[:2]), _Table(*others[2:4]), *others[4:])

    padded = tuple(pad_window(x, (window // 2, window // 2)) for x in (images.cells, images.coarse))
    options = dict(margin=window // 2, channels=outputs, planes=planes)
    return in_cached_strips(strip, padded, (images.guide, *tables[0]), (*tables[1], near, alike), **options)


def _over_window(images: _Images, rows: _Table, columns: _Table, near: jax.Array, alike: jax.Array) -> jax.Array:
    """One offset after the other, twice: for the best score of each pixel, which the softmax needs, and for the sums.

    Cells and their guide have the window's margin. Channels of guides, and a few channels of cells, are separate
    [B, H, W] arrays: on CPUs, sums over a short channel axis cost ten times as much.
    """
    window, (height, width, guides) = len(rows.distance), images.guide.shape[1:]
    scale = height // (images.cells.shape[1] - window + 1), width // (images.cells.shape[2] - window + 1)
    fine = [images.guide[..., c] for c in range(guides)]
    coarse = [_enlarged(images.coarse[..., c], (1, scale[1])) for c in range(guides)]
    zeros = jnp.zeros_like(fine[0])

    def shifted(x: jax.Array, offset: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(x, offset[0], height // scale[0], axis=1)
        return _enlarged(lax.dynamic_slice_in_dim(part, scale[1] * offset[1], width, axis=2), (scale[0], 1))

    def score(offset: jax.Array, fine: list[jax.Array], coarse: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        unlike = sum((a - shifted(b, offset)) ** 2 for a, b in zip(fine, coarse, strict=True))
        far = rows.distance[offset[0]][None, :, None] + columns.distance[offset[1]][None, None]
        inside = (rows.inside[offset[0]][None, :, None] > 0) & (columns.inside[offset[1]][None, None] > 0)
        return -alike * unlike - near * far, inside

    def choose(best: Best, step: Step) -> tuple[Best, None]:
        found, inside = score(step[1], *lax.stop_gradient((fine, coarse)))
        better = inside & ((found > best[0]) | (best[1] < 0))
        return (jnp.where(better, found, best[0]), jnp.where(better, step[0], best[1])), None

    def weigh(step: Step) -> jax.Array:
        """The best score becomes exactly 0, and no other more.

        Tiny sigmas make scores of 1e17. Where the compiler computes them anew beside their maximum, the two round
        differently, and `score - maximum` alone may be as large as 1e10. Shifts change neither a softmax nor its
        gradient.
        """
        found, inside = score(step[1], fine, coarse)
        lower = found - best[0]
        bounded = jnp.where((best[1] == step[0]) | (lower > 0), 0, lower)
        return jnp.where(inside, jnp.exp(lower + lax.stop_gradient(bounded - lower)), 0)

    steps = jnp.arange(window**2), jnp.array(window_offsets(window)) + window // 2
    best = lax.stop_gradient(lax.scan(choose, (zeros, jnp.full_like(zeros, -1, int)), steps)[0])
    if images.cells.shape[-1] > _FEW:
        _, weights = lax.scan(jax.checkpoint(lambda none, step: (none, weigh(step))), None, steps)
        return jnp.moveaxis(weights / weights.sum(0, keepdims=True), 0, -1)
    values = [_enlarged(images.cells[..., c], (1, scale[1])) for c in range(images.cells.shape[-1])]

    @jax.checkpoint  # the weights are cheaper to compute twice than to keep for every offset
    def add(sums: Sums, step: Step) -> tuple[Sums, None]:
        weight = weigh(step)
        added = [total + weight * shifted(v, step[1]) for total, v in zip(sums[0], values, strict=True)]
        return (added, sums[1] + weight), None

    (totals, weights), _ = lax.scan(add, ([zeros] * len(values), zeros), steps)
    return jnp.stack([total / weights for total in totals], axis=-1)


def _enlarged(plane: jax.Array, block: Pair) -> jax.Array:
    """[B, H, W], every entry a block."""
    return fill_blocks(plane[..., None], block)[..., 0]
