"""Resampling with fixed weights: interpolation, zero-upsampling and pixel shuffling.

Every interpolation here is linear and separable: along one axis, out[i] = sum over j of A[i, j] x[j] with a
sparse matrix A known from the sizes alone. A is built in NumPy while tracing and applied as a few gathered
taps. Its gradient is the transpose of A, applied the same way: the scatter of autodiff is slow. Bilinear enlargement
by whole factors gathers nothing, nor does its gradient where they are not too large.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_image, check_known_size, fail, jit, pair
from jaxup.ops.linear import linear
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import merge_phases, pad_window, split_phases, sum_blocks

METHODS = ("nearest", "nearest_exact", "bilinear", "bicubic", "area")
BORDERS = ("clamp", "mirror", "drop")

# Up to which a gradient is a sum of as many slices: hundreds take seconds to compile.
_PHASES = 32

Table = tuple[np.ndarray, np.ndarray]  # indices and weights of the taps, each [taps, outputs]
Map = Callable[[jax.Array], jax.Array]


def _keys(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel with coefficient a."""
    t = np.abs(t)
    inner = ((a + 2) * t - (a + 3)) * t * t + 1
    outer = a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def _nearest_taps(n: int, m: int, exact: bool) -> Table:
    i = np.arange(m)
    source = (2 * i + 1) * n // (2 * m) if exact else i * n // m
    return source[None], np.ones((1, m))


def _area_taps(n: int, m: int) -> Table:
    i = np.arange(m)
    start, stop = i * n // m, -(-(i + 1) * n // m)
    j = start + np.arange((stop - start).max())[:, None]
    return j, (j < stop) / (stop - start)


def _kernel_taps(n: int, m: int, a: float | None, align_corners: bool, antialias: bool) -> Table:
    """Taps of the triangle kernel (a is None) or Keys' kernel; indices may lie outside the image."""
    i = np.arange(m)
    # One division per position keeps those that fall on a pixel exact.
    step, unit = (n, m) if not align_corners else (n - 1, m - 1) if m > 1 else (0, 1)
    half_pixel = antialias or not align_corners
    centre = ((2 * i + 1) * step - unit) / (2 * unit) if half_pixel else i * step / unit
    stretch = max(step / unit, 1.0) if antialias else 1.0
    reach = stretch * (1 if a is None else 2)
    j = np.floor(centre - reach).astype(int) + np.arange(int(np.ceil(2 * reach)) + 2)[:, None]
    t = (j - centre) / stretch
    return j, np.maximum(0.0, 1 - np.abs(t)) if a is None else _keys(t, a)


def bilinear_phases(scale: int) -> np.ndarray:
    """Weights [scale, 3] of the cells before, at and after the source cell, for each phase of bilinear upsampling."""
    j, weight = _kernel_taps(1, scale, None, align_corners=False, antialias=False)
    return np.stack([(weight * (j == cell)).sum(0) for cell in (-1, 0, 1)], axis=1)


def _bring_inside(taps: Table, n: int, border: str) -> Table:
    """Replace the taps outside [0, n) as `border` says and make the weights of each output sum to one."""
    j, weight = taps
    if border == "mirror":
        j = np.minimum(j % (2 * n), 2 * n - 1 - j % (2 * n))
    elif border == "drop":
        weight = np.where((j >= 0) & (j < n), weight, 0.0)
    return np.clip(j, 0, n - 1), weight / weight.sum(0)


def _table(row: np.ndarray, col: np.ndarray, weight: np.ndarray, rows: int) -> Table:
    """Pack a sparse matrix's entries row by row; short rows repeat their first column with weight 0."""
    order = np.argsort(row, kind="stable")
    row, col, weight = row[order], col[order], weight[order]
    count = np.bincount(row, minlength=rows)
    place = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    indices, weights = np.zeros((count.max(), rows), np.int32), np.zeros((count.max(), rows))
    indices[:, row[place == 0]] = col[place == 0]
    indices[place, row], weights[place, row] = col, weight
    return indices, weights


@functools.lru_cache(maxsize=256)
def _tables(
    n: int, m: int, method: str, align_corners: bool, antialias: bool, a: float, border: str
) -> tuple[Table, Table]:
    """The [m, n] matrix of one axis, and its transpose, as tables."""
    if method == "area":
        j, weight = _area_taps(n, m)
    elif method.startswith("nearest"):
        j, weight = _nearest_taps(n, m, exact=method == "nearest_exact")
    else:
        taps = _kernel_taps(n, m, a if method == "bicubic" else None, align_corners, antialias)
        j, weight = _bring_inside(taps, n, border)
    used = weight != 0  # a NaN in a pixel of weight 0 must not count
    # Several taps may read one pixel at a border: merge them.
    entry, inverse = np.unique((np.arange(m) * n + j)[used], return_inverse=True)
    row, col, value = entry // n, entry % n, np.bincount(inverse, weight[used])
    return _table(row, col, value, m), _table(col, row, value, n)


def _weighted_sum(x: jax.Array, axis: int, table: Table) -> jax.Array:
    """out[i] = sum over t of weights[t, i] * x[indices[t, i]] along `axis`."""
    indices = jnp.asarray(table[0])
    count, outputs = indices.shape
    shape = (count,) + (1,) * axis + (outputs,) + (1,) * (x.ndim - 1 - axis)
    weights = jnp.asarray(table[1].reshape(shape), x.dtype)

    def tap(t: Any) -> jax.Array:
        return weights[t] * jnp.take(x, indices[t], axis=axis, mode="clip")

    if count == 1:
        return tap(0)
    # A loop rather than straight code: where the result has several readers, XLA would keep every gathered tap.
    total: jax.Array = jax.lax.fori_loop(0, count, lambda t, total: total + tap(t), jnp.zeros_like(tap(0)))
    return total


def _between(x: jax.Array, axis: int, scale: int) -> jax.Array:
    """Bilinear upsampling along an axis: `scale` pixels between every two neighbours, and no gathers.

    Fused with several readers it needs no memory, unlike taps.
    """
    padded = pad_window(x, (1, 0) if axis == 1 else (0, 1), "edge")
    cells = x.shape[axis] + 1
    before, after = (jnp.expand_dims(jax.lax.slice_in_dim(padded, i, i + cells, axis=axis), axis + 1) for i in (0, 1))
    shape = [scale if a == axis + 1 else 1 for a in range(x.ndim + 1)]
    share = jnp.asarray((np.arange(scale) + (1 - scale % 2) / 2).reshape(shape) / scale, x.dtype)
    between = (1 - share) * before + share * after
    if scale % 2:  # a NaN in a pixel of weight 0 must not count
        between = jnp.where(share == 0, before, between)
    lines = between.reshape(*x.shape[:axis], cells * scale, *x.shape[axis + 1 :])
    first = (scale + 1) // 2
    return jax.lax.slice_in_dim(lines, first, first + x.shape[axis] * scale, axis=axis)


def _back_between(lines: jax.Array, axis: int, scale: int) -> jax.Array:
    """The transpose of `_between`: sums of phases for the cells before, at and after their own, then shifted there."""
    cells = lines.shape[axis] // scale
    split = lines.reshape(*lines.shape[:axis], cells, scale, *lines.shape[axis + 1 :])
    phases = [jax.lax.index_in_dim(split, u, axis + 1, keepdims=False) for u in range(scale)]

    def share(weights: np.ndarray) -> jax.Array:  # a NaN of weight 0 must not count
        parts = [phase * float(weight) for phase, weight in zip(phases, weights, strict=True) if weight]
        return sum(parts[1:], parts[0])

    before, own, after = (share(weights) for weights in bilinear_phases(scale).T)
    cut = functools.partial(jax.lax.slice_in_dim, axis=axis)
    # What goes beyond a border comes back to the cell at it.
    from_next = jnp.concatenate([cut(before, 1, cells), cut(after, cells - 1, cells)], axis)
    from_last = jnp.concatenate([cut(before, 0, 1), cut(after, 0, cells - 1)], axis)
    return own + from_next + from_last


def _linear(forward: Map, transpose: Map) -> Map:
    """A linear map whose transpose is given."""

    def alone(of: Map) -> Callable[[jax.Array], tuple[jax.Array]]:
        return lambda x: (of(x),)

    return lambda x: linear(alone(forward), alone(transpose), (), (x,))[0]


def _by_taps(axis: int, *tables: Table) -> list[Map]:
    return [functools.partial(_weighted_sum, axis=axis, table=table) for table in tables]


def take_lines(x: jax.Array, lines: np.ndarray, axis: int) -> jax.Array:
    """Rows or columns of x by their numbers."""
    place, ones = np.arange(lines.size), np.ones(lines.size)
    tables = _table(place, lines, ones, lines.size), _table(lines, place, ones, x.shape[axis])
    return _linear(*_by_taps(axis, *tables))(x)


def row_table(n: int, m: int, method: str, *, align_corners: bool = False, antialias: bool = False) -> Table:
    """Which of n rows each of m reads, [taps, m], and with which weights."""
    border = "drop" if antialias else "clamp"
    return _tables(n, m, method, align_corners, antialias, -0.75, border)[0]


def some_rows(x: jax.Array, table: Table, first: Any, count: int, start: Any) -> jax.Array:
    """Rows `first` to `first + count` of a resized image, of which x are the rows from `start` on.

    What a table of `row_table` reads outside of x is read at its border.
    """
    rows, weights = (jax.lax.dynamic_slice_in_dim(jnp.asarray(part), first, count, axis=1) for part in table)
    weights = weights.astype(x.dtype)[:, None, :, None, None]
    parts = [w * jnp.take(x, row - start, axis=1, mode="clip") for row, w in zip(rows, weights, strict=True)]
    total: jax.Array = sum(parts[1:], parts[0])
    return total


@jit(static_argnums=(1, 2))
def _resize(x: jax.Array, size: Pair, options: tuple[Any, ...]) -> jax.Array:
    total = x.astype(accum_dtype(x))
    if options[0] == "area" and all(n % m == 0 for n, m in zip(x.shape[1:3], size, strict=True)):
        block = x.shape[1] // size[0], x.shape[2] // size[1]
        return (sum_blocks(total, block) / (block[0] * block[1])).astype(x.dtype)
    for axis in (2, 1):
        low, high = x.shape[axis], size[axis - 1]
        if low == high:
            continue
        forward, transpose = _by_taps(axis, *_tables(low, high, *options))
        if options[:2] == ("bilinear", False) and high % low == 0 and high > low:
            forward = functools.partial(_between, axis=axis, scale=high // low)
            if high // low <= _PHASES:
                transpose = functools.partial(_back_between, axis=axis, scale=high // low)
        total = _linear(forward, transpose)(total)
    return total.astype(x.dtype)


def _check_options(
    method: str, align_corners: bool, antialias: bool, cubic_coefficient: float | None, border: str | None
) -> None:
    check_choice("method", method, METHODS)
    if border is not None:
        check_choice("border", border, BORDERS)
    if method not in ("bilinear", "bicubic"):
        kernel_only = {"align_corners": align_corners, "antialias": antialias, "border": border}
        for name, value in kernel_only.items():
            if value:
                fail(name, f"no such option for method {method!r}", repr(value))
    if method != "bicubic" and cubic_coefficient is not None:
        fail("cubic_coefficient", f"no such option for method {method!r}", repr(cubic_coefficient))


def _output_size(x: jax.Array, scale: int | Pair | None, size: int | tuple[int, ...] | None) -> Pair:
    if (scale is None) == (size is None):
        fail("scale, size", "exactly one of them", f"scale={scale!r}, size={size!r}")
    if size is not None:
        return pair("size", size)
    sy, sx = pair("scale", scale)
    return sy * x.shape[1], sx * x.shape[2]


def resize(
    x: jax.Array,
    *,
    scale: int | Pair | None = None,
    size: int | tuple[int, ...] | None = None,
    method: str = "bilinear",
    align_corners: bool = False,
    antialias: bool = False,
    cubic_coefficient: float | None = None,
    border: str | None = None,
) -> jax.Array:
    """Resize images, up or down, with fixed weights; equal to `torch.nn.functional.interpolate` to rounding.

    From n to m samples along an axis, output i reads the source position p = (i + 1/2) n/m - 1/2, or, with
    `align_corners`, p = i (n-1)/(m-1):

    - "nearest" takes pixel floor(i n/m), "nearest_exact" floor((i + 1/2) n/m), both in exact arithmetic
      (PyTorch rounds in float32 and, for a few pairs of sizes, takes the pixel before);
    - "area" is the mean of pixels floor(i n/m) .. ceil((i + 1) n/m) - 1 (adaptive average pooling);
    - "bilinear" and "bicubic" weight pixel j by k(j - p), normalised to sum 1: the triangle max(0, 1-|t|)
      or Keys' kernel: (a+2)|t|^3 - (a+3)t^2 + 1 for |t| <= 1, a(|t|^3 - 5t^2 + 8|t| - 4) for |t| < 2.

    A pixel counts only where its weight is not 0, so a NaN or an infinity stays among its neighbours.

    MATLAB's `imresize` is `antialias=True, cubic_coefficient=-0.5, border="mirror"`; Pillow's `resize` and
    `jax.image.resize` are `antialias=True`.

    Args:
        x: images [B, h, w, C].
        scale: integer upsampling factor, or a pair (vertical, horizontal). Give either this or `size`.
        size: output size (H, W), any positive integers.
        method: "nearest", "nearest_exact", "bilinear", "bicubic" or "area".
        align_corners: the centres of the corner pixels coincide, not the image borders (bilinear, bicubic).
            With `antialias` it only sets the spacing n/m to (n-1)/(m-1), as in PyTorch: no corners align.
        antialias: stretch the kernel by the spacing of the positions where that exceeds 1, that is, when
            shrinking (bilinear, bicubic).
        cubic_coefficient: a (bicubic). None: -0.5 with `antialias`, else -0.75, as PyTorch.
        border: what taps outside the image read (bilinear, bicubic): "clamp" the nearest pixel, "mirror" the
            image reflected with its edge pixels repeated, "drop" nothing. None: "drop" with `antialias`, else
            "clamp", as PyTorch.

    Returns:
        Images [B, H, W, C] of x's dtype; sums of 16-bit images are accumulated in float32.

    Raises:
        ValueError: x is not a floating-point array [B, h, w, C] with at least one pixel; not exactly one of `scale`
            and `size`, or not positive integers; an unknown method or border; an option the method lacks.

    Example:
        >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
        >>> resize(x, scale=(1, 2))[0, :, :, 0]
        Array([[0.  , 0.25, 0.75, 1.  ],
               [2.  , 2.25, 2.75, 3.  ]], dtype=float32)
        >>> resize(x, size=(1, 1), method="area").item()
        1.5

    Reference:
        Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    check_image("x", x)
    check_known_size("x", x)
    output = _output_size(x, scale, size)
    _check_options(method, align_corners, antialias, cubic_coefficient, border)
    coefficient = float((-0.5 if antialias else -0.75) if cubic_coefficient is None else cubic_coefficient)
    border = border or ("drop" if antialias else "clamp")
    options = method, bool(align_corners), bool(antialias), coefficient, border
    return _resize_by(x, ratio=Fraction(output[0], x.shape[1]), width=output[1], options=options)


def _resize_reach(ratio: Fraction, options: tuple[Any, ...], **_: Any) -> int | None:
    """With `align_corners` positions depend on the height of the whole image."""
    method, align_corners, antialias = options[:3]
    taps = {"bilinear": 1, "bicubic": 2}.get(method, 0)
    return None if align_corners else taps and math.ceil(taps * max(1, 1 / ratio if antialias else 1)) + 1


@by_rows("x", reach=_resize_reach)
def _resize_by(x: jax.Array, *, ratio: Fraction, width: int, options: tuple[Any, ...]) -> jax.Array:
    """The height by its ratio, which is the same for a strip of rows."""
    return _resize(x, (int(x.shape[1] * ratio), width), options)


@by_rows("x", reach=lambda **_: 0)
def zero_upsample(x: jax.Array, *, scale: int | Pair) -> jax.Array:
    """Insert zeros between pixels: out[s i, s j] = x[i, j], and 0 everywhere else.

    Args:
        x: [B, h, w, C].
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        [B, s h, s w, C] of x's dtype.

    Raises:
        ValueError: x is not a floating-point array with four axes, or `scale` is not a positive integer or pair.

    Example:
        >>> zero_upsample(jnp.ones((1, 1, 2, 1)), scale=2)[0, :, :, 0]
        Array([[1., 0., 1., 0.],
               [0., 0., 0., 0.]], dtype=float32)

    Reference:
        Kundu et al., "Attention-based image upsampling", 2020, Eq. 4.
    """
    check_image("x", x)
    sy, sx = pair("scale", scale)
    phases = jnp.pad(x[:, :, None, :, None], ((0, 0), (0, 0), (0, sy - 1), (0, 0), (0, sx - 1), (0, 0)))
    return merge_phases(phases)


@by_rows("x", reach=lambda **_: 0)
def pixel_shuffle(x: jax.Array, *, scale: int | Pair) -> jax.Array:
    """Turn channels into pixels: out[s i + u, s j + v, c] = x[i, j, c s s + u s + v], PyTorch's order.

    Args:
        x: [B, h, w, C s s].
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        [B, s h, s w, C] of x's dtype.

    Raises:
        ValueError: x is not a floating-point array with four axes, `scale` is not a positive integer or pair, or
            s s does not divide the channels.

    Example:
        >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), scale=2)[0, :, :, 0]
        Array([[0., 1.],
               [2., 3.]], dtype=float32)

    Reference:
        Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
        convolutional neural network", 2016.
    """
    check_image("x", x)
    sy, sx = pair("scale", scale)
    check_divides("scale", sy * sx, "channels", x.shape[3])
    phases = x.reshape(*x.shape[:3], x.shape[3] // (sy * sx), sy, sx)
    return merge_phases(phases.transpose(0, 1, 4, 2, 5, 3))


@by_rows("x", reach=lambda **_: 0)
def pixel_unshuffle(x: jax.Array, *, scale: int | Pair) -> jax.Array:
    """Turn pixels into channels: out[i, j, c s s + u s + v] = x[s i + u, s j + v, c].

    The inverse of `pixel_shuffle`.

    Args:
        x: [B, s h, s w, C].
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        [B, h, w, C s s] of x's dtype.

    Raises:
        ValueError: x is not a floating-point array with four axes, `scale` is not a positive integer or pair, or
            s does not divide the height and width.

    Example:
        >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2, 1), scale=2)
        Array([[[[0., 1., 2., 3.]]]], dtype=float32)

    Reference:
        Shi et al., 2016 (see `pixel_shuffle`).
    """
    check_image("x", x)
    sy, sx = pair("scale", scale)
    check_divides("scale", sy, "height", x.shape[1])
    check_divides("scale", sx, "width", x.shape[2])
    phases = split_phases(x, (sy, sx)).transpose(0, 1, 3, 5, 2, 4)
    return phases.reshape(*phases.shape[:3], x.shape[3] * sy * sx)
