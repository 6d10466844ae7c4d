"""Losses of matting and of depth estimation: one number per image, as jitted functions that differentiate.

Arguments are floating [B, H, W, C]; sums are in float32, or in float64 if any of them is. Take the mean over the batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_features, check_int, check_odd, check_positive, check_shape, fail, jit

__all__ = ["alpha_loss", "composition_loss", "hu_depth_loss", "hu_depth_terms", "laplacian_loss"]

_SMOOTHING = 1e-6  # where the absolute value is rounded off


def alpha_loss(x: jax.Array, truth: jax.Array, *, unknown: jax.Array, margin: float = 0.0) -> jax.Array:
    """Absolute error of an alpha matte in the unknown region U, smooth at zero.

        L = sum over all pixels of s(u (x - t)) / (|U| + margin),    s(e) = sqrt(e^2 + 1e-12)

    where u is 1 in U and 0 elsewhere, so that each pixel outside of U adds 1e-6 to the sum.

    Args:
        x: predicted alpha [B, H, W, 1], not clipped.
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U. What the others hold, also NaN, has no effect.
        margin: 0 as IndexNet's code, or 1 as A2U's, whose loss is finite for an image without unknown pixels.

    Returns:
        [B], float32 or float64. Where |U| + margin is 0 it is infinite, with a gradient of zero.

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or the margin is negative.

    Example:
        >>> x = jnp.full((1, 2, 2, 1), 0.25)
        >>> alpha_loss(x, jnp.zeros_like(x), unknown=jnp.ones_like(x))
        Array([0.25], dtype=float32)

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017, eq. 2; Lu et al., Index Networks, TPAMI 2020, 6.1.
    """
    _check(x, truth, unknown, margin)
    dtype = accum_dtype(x, truth)
    return _masked(x.astype(dtype) - truth.astype(dtype), unknown, margin=margin)


def composition_loss(
    x: jax.Array,
    image: jax.Array,
    foreground: jax.Array,
    background: jax.Array,
    *,
    unknown: jax.Array,
    margin: float = 0.0,
) -> jax.Array:
    """Absolute error of the image that a matte composes, in the unknown region U, smooth at zero.

        L = sum over all pixels and the three colours of s(u (x F + (1 - x) B - I)) / (|U| + margin)

    with u, s and the denominator of `alpha_loss`: a sum over colours, not a mean.

    Args:
        x: predicted alpha [B, H, W, 1], not clipped.
        image: I, [B, H, W, 3], as the network sees it, in 0 .. 1.
        foreground: F, [B, H, W, 3].
        background: B, [B, H, W, 3].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U. What the others hold, also NaN, has no effect.
        margin: 0 as IndexNet's code, or 1 as A2U's.

    Returns:
        [B], float32 or float64. Where |U| + margin is 0 it is infinite, with a gradient of zero.

    Raises:
        ValueError: an array is not floating-point of these shapes, or the margin is negative.

    Example:
        >>> x, black = jnp.full((1, 2, 2, 1), 0.25), jnp.zeros((1, 2, 2, 3))
        >>> composition_loss(x, black, jnp.ones_like(black), black, unknown=jnp.ones_like(x))
        Array([0.75], dtype=float32)

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017, eq. 3; Lu et al., Index Networks, TPAMI 2020, 6.1.
    """
    _check(x, x, unknown, margin)
    for name, colours in (("image", image), ("foreground", foreground), ("background", background)):
        check_features(name, colours, 3)
        check_shape(name, colours, (*x.shape[:3], 3))
    dtype = accum_dtype(x, image, foreground, background)
    mask = unknown.astype(bool)  # here too: the gradient has F and B as factors
    x, image, foreground, background = (jnp.where(mask, a.astype(dtype), 0) for a in (x, image, foreground, background))
    return _masked(x * foreground + (1 - x) * background - image, unknown, margin=margin)


@jit(static_argnames=("levels", "kernel_size", "sigma"))
def laplacian_loss(
    x: jax.Array, truth: jax.Array, *, levels: int = 5, kernel_size: int = 5, sigma: float = 2.0
) -> jax.Array:
    """Mean absolute difference of two mattes in every level of their Laplacian pyramids, added.

        z_0 = x - t,  z_(l+1) = means of 2 x 2 of G * z_l,  L = sum over l < n of mean |z_l - G * z_l| + mean |z_n|

    G is the sum, not the product, of exp(-i^2 / sigma^2) along both axes, normalised to sum 1; borders are repeated,
    and the last row or column of an odd size is dropped by the 2 x 2 means.

    Args:
        x: [B, H, W, C].
        truth: [B, H, W, C].
        levels: n, of the pyramid without the rest.
        kernel_size: odd.
        sigma: of G.

    Returns:
        [B], float32 or float64.

    Raises:
        ValueError: an image is not a floating-point [B, H, W, C] of at least 2^levels pixels each way, the shapes
            differ, or an option is out of its range.

    Example:
        >>> x = jnp.linspace(0, 1, 256).reshape(1, 16, 16, 1)
        >>> laplacian_loss(x + 0.5, x, levels=3).round(3)  # a constant is in the rest alone
        Array([0.5], dtype=float32)

    Reference:
        Hou and Liu, Context-Aware Image Matting, ICCV 2019, eq. 5; as the code of Dai et al., Learning Affinity-Aware
        Upsampling for Deep Image Matting, CVPR 2021, defines it.
    """
    check_features("x", x, jnp.shape(x)[-1] if jnp.ndim(x) else 1)
    check_features("truth", truth, x.shape[3])
    check_shape("truth", truth, x.shape)
    check_int("levels", levels)
    check_odd("kernel_size", kernel_size)
    check_positive("sigma", sigma)
    if min(x.shape[1:3]) < 2**levels:
        fail("x", f"at least {2**levels} x {2**levels} pixels for {levels} levels", f"shape {x.shape}")
    dtype = accum_dtype(x, truth)
    z = x.astype(dtype) - truth.astype(dtype)
    total = jnp.zeros(len(z), dtype)
    for _ in range(levels):
        smooth = _smoothed(z, kernel_size, sigma)
        total += _mean_abs(z - smooth)
        height, width = (n // 2 * 2 for n in z.shape[1:3])
        rows = smooth[:, 0:height:2, :width] + smooth[:, 1:height:2, :width]
        z = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
    return total + _mean_abs(z)


def hu_depth_loss(x: jax.Array, truth: jax.Array, *, alpha: float = 0.5, valid: jax.Array | None = None) -> jax.Array:
    """Hu et al.'s loss of depth maps: the sum of `hu_depth_terms`.

    Args:
        x: predicted depth [B, H, W, 1].
        truth: [B, H, W, 1].
        alpha: see `hu_depth_terms`.
        valid: see `hu_depth_terms`.

    Returns:
        [B], float32 or float64; it is negative where x is near the truth.

    Raises:
        ValueError: a map is not a floating-point [B, H, W, 1], the shapes differ, or alpha is not above 0.

    Example:
        >>> x = jnp.full((1, 4, 4, 1), 2.0)
        >>> hu_depth_loss(x, x).round(3)  # 3 ln 0.5
        Array([-2.079], dtype=float32)

    Reference:
        See `hu_depth_terms`.
    """
    terms = list(hu_depth_terms(x, truth, alpha=alpha, valid=valid).values())
    return sum(terms[1:], terms[0])


def hu_depth_terms(
    x: jax.Array, truth: jax.Array, *, alpha: float = 0.5, valid: jax.Array | None = None
) -> dict[str, jax.Array]:
    """The four terms of Hu et al.'s loss: depth, its gradients in both directions, and the normals of its surface.

        depth  = mean ln(|e| + alpha),   dx, dy = mean ln(|S e| + alpha) with S the Sobel filters,   e = x - t
        normal = mean |1 - cos(n(x), n(t))|,   n(z) = (-S_x z, -S_y z, 1)

    The filters are [[1, 0, -1], [2, 0, -2], [1, 0, -1]] and its transpose, as cross-correlations, not divided by 8.
    Outside of the image there are zeros, as in the official code, so that there are steps at its borders, which count.

    Args:
        x: predicted depth [B, H, W, 1].
        truth: [B, H, W, 1].
        alpha: above 0, against the infinity of the logarithm.
        valid: bool or numbers [B, H, W, 1], true or not zero where the truth is known. Depth counts there, the other
            terms where all pixels of the filter's window that are in the image are; a mean over no pixels is 0. What
            others hold, also NaN, has no effect. None: all pixels.

    Returns:
        {"depth", "dx", "dy", "normal"}: [B] each, float32 or float64.

    Raises:
        ValueError: a map is not a floating-point [B, H, W, 1], the shapes differ, or alpha is not above 0.

    Example:
        >>> x = jnp.full((1, 4, 4, 1), 2.0)
        >>> {name: float(term[0].round(3)) for name, term in hu_depth_terms(x, x + 0.5).items()}["depth"]
        0.0

    Reference:
        Hu et al., Revisiting Single Image Depth Estimation: Toward Higher Resolution Maps with Accurate Object
        Boundaries, WACV 2019, eqs. 2 to 5; as the official code has it, JunjH/Revisiting_Single_Depth_Estimation.
    """
    check_features("x", x, 1)
    check_features("truth", truth, 1)
    check_shape("truth", truth, x.shape)
    check_positive("alpha", alpha)
    if valid is not None:
        check_shape("valid", valid, x.shape)
    return _hu_terms(x, truth, valid, alpha=alpha)


@jit(static_argnames=("alpha",))
def _hu_terms(x: jax.Array, truth: jax.Array, valid: jax.Array | None, *, alpha: float) -> dict[str, jax.Array]:
    dtype = accum_dtype(x, truth)
    mask = jnp.ones(x.shape, bool) if valid is None else valid.astype(bool)
    x, truth = (jnp.where(mask, z.astype(dtype), 0) for z in (x, truth))
    known = _around(mask, True)
    whole = jnp.stack([known[i][j] for i in range(3) for j in range(3)]).all(0)
    (x_dx, x_dy), (t_dx, t_dy) = _sobel(x), _sobel(truth)
    lengths = jnp.sqrt((x_dx**2 + x_dy**2 + 1) * (t_dx**2 + t_dy**2 + 1))
    cosine = (x_dx * t_dx + x_dy * t_dy + 1) / lengths
    errors = {"depth": x - truth, "dx": x_dx - t_dx, "dy": x_dy - t_dy}
    found = {name: _mean(jnp.log(_abs(e) + alpha), whole if name != "depth" else mask) for name, e in errors.items()}
    return found | {"normal": _mean(_abs(1 - cosine), whole)}


def _around(z: jax.Array, outside: float) -> list[list[jax.Array]]:
    """The neighbours of every pixel, rows of three from the upper left."""
    padded = jnp.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    return [[padded[:, i : i + z.shape[1], j : j + z.shape[2]] for j in range(3)] for i in range(3)]


def _sobel(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    (a, b, c), (d, _, f), (g, h, i) = _around(z, 0)
    return (a + 2 * d + g) - (c + 2 * f + i), (a + 2 * b + c) - (g + 2 * h + i)


def _mean(z: jax.Array, mask: jax.Array) -> jax.Array:
    count = jnp.sum(mask, axis=(1, 2, 3)).astype(z.dtype)
    return jnp.sum(jnp.where(mask, z, 0), axis=(1, 2, 3)) / jnp.maximum(count, 1)


def _mean_abs(z: jax.Array) -> jax.Array:
    return jnp.mean(_abs(z), axis=(1, 2, 3))


def _abs(z: jax.Array) -> jax.Array:
    """Its derivative at zero is zero."""
    return jnp.sign(z) * z


def _smoothed(z: jax.Array, size: int, sigma: float) -> jax.Array:
    """G * z."""
    radius, channels = size // 2, z.shape[3]
    profile = np.exp(-((np.arange(size) - radius) ** 2) / sigma**2)
    weights = profile[:, None] + profile
    kernel = jnp.asarray(weights / weights.sum(), z.dtype)[..., None, None]
    for axis in (1, 2):
        inside = np.arange(-radius, z.shape[axis] + radius).clip(0, z.shape[axis] - 1)
        z = jnp.take(z, jnp.asarray(inside, jnp.int32), axis=axis)
    return jax.lax.conv_general_dilated(
        z,
        jnp.repeat(kernel, channels, axis=3),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=jax.lax.Precision.HIGHEST,
    )


@jit(static_argnames=("margin",))
def _masked(error: jax.Array, unknown: jax.Array, *, margin: float) -> jax.Array:
    """Sum of s over pixels and channels, by the number of unknown pixels and the margin."""
    mask = unknown.astype(bool)
    smooth = jnp.sqrt(jnp.where(mask, error, 0) ** 2 + _SMOOTHING**2)
    count = jnp.sum(mask, axis=(1, 2, 3)).astype(error.dtype) + margin
    none = count == 0  # where the quotient has no finite derivative
    return jnp.where(none, jnp.inf, jnp.sum(smooth, axis=(1, 2, 3)) / jnp.where(none, 1, count))


def _check(x: jax.Array, truth: jax.Array, unknown: jax.Array, margin: float) -> None:
    check_features("x", x, 1)
    check_features("truth", truth, 1)
    check_shape("truth", truth, x.shape)
    check_shape("unknown", unknown, x.shape)
    if not margin >= 0:
        fail("margin", "a number >= 0", repr(margin))
