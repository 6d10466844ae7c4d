"""Box and Gaussian means and the guided filter: sums over windows, with nothing but additions inside.

Borders: the box mean and the guided filter use the part of the window that lies inside the image; the
Gaussian repeats the outermost pixels. A NaN or infinite pixel spoils the outputs within `radius` (guided
filter: twice that) and no others.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxup._checks import (
    Pair,
    Ratio,
    accum_dtype,
    check_image,
    check_int,
    check_positive,
    check_rank,
    check_shape,
    fail,
    jit,
    known,
    pair,
    ratio,
    renamed,
)
from jaxup.ops.linear import linear
from jaxup.ops.resize import resize
from jaxup.ops.rows import by_rows
from jaxup.ops.tiling import STRIP_BYTES, in_strips
from jaxup.ops.windows import pad_window, to_channels

Number = float | jax.Array

# Rounding errors of a covariance, in units of the last place of what is subtracted, for each channel of the guide.
_ROUNDING = 4


@by_rows("x", reach=lambda radius, **_: pair("radius", radius, minimum=0)[0])
def box_filter(x: jax.Array, *, radius: int | Pair) -> jax.Array:
    r"""Mean over the part of the (2 ry + 1) x (2 rx + 1) window that lies inside the image.

        y_p = 1/|N_p| \sum_{q in N_p} x_q

    The sums are plain additions, one axis after the other. Differences of cumulative sums would cost the
    same for every radius, but their float32 error grows with the image and with any offset of the values.

    Args:
        x: [B, H, W, C].
        radius: an integer >= 0, or a pair (vertical, horizontal).

    Returns:
        [B, H, W, C] in the dtype of `x`; 16-bit inputs are summed in float32.

    Raises:
        ValueError: `x` is not a floating-point array [B, H, W, C], or `radius` is negative or no integer.

    Example:
        >>> x = jnp.array([0.0, 3.0, 6.0, 9.0]).reshape(1, 1, 4, 1)
        >>> print(box_filter(x, radius=1).ravel())
        [1.5 3.  6.  7.5]

    Reference:
        He, Sun, Tang, "Guided Image Filtering", PAMI 2013, section 3.4 (the mean filter of its Algorithm 1).
    """
    check_image("x", x)
    return _box_filter(x, pair("radius", radius, minimum=0))


@by_rows("x", reach=lambda sigma, radius, **_: _gaussian_radius(sigma, radius)[0])
def gaussian_filter(x: jax.Array, *, sigma: Number, radius: int | Pair | None = None) -> jax.Array:
    r"""Separable Gaussian smoothing; the outermost pixels are repeated beyond the border.

        y_p = \sum_{|k| <= radius} g_k x_{p+k} / \sum_{|k| <= radius} g_k,    g_k = exp(-k^2 / (2 sigma^2))

    along the rows and then along the columns.

    Args:
        x: [B, H, W, C].
        sigma: standard deviation in pixels, a number > 0; it may be traced and differentiated, and then
            values below 1e-9 act as 1e-9.
        radius: where the kernel ends, an integer >= 0 or a pair (vertical, horizontal); None is 4 sigma
            rounded, which needs a sigma that is not traced.

    Returns:
        [B, H, W, C] in the dtype of `x`; 16-bit inputs are summed in float32.

    Raises:
        ValueError: `x` is not a floating-point array [B, H, W, C], `sigma` is not a positive scalar, `radius` is
            negative or no integer, or `radius` is None while `sigma` is traced.

    Example:
        >>> x = jnp.zeros((1, 1, 5, 1)).at[0, 0, 2, 0].set(1.0)
        >>> [round(float(y), 3) for y in gaussian_filter(x, sigma=1.0, radius=1).ravel()]
        [0.0, 0.274, 0.452, 0.274, 0.0]

    Reference:
        Gonzalez, Woods, "Digital Image Processing", 4th edition, 2018, section 3.5.
    """
    check_image("x", x)
    check_scalar("sigma", sigma)
    return _gaussian_filter(x, sigma, _gaussian_radius(sigma, radius))


@renamed("src", "x")
@by_rows(
    "x",
    "guide",
    reach=lambda radius, subsample, **_: 2 * pair("radius", radius, minimum=0)[0] if subsample == 1 else None,
)
def guided_filter(
    x: jax.Array,
    guide: jax.Array,
    *,
    radius: int | Pair,
    eps: Number,
    per_channel: bool = False,
    subsample: int = 1,
) -> jax.Array:
    r"""Edge-preserving smoothing: in every window the output is a linear function of the guide.

        a_k = (Sigma_k + eps I)^{-1} cov_k(I, p),    b_k = mean_k(p) - a_k . mean_k(I)
        y_i = mean_i(a) . I_i + mean_i(b)

    with guide I, source p, and Sigma_k the covariance (divided by the number of pixels) of the guide in
    window k. All means are `box_filter`'s. A grey guide has one channel, a colour guide three; n channels
    take an n x n system per pixel and about n^2 / 2 box means. To upsample a depth map under its image,
    enlarge it first (bicubic, say) and filter the result.

    `per_channel` gives every channel of the source a grey guide of its own. `subsample` = s is the fast guided filter:
    a and b come from every s-th row and column, floor(H/s) x floor(W/s) of them (at least one), with radius
    floor(radius / s); their means are then enlarged bilinearly.

    The covariances are taken about each image's mean, because E[I I] - E[I]^2 cancels in float32 where
    values are far from zero. What is left of that error is some 1e-7 of the square of the guide's range. An `eps`
    below it counts as that error (5e-7 n of the mean square of a channel in the window), so that flat, grey or
    saturated colours, whose Sigma has no inverse, give what the channels that differ give.

    Args:
        x: [B, H, W, C], what to filter; its channels share the guide.
        guide: [B, H, W, n].
        radius: of the window, an integer >= 0 or a pair (vertical, horizontal).
        eps: a number > 0, in squared units of the guide: what varies less is smoothed. It may be traced.
        per_channel: filter each channel of `x` under the same channel of the guide, n = C.
        subsample: the spacing of the pixels from which the linear models are computed, an integer >= 1.

    Returns:
        [B, H, W, C] in the dtype of `x`; sums are in float32, or in float64 if either input is.

    Raises:
        ValueError: an input is not a floating-point array [B, H, W, C], the guide has another B, H or W or no channel
            (or, with `per_channel`, another C), `radius` is negative or no integer, `subsample` is no positive integer,
            or `eps` is not a positive scalar.

    Example:
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> x = jnp.array([2.0, 4.0, 3.0, 7.0, 9.0, 8.0]).reshape(1, 1, 6, 1)
        >>> [round(float(y), 2) for y in guided_filter(x, guide, radius=2, eps=1e-6).ravel()]
        [3.0, 3.13, 3.1, 7.8, 8.0, 8.0]

    Reference:
        He, Sun, Tang, "Guided Image Filtering", PAMI 2013, Eqs. (5), (6), (8), and their form for colour guides;
        He, Sun, "Fast Guided Filter", 2015, for `subsample`; Zhou et al., "A Refreshed Similarity-based Upsampler for
        Direct High-Ratio Feature Upsampling", Eqs. (4) to (6), for `per_channel`.
    """
    check_image("x", x)
    check_guide(guide, x.shape[:3])
    if per_channel:
        check_shape("guide", guide, x.shape)
    check_scalar("eps", eps)
    step = check_int("subsample", subsample)
    ry, rx = pair("radius", radius, minimum=0)
    return _guided_filter(x, guide, eps, (ry, rx), bool(per_channel), step)


def check_guide(guide: jax.Array, grid: tuple[int | None, ...]) -> None:
    """Require a floating array of at least one channel on the grid (B, H, W)."""
    check_image("guide", guide)
    check_shape("guide", guide, (*grid, None))
    if guide.shape[-1] == 0:
        fail("guide", "at least one channel", f"shape {guide.shape}")


def check_larger_guide(guide: jax.Array, x: jax.Array, scale: Ratio | None) -> None:
    """Require a guide `scale` times as large as x; without a scale, one that is not smaller."""
    batch, height, width, _ = x.shape
    if scale is not None:
        down, right = ratio("scale", scale)
        return check_guide(guide, (batch, _times(down, height), _times(right, width)))
    check_guide(guide, (batch, None, None))
    if guide.shape[1] < height or guide.shape[2] < width:
        fail("guide", f"no less than the {height} x {width} pixels of the map", f"shape {guide.shape}")


def _times(factor: float, length: int) -> int:
    """The length that a factor makes; a factor that is no integer is rounded already where a ratio is periodic."""
    if isinstance(factor, int):
        return factor * length
    if not math.isclose(factor * length, round(factor * length), rel_tol=1e-6):
        fail("scale", f"a factor that makes a whole number of pixels of {length}", factor)
    return round(factor * length)


def check_scalar(name: str, value: Any) -> None:
    """Require a scalar greater than zero; traced values are not looked at."""
    check_rank(name, value, 0)
    if jnp.iscomplexobj(value):
        fail(name, "a real number", repr(value))
    check_positive(name, value)


def falloff(sigma: Number, dtype: jnp.dtype) -> jax.Array:
    """1 / (2 sigma^2), where sigma counts as 1e-9 at least; squared last, so that the gradient is finite in float32."""
    return 0.5 * jnp.square(1 / jnp.maximum(jnp.asarray(sigma, dtype), 1e-9))


def _gaussian_radius(sigma: Number, radius: int | Pair | None) -> Pair:
    if radius is not None:
        return pair("radius", radius, minimum=0)
    if isinstance(sigma, jax.core.Tracer):
        fail("radius", "an integer where sigma is traced", None)
    radius = int(4 * float(sigma) + 0.5)
    return radius, radius


@jit(static_argnums=1)  # here and below so that eager calls are one program, not many
def _box_filter(x: jax.Array, radius: Pair) -> jax.Array:
    return _box_mean(x.astype(accum_dtype(x)), radius).astype(jnp.result_type(x))


@jit(static_argnums=2)
def _gaussian_filter(x: jax.Array, sigma: Number, radius: Pair) -> jax.Array:
    y = x.astype(accum_dtype(x))
    near = falloff(sigma, y.dtype)  # once: the gradients of both axes add up in its dtype
    for axis, r in zip((1, 2), radius, strict=True):
        y = _smooth(y, near, r, axis)
    return y.astype(jnp.result_type(x))


@jit(static_argnums=(3, 4, 5))
def _guided_filter(
    x: jax.Array, guide: jax.Array, eps: Number, radius: Pair, per_channel: bool, step: int
) -> jax.Array:
    dtype = accum_dtype(x, guide)
    level, guide_level = _level(x.astype(dtype)), _level(guide.astype(dtype))

    def local(x: jax.Array, guide: jax.Array) -> jax.Array:
        guides = [guide.astype(dtype) - guide_level]
        if not per_channel:
            guides = jnp.split(guides[0], guide.shape[-1], axis=-1)
        slopes, intercept = _linear_model(
            _every(x.astype(dtype) - level, step),
            [_every(g, step) for g in guides],
            (radius[0] // step, radius[1] // step),
            jnp.asarray(eps, dtype),
        )
        if step > 1:
            *slopes, intercept = (resize(m, size=x.shape[1:3], method="bilinear") for m in (*slopes, intercept))
        filtered = sum((a * _like(g, a) for a, g in zip(slopes, guides, strict=True)), intercept)
        return (filtered + level).astype(jnp.result_type(x))

    if step > 1:  # on few pixels
        return local(x, guide)
    count = 1 if per_channel else guide.shape[-1]
    maps = (3 * count + 3) * x.shape[3] + count * (count + 2)
    row_bytes = known(x.shape[0]) * x.shape[2] * maps * dtype.itemsize
    return in_strips(local, x, guide, margin=2 * radius[0], row_bytes=row_bytes)


def _box_mean(x: jax.Array, radius: Pair) -> jax.Array:
    for axis, r in zip((1, 2), radius, strict=True):
        length = x.shape[axis]
        r = min(r, max(length - 1, 0))  # a longer window sees nothing more
        reach = [r if a == axis else 0 for a in range(4)]
        zero = x.dtype.type(0)  # differentiable only if it is no traced value
        total = lax.reduce_window(x, zero, lax.add, [2 * k + 1 for k in reach], (1,) * 4, [(k, k) for k in reach])
        index = np.arange(length)
        count = np.minimum(index + r, length - 1) - np.maximum(index - r, 0) + 1
        x = total / jnp.asarray(count, x.dtype).reshape([-1 if a == axis else 1 for a in range(4)])
    return x


def _smooth(x: jax.Array, near: jax.Array, radius: int, axis: int) -> jax.Array:
    reach = (radius, 0) if axis == 1 else (0, radius)
    weights = jnp.exp(-near * jnp.arange(-radius, radius + 1, dtype=x.dtype) ** 2)
    weights /= weights.sum()

    def back(weights: jax.Array, ct: jax.Array) -> tuple[jax.Array]:
        """A correlation too: the weights are symmetric."""
        return (_correlate(weights, pad_window(pad_window(ct, reach), reach), axis),)

    return linear(lambda w, z: (_correlate(w, z, axis),), back, (weights,), (pad_window(x, reach, "edge"),))[0]


def _correlate(weights: jax.Array, padded: jax.Array, axis: int) -> jax.Array:
    length = padded.shape[axis] - weights.size + 1
    terms = [weights[k] * lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(weights.size)]
    return sum(terms[1:], terms[0])


def _every(x: jax.Array, step: int) -> jax.Array:
    """Rows and columns 0, step, 2 step, ..., as many as there are whole steps, but at least one."""
    rows, cols = (max(1, n // step) * step for n in x.shape[1:3])
    return x[:, :rows:step, :cols:step]


def _level(x: jax.Array) -> jax.Array:
    """Mean of each image and channel over its finite pixels: a constant, the output does not depend on it.

    Of large images that of some rows, because XLA forms two arrays of the size of what is seen.
    """
    whole = known(x.size, 0) * x.dtype.itemsize
    seen = x[:, :: 1 + whole // STRIP_BYTES]
    return lax.stop_gradient(jnp.nan_to_num(jnp.mean(seen, axis=(1, 2), keepdims=True, where=jnp.isfinite(seen))))


def _linear_model(
    x: jax.Array, guides: list[jax.Array], radius: Pair, eps: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
    """Box means of the slopes, one [B, H, W, C] per guide channel [B, H, W, 1], and of the intercept."""
    mean_x, means = _box_mean(x, radius), [_box_mean(g, radius) for g in guides]
    n = len(guides)
    moments = {(i, j): _box_mean(guides[i] * guides[j], radius) for i in range(n) for j in range(i, n)}
    covariance = [[moments[min(i, j), max(i, j)] - means[i] * means[j] for j in range(n)] for i in range(n)]
    with_x = [_box_mean(_like(g, x) * x, radius) - _like(m, x) * mean_x for g, m in zip(guides, means, strict=True)]
    rounding = _ROUNDING * n * np.finfo(x.dtype).eps
    ridge = [jnp.maximum(eps, rounding * lax.stop_gradient(moments[i, i])) for i in range(n)]
    slopes = _solve(covariance, ridge, with_x)
    intercept = mean_x - sum(a * _like(m, x) for a, m in zip(slopes, means, strict=True))
    return [_box_mean(a, radius) for a in slopes], _box_mean(intercept, radius)


def _solve(matrix: list[list[jax.Array]], ridge: list[jax.Array], rhs: list[jax.Array]) -> list[jax.Array]:
    """Solve (matrix + diag(ridge)) y = rhs at every pixel, the matrix small, symmetric and positive semidefinite.

    By elimination without pivoting: no pivot is less than its ridge but by rounding, of which no more than the size of
    the ridge is expected. The closed form for 3 x 3, by determinants, loses all digits where the channels are nearly
    proportional.
    """
    matrix, rhs = [list(row) for row in matrix], list(rhs)
    n = len(rhs)
    for k in range(n):
        matrix[k][k] = jnp.maximum(matrix[k][k], 0) + ridge[k]
        for i in range(k + 1, n):
            factor = matrix[i][k] / matrix[k][k]
            for j in range(k + 1, n):
                matrix[i][j] = matrix[i][j] - factor * matrix[k][j]
            rhs[i] = rhs[i] - _like(factor, rhs[k]) * rhs[k]
    for i in reversed(range(n)):
        for j in range(i + 1, n):
            rhs[i] = rhs[i] - _like(matrix[i][j], rhs[j]) * rhs[j]
        rhs[i] = rhs[i] / _like(matrix[i][i], rhs[i])
    return rhs


def _like(x: jax.Array, other: jax.Array) -> jax.Array:
    """A map of one channel as one of as many as another has."""
    return x if x.shape[-1] == other.shape[-1] else to_channels(x, other.shape[-1])
