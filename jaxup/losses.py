"""Losses of matting and of depth estimation: one number per image, as jitted functions that differentiate.

Arguments are floating [B, H, W, C]; sums are in float32, or in float64 if any of them is. Take the mean over the batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_features, check_int, check_odd, check_positive, check_shape, fail, jit

__all__ = ["alpha_loss", "composition_loss", "laplacian_loss"]

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


def _mean_abs(z: jax.Array) -> jax.Array:
    """Its derivative at zero is zero."""
    return jnp.mean(jnp.sign(z) * z, axis=(1, 2, 3))


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
