"""Sampling at fractional positions: the one place that knows bilinear taps and what lies beyond the border."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxup._checks import (
    accum_dtype,
    check_choice,
    check_divides,
    check_float,
    check_image,
    check_shape,
    fail,
    jit,
    known,
)

METHODS = ("bilinear", "nearest")
PADDINGS = ("zeros", "border", "reflection")

# Products that the gradient makes at a time: they then stay in cache, and never fill memory.
_BLOCK_BYTES = 1 << 20

Corners = tuple[tuple[int, int], ...]
Steps = tuple[int, int]


def sample(
    x: jax.Array,
    points: jax.Array,
    *,
    method: str = "bilinear",
    padding: str = "zeros",
    align_corners: bool = False,
) -> jax.Array:
    """Read images at fractional positions, like `torch.nn.functional.grid_sample`.

    A point (p, q) counts pixels: row p, column q, and the centre of the first pixel is (0, 0). "bilinear" is

        out = sum_{a, b} max(0, 1 - |p - a|) max(0, 1 - |q - b|) x[a, b]

    over the four pixels (a, b) around the point; "nearest" takes the closest pixel (half way: the even one) and has
    no gradient with respect to the points. Beyond the border, the image continues with zeros, with its border pixels,
    or mirrored. Where points are clamped to the border their gradient is zero.

    PyTorch's grid holds (x, y) in -1 .. 1: column q = ((x + 1) w - 1) / 2, or (x + 1) (w - 1) / 2 with align_corners.
    Cost: 4 multiply-adds per output entry; scratch memory is about one copy of x, with gradients two.

    Args:
        x: images [B, h, w, C].
        points: positions (row, column) in pixels, [B, H, W, 2], or [B, H, W, g, 2] for g groups of consecutive
            channels, each sampled at its own point.
        method: "bilinear" or "nearest".
        padding: "zeros", "border" or "reflection".
        align_corners: "reflection" mirrors at the centres of the border pixels, not at their outer edges. (The
            points do not depend on it.)

    Returns:
        [B, H, W, C] in the dtype of x; positions and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, an image without pixels, g that does not divide C, an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
        >>> points = jnp.array([[0.5, 0.5], [1.0, 0.25], [0.0, 1.5]]).reshape(1, 1, 3, 2)
        >>> sample(x, points).ravel()
        Array([1.5 , 2.25, 0.5 ], dtype=float32)
        >>> sample(x, points, padding="border").ravel()
        Array([1.5 , 2.25, 1.  ], dtype=float32)

    Reference:
        Jaderberg et al., Spatial Transformer Networks, NeurIPS 2015, Eqs. 3 to 5.
    """
    check_image("x", x)
    check_float("points", points)
    check_choice("method", method, METHODS)
    check_choice("padding", padding, PADDINGS)
    if points.ndim not in (4, 5):
        fail("points", "4 or 5 axes [B, H, W, (g,) 2]", f"shape {points.shape}")
    check_shape("points", points, (x.shape[0],) + (None,) * (points.ndim - 2) + (2,))
    grouped = points if points.ndim == 5 else points[:, :, :, None]
    if grouped.shape[3] == 0:
        fail("points", "at least one group", f"shape {points.shape}")
    check_divides("points", grouped.shape[3], "the channels of x", x.shape[3])
    return _sample(x, grouped, method, padding, bool(align_corners))


@jit(static_argnums=(2, 3, 4))
def _sample(x: jax.Array, points: jax.Array, method: str, padding: str, align_corners: bool) -> jax.Array:
    (batch, height, width, channels), groups = x.shape, points.shape[3]
    points = points.astype(accum_dtype(x, points))
    rows = _inside(points[..., 0], height, padding, align_corners)
    cols = _inside(points[..., 1], width, padding, align_corners)
    if method == "nearest":
        rows, cols = (jnp.round(jax.lax.stop_gradient(p)) for p in (rows, cols))
    top, row_part = _split(rows, height)
    left, col_part = _split(cols, width)
    # Groups are rows of the table, too, so that the gathers below read and the scatters write whole rows.
    steps = ((width + 2) * groups, groups)
    index = top * steps[0] + left * steps[1] + jnp.arange(groups, dtype=top.dtype)[None, None, None]
    cells = x.reshape(batch, height, width, groups, channels // groups)
    table = jnp.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
    table = table.reshape(batch, (height + 2) * steps[0], channels // groups)
    corners = ((0, 0),) if method == "nearest" else ((0, 0), (0, 1), (1, 0), (1, 1))
    out = _blend(table, index, row_part, col_part, corners, steps)
    return out.reshape(*points.shape[:3], channels).astype(x.dtype)


def _inside(p: jax.Array, n: int, padding: str, align_corners: bool) -> jax.Array:
    """Bring positions into the reach of the table: 0 .. n-1, and one zero more on both sides for "zeros"."""
    if padding == "reflection":
        edge, period = (0.0, n - 1) if align_corners else (0.5, n)
        p = jnp.mod(p + edge, 2 * period) if period else jnp.zeros_like(p)
        p = jnp.where(p > period, 2 * period - p, p) - edge
    low, high = (-1, n) if padding == "zeros" else (0, n - 1)
    return jnp.where((p > low) & (p < high), p, jax.lax.stop_gradient(jnp.clip(p, low, high)))


def _split(p: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Row (or column) of the zero-padded table below a position, and the part of the way to the next one."""
    below = jnp.minimum(jnp.floor(jax.lax.stop_gradient(p)), n - 1)
    return below.astype(jnp.int32) + 1, p - below


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _blend(
    table: jax.Array, index: jax.Array, row_part: jax.Array, col_part: jax.Array, corners: Corners, steps: Steps
) -> jax.Array:
    """Weighted sum of table rows: [B, N, c], three times [B, H, W, g] -> [B, H, W, g, c]."""
    terms = (
        (_part(row_part, a) * _part(col_part, b))[..., None] * _read(table, index, (a, b), steps, row_part.dtype)
        for a, b in corners
    )
    return sum(terms, start=jnp.zeros((1,) * 5, row_part.dtype))


def _part(part: jax.Array, step: int) -> jax.Array:
    """The weight of the near (0) or the far (1) neighbour."""
    return part if step else 1 - part


def _read(table: jax.Array, index: jax.Array, corner: Steps, steps: Steps, dtype: jnp.dtype) -> jax.Array:
    index = index + (corner[0] * steps[0] + corner[1] * steps[1])
    rows: jax.Array = jax.vmap(lambda t, i: t.at[i].get(mode="promise_in_bounds"))(table, index)
    return rows.astype(dtype)


def _blend_bwd(
    corners: Corners, steps: Steps, saved: tuple[jax.Array, ...], ct: jax.Array
) -> tuple[jax.Array | None, ...]:
    """Blocks of rows one after the other, so that what is gathered and scattered stays small."""
    table, index, row_part, col_part = saved
    rows = _block_rows(ct)

    def block(total: jax.Array, start: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        here = (jax.lax.dynamic_slice_in_dim(a, start, rows, axis=1) for a in (index, row_part, col_part, ct))
        i, p, q, d_out = here
        d_row = d_col = jnp.zeros_like(p)
        for a, b in corners:
            weight_row, weight_col = _part(p, a), _part(q, b)
            change = jnp.sum(d_out * _read(table, i, (a, b), steps, ct.dtype), axis=-1)
            d_row, d_col = d_row + (2 * a - 1) * weight_col * change, d_col + (2 * b - 1) * weight_row * change
            total = _add(total, i + (a * steps[0] + b * steps[1]), (weight_row * weight_col)[..., None] * d_out)
        return total, (d_row, d_col)

    starts = jnp.arange(0, ct.shape[1], rows)
    d_table, parts = jax.lax.scan(block, jnp.zeros_like(table, dtype=ct.dtype), starts)
    d_row, d_col = (jnp.moveaxis(d, 0, 1).reshape(index.shape) for d in parts)
    return d_table.astype(table.dtype), None, d_row, d_col


def _block_rows(x: jax.Array) -> int:
    """The largest divisor of the number of rows with which one block of [B, H, W, g, c] fits `_BLOCK_BYTES`."""
    fit = max(
        1, _BLOCK_BYTES // max(1, math.prod(known(n) for n in x.shape[2:]) * known(x.shape[0]) * x.dtype.itemsize)
    )
    rows = known(x.shape[1])
    return max(d for d in range(1, min(fit, max(1, rows)) + 1) if rows % d == 0)


def _add(table: jax.Array, index: jax.Array, values: jax.Array) -> jax.Array:
    total: jax.Array = jax.vmap(lambda t, i, v: t.at[i].add(v, mode="promise_in_bounds"))(table, index, values)
    return total


def _blend_fwd(
    table: jax.Array, index: jax.Array, row_part: jax.Array, col_part: jax.Array, corners: Corners, steps: Steps
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _blend(table, index, row_part, col_part, corners, steps), (table, index, row_part, col_part)


_blend.defvjp(_blend_fwd, _blend_bwd)
