"""Errors of alpha mattes in the unknown region of the trimap, in the scales of the tables that papers print.

Alphas are floating [B, H, W, 1] in 0 .. 1. Two public evaluations differ: "matlab", whose numbers papers report, takes
alphas of 8 bits as they are (floor(255 x) / 255, to be compared with them); "python" first stretches the least and the
largest alpha of each image to 0 and 1, for all four errors, and a constant image to 0; it also has another gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_choice, check_features, check_shape, jit

Array = Any  # of NumPy or of JAX
CONVENTIONS = ("matlab", "python")
_SIGMA = 1.4  # of the Gaussian of the gradient
_THRESHOLDS = range(1, 11)  # tenths
_ROUNDING = 1e-6  # by which an alpha may miss a threshold: 51 / 255 reaches 0.2
_LEAST_DISTANCE = 0.15  # from the level of connection that counts


@jit(static_argnames=("convention",))
def sad_error(x: jax.Array, truth: jax.Array, *, unknown: jax.Array, convention: str = "matlab") -> jax.Array:
    """Sum of absolute differences in the unknown region U, sum over U of |x - t| / 1000.

    Args:
        x: predicted alpha [B, H, W, 1].
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U.
        convention: "matlab", or "python", which stretches both alphas first.

    Returns:
        [B], float32 or float64.

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> x = jnp.full((1, 50, 40, 1), 0.25)
        >>> sad_error(x, jnp.zeros_like(x), unknown=jnp.ones_like(x))
        Array([0.5], dtype=float32)

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
    """
    x, truth, mask = _prepared(x, truth, unknown, convention)
    return _sum(jnp.abs(x - truth), mask) / 1000


@jit(static_argnames=("convention",))
def mse_error(x: jax.Array, truth: jax.Array, *, unknown: jax.Array, convention: str = "matlab") -> jax.Array:
    """Mean of squared differences in the unknown region U, mean over U of (x - t)^2.

    Args:
        x: predicted alpha [B, H, W, 1].
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U.
        convention: "matlab", or "python", which stretches both alphas first.

    Returns:
        [B], float32 or float64; NaN, with a gradient of zero, for an image without unknown pixels.

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> x = jnp.full((1, 2, 2, 1), 0.5)
        >>> mse_error(x, jnp.zeros_like(x), unknown=jnp.ones_like(x))
        Array([0.25], dtype=float32)

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
    """
    x, truth, mask = _prepared(x, truth, unknown, convention)
    count = jnp.sum(mask, axis=(1, 2, 3)).astype(x.dtype)
    return jnp.where(count == 0, jnp.nan, _sum((x - truth) ** 2, mask) / jnp.maximum(count, 1))


@jit(static_argnames=("convention",))
def gradient_error(x: jax.Array, truth: jax.Array, *, unknown: jax.Array, convention: str = "matlab") -> jax.Array:
    r"""Difference of the gradients in the unknown region U, sum over U of (|grad x| - |grad t|)^2 / 1000, or / 10.

    Both alphas are first stretched to 0 .. 1. The gradient is that of a Gaussian of standard deviation 1.4:

        "matlab": filters g(i) g'(j) of 9 x 9, divided by their L2 norm; borders repeated; / 1000
        "python": g and g' of radius 6, g normalised to sum 1; borders mirrored; / 10

    Args:
        x: predicted alpha [B, H, W, 1].
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U.
        convention: "matlab" or "python".

    Returns:
        [B], float32 or float64.

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> x = jnp.linspace(0, 1, 256).reshape(1, 16, 16, 1)
        >>> gradient_error(x, 0.5 * x, unknown=jnp.ones_like(x)).round(6)  # they are the same when stretched
        Array([0.], dtype=float32)

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009, eq. 1.
    """
    x, truth, mask = _prepared(x, truth, unknown, convention)
    if convention == "matlab":
        x, truth = _stretched(x), _stretched(truth)
    difference = _slope(x, convention) - _slope(truth, convention)
    return _sum(difference**2, mask) / (1000 if convention == "matlab" else 10)


def connectivity_error(
    x: np.ndarray, truth: np.ndarray, *, unknown: np.ndarray, convention: str = "matlab"
) -> np.ndarray:
    """Difference of how well pixels are connected to the source region, sum over U of |phi_x - phi_t| / 1000.

    For t = 0.1, 0.2, .. 1 the source is the largest component (of 4 neighbours) of {x >= t and truth >= t}, if there is
    one. The level l of a pixel is the threshold before the first t at which it is outside of it, or 1, and

        phi_a = 1 - d [d >= 0.15],    d = a - l

    Of components of one size the first counts: by columns in "matlab", by rows in "python", which stretches both alphas
    first. Computed by SciPy, outside of any jit.

    Args:
        x: predicted alpha [B, H, W, 1].
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero in U.
        convention: "matlab" or "python".

    Returns:
        float64 [B].

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> truth = np.ones((1, 4, 300, 1))
        >>> truth[:, :, 200:] = 0
        >>> x = truth.copy()
        >>> x[:, :, 250:] = 0.5  # a part that touches nothing
        >>> connectivity_error(x, truth, unknown=np.ones_like(x)).round(3)
        array([0.1])

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009, eq. 2.
    """
    _check(x, truth, unknown, convention)
    arrays = (np.asarray(a, np.float64)[..., 0] for a in (x, truth, np.asarray(unknown).astype(bool)))
    images = zip(*arrays, strict=True)
    return np.array([_disconnection(a, t, u > 0, convention) for a, t, u in images], np.float64) / 1000


def matting_errors(
    x: np.ndarray, truth: np.ndarray, *, unknown: np.ndarray, convention: str = "matlab"
) -> dict[str, np.ndarray]:
    """All four errors of alpha mattes in the unknown region, as in the tables of papers.

    Args:
        x: predicted alpha [B, H, W, 1].
        truth: [B, H, W, 1].
        unknown: bool or numbers [B, H, W, 1], true or not zero where errors count.
        convention: "matlab", or "python", which stretches both alphas first.

    Returns:
        "SAD", "MSE", "Grad" and "Conn", each [B]: see `sad_error`, `mse_error`, `gradient_error`, `connectivity_error`.

    Raises:
        ValueError: an alpha is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> x = np.full((1, 50, 40, 1), 0.25)
        >>> matting_errors(x, np.zeros_like(x), unknown=np.ones_like(x))["MSE"]
        array([0.0625], dtype=float32)

    Reference:
        Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
    """
    measures: dict[str, Callable[..., Any]] = {
        "SAD": sad_error,
        "MSE": mse_error,
        "Grad": gradient_error,
        "Conn": connectivity_error,
    }
    return {
        name: np.asarray(measure(x, truth, unknown=unknown, convention=convention))
        for name, measure in measures.items()
    }


def _check(x: Array, truth: Array, unknown: Array, convention: str) -> None:
    check_choice("convention", convention, CONVENTIONS)
    check_features("x", x, 1)
    check_features("truth", truth, 1)
    check_shape("truth", truth, x.shape)
    check_shape("unknown", unknown, x.shape)


def _prepared(
    x: jax.Array, truth: jax.Array, unknown: jax.Array, convention: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    _check(x, truth, unknown, convention)
    dtype = accum_dtype(x, truth)
    x, truth = x.astype(dtype), truth.astype(dtype)
    if convention == "python":
        x, truth = _stretched(x), _stretched(truth)
    return x, truth, unknown.astype(bool)


def _stretched(x: Array) -> jax.Array:
    """The least and the largest number of each image become 0 and 1; zeros where they are equal."""
    low, high = x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True)
    constant = high == low
    return jnp.where(constant, 0, (x - low) / jnp.where(constant, 1, high - low))


def _sum(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0), axis=(1, 2, 3))


def _slope(x: jax.Array, convention: str) -> jax.Array:
    """The length of the gradient; its derivative is zero where it vanishes."""
    smooth, slope, mode = _filters(convention)
    down, across = (
        _filtered(_filtered(x, first, 1, mode), second, 2, mode) for first, second in ((slope, smooth), (smooth, slope))
    )
    square = down**2 + across**2
    flat = square == 0
    return jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, square)))


def _filters(convention: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Two profiles, of the Gaussian and of its derivative, and what is beyond the border."""
    matlab = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * 0.01)))
    radius = matlab if convention == "matlab" else int(4 * _SIGMA + 0.5)
    i = np.arange(-radius, radius + 1)
    smooth = np.exp(-(i**2) / (2 * _SIGMA**2))
    smooth /= smooth.sum()
    slope = -i * smooth / _SIGMA**2
    if convention == "python":
        return smooth, slope, "symmetric"
    return smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope), "edge"


def _filtered(x: jax.Array, weights: np.ndarray, axis: int, mode: str) -> jax.Array:
    """Correlation along an axis; borders are gathered, which works for images smaller than the filter."""
    n, radius = x.shape[axis], len(weights) // 2
    place = np.arange(-radius, n + radius)
    inside = np.clip(place, 0, n - 1) if mode == "edge" else np.minimum(place % (2 * n), 2 * n - 1 - place % (2 * n))
    padded = jnp.take(x, jnp.asarray(inside, jnp.int32), axis=axis)
    kernel = jnp.asarray(weights, x.dtype).reshape((-1, 1, 1, 1) if axis == 1 else (1, -1, 1, 1))
    layout = ("NHWC", "HWIO", "NHWC")
    highest = jax.lax.Precision.HIGHEST
    return jax.lax.conv_general_dilated(padded, kernel, (1, 1), "VALID", dimension_numbers=layout, precision=highest)


def _disconnection(x: np.ndarray, truth: np.ndarray, unknown: np.ndarray, convention: str) -> float:
    """Of one image [H, W]."""
    if convention == "python":
        x, truth = (np.asarray(_stretched(a[None, :, :, None])[0, :, :, 0], np.float64) for a in (x, truth))
    level = _levels(x.T, truth.T).T if convention == "matlab" else _levels(x, truth)
    found, true = ((a - level) * (a - level >= _LEAST_DISTANCE) for a in (x, truth))
    return float(np.abs(found - true)[unknown].sum())


def _levels(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The threshold up to which a pixel belongs to the source region; components are numbered by rows."""
    from scipy import ndimage  # here, because it is slow to import

    level, both = np.ones_like(x), np.minimum(x, truth)
    unset = np.ones(x.shape, bool)
    for tenth in _THRESHOLDS:
        components, count = ndimage.label(both >= tenth / 10 - _ROUNDING)
        if not count:
            break  # nor has a larger threshold any
        source = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
        level[unset & ~source] = (tenth - 1) / 10
        unset &= source
    return level
