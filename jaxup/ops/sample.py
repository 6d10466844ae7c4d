"""Sampling at fractional positions: the one place that knows bilinear taps and what lies beyond the border."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxup._checks import (
    Pair,
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
from jaxup.ops.linear import Arrays, linear
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import sum_by_halves

METHODS = ("bilinear", "nearest")
PADDINGS = ("zeros", "border", "reflection")

# Numbers that the loop adds at a time: with 3 left, sums over 96 channels take six times as long.
_LANES = 16

# Rows of a table that 32 bits count.
_COUNTED = 2**31 - 1

Point = tuple[tuple[jax.Array, ...], jax.Array, jax.Array]


@by_rows("x", "points", reach=lambda **_: None)
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
    or mirrored. Where points are clamped to the border their gradient is zero. A NaN in x spoils what is read from the
    four pixels around a point, also with the weight 0 ("nearest": from the pixel alone); a point that is NaN, or
    infinite under reflection, gives NaN.

    PyTorch's grid holds (x, y) in -1 .. 1: column q = ((x + 1) w - 1) / 2, or (x + 1) (w - 1) / 2 with align_corners.
    Cost: 4 multiply-adds per output entry; scratch memory is about one copy of x, with gradients two, and for several
    groups three numbers per point more.

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
    height, width = x.shape[1:3]
    points = points.astype(accum_dtype(x, points))
    rows = _inside(points[..., 0], height, padding, align_corners)
    cols = _inside(points[..., 1], width, padding, align_corners)
    if method == "nearest":
        rows, cols = (jnp.round(jax.lax.stop_gradient(p)) for p in (rows, cols))
    top, row_part = _split(rows, height)
    left, col_part = _split(cols, width)
    table = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _blend(table, top, left, row_part, col_part, method == "bilinear").astype(x.dtype)


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


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def _blend(
    table: jax.Array, top: jax.Array, left: jax.Array, row_part: jax.Array, col_part: jax.Array, linear: bool
) -> jax.Array:
    """Weighted sums of the 2 x 2 window at (top, left), or its first entry: [B, h, w, C], [B, H, W, g] -> [B, H, W, C].

    On CPUs the gradient is a loop over points.
    """
    inputs = table, top, left, row_part, col_part
    return _read(inputs, linear) if top.shape[3] > 1 else _by_gathers(*inputs, linear=linear)


def _read(inputs: tuple[jax.Array, ...], linear: bool) -> jax.Array:
    """The form that is faster for several groups, and where derivatives follow."""
    gathers, (table, top, *_) = partial(_by_gathers, linear=linear), inputs
    if not _may_loop(inputs, linear) or math.prod(table.shape[:3]) * top.shape[3] > _COUNTED:
        return gathers(*inputs)
    out: jax.Array = jax.lax.platform_dependent(*inputs, cpu=_behind_a_branch, default=gathers)
    return out


def _may_loop(arrays: tuple[jax.Array, ...], linear: bool) -> bool:
    """A loop needs a known number of points, and to have them all: it would gather what is spread over devices."""
    return linear and all(all(known(n, 0) for n in a.shape) and jax.typeof(a).sharding.mesh.size <= 1 for a in arrays)


def _by_gathers(
    table: jax.Array, top: jax.Array, left: jax.Array, row_part: jax.Array, col_part: jax.Array, *, linear: bool
) -> jax.Array:
    """Entry by entry of the windows. Groups are rows of the table, too, so that whole rows are gathered."""
    (batch, height, width, channels), groups = table.shape, top.shape[3]
    rows = table.reshape(batch, height, width, groups, channels // groups)
    rows = rows.reshape(batch, height * width * groups, channels // groups)
    index = (top * width + left) * groups + jnp.arange(groups, dtype=top.dtype)[None, None, None]
    sums = partial(_sums, steps=(width * groups, groups), linear=linear)
    out: jax.Array = jax.vmap(sums)(rows, index, row_part, col_part)
    return out.reshape(*top.shape[:3], channels)


def _behind_a_branch(
    table: jax.Array, top: jax.Array, left: jax.Array, row_part: jax.Array, col_part: jax.Array
) -> jax.Array:
    """The same behind a branch that is always taken, of all images and groups as rows of one table.

    XLA for CPUs joins gathers with what comes before and after them, which takes up to seven times as long. Nothing is
    joined across a branch.
    """
    (batch, height, width, channels), groups = table.shape, top.shape[3]
    rows = table.reshape(-1, channels // groups)
    image, group = (jnp.arange(n, dtype=top.dtype) for n in (batch, groups))
    corner = (image[:, None, None, None] * height + top) * width + left
    index = (corner * groups + group[None, None, None]).reshape(-1)
    sums = partial(_sums, steps=(width * groups, groups), linear=True)

    def never(*arrays: jax.Array) -> jax.Array:
        return jnp.zeros((index.size, rows.shape[1]), row_part.dtype)

    # Which no compiler can know.
    out = jax.lax.cond(index[0] >= 0, sums, never, rows, index, row_part.reshape(-1), col_part.reshape(-1))
    samples: jax.Array = out.reshape(*top.shape[:3], channels)
    return samples


def _sums(
    rows: jax.Array, index: jax.Array, row_part: jax.Array, col_part: jax.Array, *, steps: Pair, linear: bool
) -> jax.Array:
    """Of rows [N, c] those at index and one or both steps further, weighted: index [...] -> [..., c]."""
    weights = _weights(row_part, col_part)
    used = weights if linear else [(0, 0)]
    reads = ((at, rows.at[index + at[0] * steps[0] + at[1] * steps[1]].get(mode="promise_in_bounds")) for at in used)
    terms = [weights[at][..., None] * entries.astype(row_part.dtype) for at, entries in reads]
    return sum(terms[1:], terms[0])


def _weights(row_part: jax.Array, col_part: jax.Array) -> dict[tuple[int, int], jax.Array]:
    """The weights of the four entries of a window."""
    rows, cols = (1 - row_part, row_part), (1 - col_part, col_part)
    return {(a, b): rows[a] * cols[b] for a in (0, 1) for b in (0, 1)}


def _point(table: jax.Array, places: tuple[jax.Array, ...]) -> Callable[[jax.Array], Point]:
    """Of the n-th point, those of all groups counted, where its window begins in the table and its two parts."""
    shape = places[0].shape
    top, left, row_part, col_part = (a.reshape(-1) for a in places)

    def point(n: jax.Array) -> Point:
        image, channel = n // math.prod(shape[1:]), n % shape[3] * (table.shape[3] // shape[3])
        return (image.astype(top.dtype), top[n], left[n], channel.astype(top.dtype)), row_part[n], col_part[n]

    return point


def _pull_by_points(ct: jax.Array, table: jax.Array, *places: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Every point adds to its window at once: a scatter would visit it for each entry, and fill memory before."""
    size, point = table.shape[3] // places[0].shape[3], _point(table, places)
    ct = ct.reshape(-1, size)

    def add(n: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        corner, p, q = point(n)
        d_out = jax.lax.dynamic_slice_in_dim(ct, n, 1).reshape(1, 1, 1, size)
        window, total = (jax.lax.dynamic_slice(t, corner, (1, 2, 2, size)) for t in (table, totals[0]))
        weights = jnp.stack(list(_weights(p, q).values())).reshape(1, 2, 2, 1)
        change = sum_by_halves(window.astype(ct.dtype) * d_out, least=_LANES)[0]
        along_rows = (1 - q) * (change[1, 0] - change[0, 0]) + q * (change[1, 1] - change[0, 1])
        along_cols = (1 - p) * (change[0, 1] - change[0, 0]) + p * (change[1, 1] - change[1, 0])
        parts = jnp.stack([along_rows, along_cols])[None]
        return (
            jax.lax.dynamic_update_slice(totals[0], total + weights * d_out, corner),
            jax.lax.dynamic_update_slice_in_dim(totals[1], parts, n, axis=0),
        )

    zeros = jnp.zeros(table.shape, ct.dtype), jnp.zeros((len(ct), 2), ct.dtype)
    d_table, d_parts = jax.lax.fori_loop(0, len(ct), add, zeros)
    return d_table, d_parts[:, 0].reshape(places[0].shape), d_parts[:, 1].reshape(places[0].shape)


@_blend.defjvp
def _blend_jvp(bilinear: bool, primals: Arrays, tangents: Arrays) -> tuple[jax.Array, jax.Array]:
    table, top, left, *parts = primals

    def by_gathers(top: jax.Array, left: jax.Array) -> Callable[..., jax.Array]:
        return lambda table, *parts: _by_gathers(table, top, left, *parts, linear=bilinear)

    def push(table: jax.Array, top: jax.Array, left: jax.Array, *more: jax.Array) -> Arrays:
        changes: Arrays = more[2:]
        return (jax.jvp(by_gathers(top, left), (table, *more[:2]), changes)[1],)

    def pull(*arrays: jax.Array) -> Arrays:
        *saved, ct = arrays

        def by_scatters(ct: jax.Array, table: jax.Array, top: jax.Array, left: jax.Array, *parts: jax.Array) -> Arrays:
            d_inputs: Arrays = jax.vjp(by_gathers(top, left), table.astype(ct.dtype), *parts)[1](ct)
            return d_inputs

        run = by_scatters
        if _may_loop((ct, *saved), bilinear):
            run = partial(jax.lax.platform_dependent, cpu=_pull_by_points, default=by_scatters)
        d_table, *d_parts = run(ct, *saved)
        return d_table.astype(saved[0].dtype), *d_parts

    changes = tangents[0], *tangents[3:]
    return _read(primals, bilinear), linear(push, pull, (table, top, left, *parts), changes)[0]
