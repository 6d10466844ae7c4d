"""Measures of images against ground truth: one number per image, as jitted functions that differentiate.

Arguments are floating [B, H, W, C] of equal shapes, in the unit of `data_range`; sums are in float32, or in float64 if
either image is. A NaN or infinite pixel spoils the number of its image, unless `valid` leaves it out. Gradients are
finite, also where two images are equal.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxup._checks import accum_dtype, check_choice, check_image, check_positive, check_shape, fail
from jaxup.ops.filters import box_filter, gaussian_filter

# Radius of the window, and the share of the covariance of its pixels that counts: of all, or of a sample.
_WINDOWS = {"gaussian": (5, 1.0), "uniform": (3, 49 / 48)}
_SIGMA = 1.5


def mae(x: jax.Array, truth: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Mean absolute error, mean |x - t| over pixels and channels.

    Args:
        x: [B, H, W, C].
        truth: [B, H, W, C].
        valid: bool or numbers [B, H, W, 1], true or not zero at the pixels that count; None for all. What the others
            hold, also NaN, has no effect on the value or the gradient.

    Returns:
        [B], float32 or float64; NaN, with a gradient of zero, for an image without any valid pixel.

    Raises:
        ValueError: an image is not a floating-point [B, H, W, C], or the shapes differ or do not fit that of `valid`.

    Example:
        >>> mae(jnp.full((1, 2, 2, 1), 0.75), jnp.ones((1, 2, 2, 1)))
        Array([0.25], dtype=float32)

    Reference:
        Willmott and Matsuura, Advantages of the mean absolute error over the root mean square error, 2005.
    """
    return _mean(jnp.abs(_difference(x, truth, valid)), valid)


def rmse(x: jax.Array, truth: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """Root of the mean squared error, sqrt(mean (x - t)^2) over pixels and channels.

    The gradient is zero where the images are equal.

    Args:
        x: [B, H, W, C].
        truth: [B, H, W, C].
        valid: bool or numbers [B, H, W, 1], true or not zero at the pixels that count; None for all. What the others
            hold, also NaN, has no effect on the value or the gradient.

    Returns:
        [B], float32 or float64; NaN, with a gradient of zero, for an image without any valid pixel.

    Raises:
        ValueError: an image is not a floating-point [B, H, W, C], or the shapes differ or do not fit that of `valid`.

    Example:
        >>> rmse(jnp.full((1, 2, 2, 1), 0.75), jnp.ones((1, 2, 2, 1)))
        Array([0.25], dtype=float32)

    Reference:
        Willmott and Matsuura, Advantages of the mean absolute error over the root mean square error, 2005.
    """
    mse = _mean(_difference(x, truth, valid) ** 2, valid)
    equal = mse == 0  # where the root has no finite derivative
    return jnp.where(equal, 0, jnp.sqrt(jnp.where(equal, 1, mse)))


def psnr(x: jax.Array, truth: jax.Array, *, data_range: float = 1.0) -> jax.Array:
    """Peak signal-to-noise ratio in dB, 10 log10(L^2 / mean (x - t)^2) over pixels and channels.

    Args:
        x: [B, H, W, C].
        truth: [B, H, W, C].
        data_range: L, the span of possible values: 1, or 255.

    Returns:
        [B], float32 or float64; infinite, with a gradient of zero, where the images are equal.

    Raises:
        ValueError: an image is not a floating-point [B, H, W, C], the shapes differ, or `data_range` is not positive.

    Example:
        >>> psnr(jnp.full((1, 2, 2, 1), 0.9), jnp.ones((1, 2, 2, 1))).round(3)
        Array([20.], dtype=float32)

    Reference:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004. As
        `skimage.metrics.peak_signal_noise_ratio`.
    """
    check_positive("data_range", data_range)
    mse = _mean(_difference(x, truth) ** 2)
    equal = mse == 0
    return jnp.where(equal, jnp.inf, 10 * jnp.log10(data_range**2 / jnp.where(equal, 1, mse)))


def ssim(x: jax.Array, truth: jax.Array, *, data_range: float = 1.0, window: str = "gaussian") -> jax.Array:
    r"""Mean structural similarity, at most 1.

        SSIM(p) = (2 m_x m_t + C1) (2 s_xt + C2) / ((m_x^2 + m_t^2 + C1) (s_x^2 + s_t^2 + C2)),
        C1 = (0.01 L)^2,  C2 = (0.03 L)^2

    with means m, variances s^2 and covariance s_xt in a window around p; the mean over channels and all p whose window
    lies inside the image. "gaussian" is the paper's window of 11 x 11 pixels with standard deviation 1.5; "uniform" has
    7 x 7 equal weights and the variances of a sample (divided by 48), the default of scikit-image. E[x x] - E[x]^2
    cancels in float32: variances are taken about each image's mean, and with mean and variance of d = x - t it is

        SSIM(p) = (1 - m_d^2 / (m_x^2 + m_t^2 + C1)) (1 - s_d^2 / (s_x^2 + s_t^2 + C2))

    Args:
        x: [B, H, W, C].
        truth: [B, H, W, C].
        data_range: L, the span of possible values: 1, or 255.
        window: "gaussian" or "uniform".

    Returns:
        [B], float32 or float64.

    Raises:
        ValueError: an image is not a floating-point [B, H, W, C] or smaller than the window, the shapes differ,
            `data_range` is not positive, or `window` is unknown.

    Example:
        >>> x = jnp.linspace(0, 1, 144).reshape(1, 12, 12, 1)
        >>> ssim(x, x), float(ssim(x, 1 - x)[0]) < 0
        (Array([1.], dtype=float32), True)

    Reference:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004, Eq. 13. As
        `skimage.metrics.structural_similarity`, "gaussian" with `gaussian_weights=True, use_sample_covariance=False`.
    """
    _difference(x, truth)
    check_positive("data_range", data_range)
    check_choice("window", window, _WINDOWS)
    size = 2 * _WINDOWS[window][0] + 1
    if min(x.shape[1:3]) < size:
        fail("x", f"at least {size} x {size} pixels", f"shape {x.shape}")
    dtype = accum_dtype(x, truth)
    similarity: jax.Array = _ssim(x.astype(dtype), truth.astype(dtype), jnp.asarray(data_range, dtype), window)
    return similarity


@partial(jax.jit, static_argnums=3)
def _ssim(x: jax.Array, truth: jax.Array, data_range: jax.Array, window: str) -> jax.Array:
    radius, sample = _WINDOWS[window]

    def mean(z: jax.Array) -> jax.Array:
        z = gaussian_filter(z, sigma=_SIGMA, radius=radius) if window == "gaussian" else box_filter(z, radius=radius)
        return z[:, radius:-radius, radius:-radius]

    def moments(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means and variances in windows."""
        centre = jnp.mean(z, axis=(1, 2), keepdims=True)
        m = mean(z - centre)
        return m + centre, sample * (mean((z - centre) ** 2) - m**2)

    (mx, xx), (mt, tt), (md, dd) = map(moments, (x, truth, x - truth))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = md**2 / (mx**2 + mt**2 + c1)
    structure = dd / (xx + tt + c2)
    # What is missing to 1 is small, and so is what rounding loses of its sum.
    return 1 - jnp.mean(luminance + structure - luminance * structure, axis=(1, 2, 3))


def _mean(x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Over what is valid, of an `x` that is zero elsewhere."""
    if valid is None:
        return jnp.mean(x, axis=(1, 2, 3))
    count = x.shape[3] * jnp.sum(valid.astype(bool), axis=(1, 2, 3))
    return jnp.sum(x, axis=(1, 2, 3)) / count.astype(x.dtype)


def _difference(x: jax.Array, truth: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """After checks of all; zero where it does not count."""
    check_image("x", x)
    check_image("truth", truth)
    check_shape("truth", truth, x.shape)
    dtype = accum_dtype(x, truth)
    difference = x.astype(dtype) - truth.astype(dtype)
    if valid is None:
        return difference
    check_shape("valid", valid, (*x.shape[:3], 1))
    return jnp.where(valid.astype(bool), difference, 0)
