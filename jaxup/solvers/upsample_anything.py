"""A bilateral filter fitted to one image by gradient descent, and applied to any map of it (Upsample Anything)."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, check_image, check_int, check_positive, check_shape, pair
from jaxup.ops.anisotropic import anisotropic_bilateral_upsample
from jaxup.ops.steps import resize_in_steps

_RATE = 0.1
_DECAY = (1e-9 / 1e-1) ** (1 / 5100)  # of the rate, from step to step
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of Adam


class BilateralFit(NamedTuple):
    """Four numbers of each cell, [B, h, w, 1] each, from which its Gaussian follows, and how the fit went.

    Args:
        sigma_x: logarithm of the deviation along the first axis, in pixels.
        sigma_y: along the second one.
        theta: the first axis' angle is pi times its hyperbolic tangent.
        sigma_range: logarithm of the deviation in colours.
        loss: [steps], mean absolute error of the image before each step.

    Returns:
        A named tuple.

    Example:
        >>> fit_bilateral(jnp.ones((1, 4, 4, 3)), size=2, steps=1, radius=1).sigma_range.shape
        (1, 2, 2, 1)

    Reference:
        As `fit_bilateral`.
    """

    sigma_x: jax.Array
    sigma_y: jax.Array
    theta: jax.Array
    sigma_range: jax.Array
    loss: jax.Array

    def apply(self, x: jax.Array, guide: jax.Array, **options: Any) -> jax.Array:
        """The map x [B, h, w, C] enlarged under the guide; `options` of `ops.anisotropic_bilateral_upsample`."""
        return _apply(self[:4], x, guide, **options)


Raw = tuple[jax.Array, ...]


def _apply(raw: Raw, x: jax.Array, guide: jax.Array, **options: Any) -> jax.Array:
    sigma_x, sigma_y, theta, sigma_range = raw
    kernels = (jnp.exp(sigma_x), jnp.exp(sigma_y), jnp.pi * jnp.tanh(theta), jnp.exp(sigma_range))
    return anisotropic_bilateral_upsample(x, guide, *kernels, **options)


def fit_bilateral(
    guide: jax.Array,
    *,
    size: int | Pair,
    scale: float | tuple[float, float] | None = None,
    steps: int = 51,
    sigma_spatial: float = 16.0,
    sigma_range: float = 0.12,
    radius: int = 8,
) -> BilateralFit:
    r"""Fit the cells' Gaussians of a joint bilateral filter to an image: enlarging its reduction is to give it back.

        min  mean |filter(reduce(guide), guide) - guide|

    over the four maps of `BilateralFit`, by Adam of rate 0.1 0.996^t. Nothing is random, and images of a batch do not
    see each other. The fit is chaotic: rounding decides where many steps end, the loss less so.

    Args:
        guide: [B, H, W, C], in 0 .. 1.
        size: of the grid of cells (h, w).
        scale: pixels of a cell, a number or a pair (vertical, horizontal); None: the ratio of the sizes.
        steps: of the descent.
        sigma_spatial: with which it begins, in pixels.
        sigma_range: with which it begins, in the guide's unit.
        radius: cells that the filter reaches to.

    Returns:
        The fit.

    Raises:
        ValueError: a guide that is not [B, H, W, C] of floating-point numbers, or a wrong option.

    Example:
        >>> fit = fit_bilateral(jnp.linspace(0, 1, 192).reshape(1, 8, 8, 3), size=4, steps=2, radius=2)
        >>> fit.theta.shape, bool(fit.loss[1] < fit.loss[0])
        ((1, 4, 4, 1), True)

    Reference:
        Seo et al., Upsample Anything: A Simple and Hard to Beat Baseline for Feature Upsampling, 2025.
    """
    check_image("guide", guide)
    for name, value in (("sigma_spatial", sigma_spatial), ("sigma_range", sigma_range)):
        check_positive(name, value)
    cells = pair("size", size)
    ratios = (guide.shape[1] / cells[0], guide.shape[2] / cells[1]) if scale is None else scale
    both = (float(ratios), float(ratios)) if isinstance(ratios, int | float) else tuple(map(float, ratios))
    start = (math.log(sigma_spatial), math.log(sigma_range))
    options = (cells, both, check_int("steps", steps, 0), start, check_int("radius", radius))
    raw, _, loss = _fit(guide, options)
    sigma_x, sigma_y, theta, colour = raw
    return BilateralFit(sigma_x, sigma_y, theta, colour, loss)


def upsample_anything(
    x: jax.Array,
    guide: jax.Array,
    *,
    scale: float | tuple[float, float] | None = None,
    steps: int = 51,
    sigma_spatial: float = 16.0,
    sigma_range: float = 0.12,
    radius: int = 8,
) -> jax.Array:
    """Enlarge features, probabilities or depth under an image by a filter that is fitted to this image.

    `fit_bilateral` of the guide on the grid of x, then `BilateralFit.apply`: no weights are needed. Outputs are
    averages of x. Differentiable in x alone; work and memory are linear in the pixels.

    Args:
        x: [B, h, w, C].
        guide: [B, H, W, Cg], in 0 .. 1.
        scale: pixels of a cell, a number or a pair (vertical, horizontal); None: the ratio of the sizes.
        steps: of the fit.
        sigma_spatial: with which it begins, in pixels.
        sigma_range: with which it begins, in the guide's unit.
        radius: cells that the filter reaches to.

    Returns:
        [B, H, W, C] in the dtype of x.

    Raises:
        ValueError: as `fit_bilateral`.

    Example:
        >>> x, guide = jnp.ones((1, 2, 2, 5)), jnp.linspace(0, 1, 48).reshape(1, 4, 4, 3)
        >>> upsample_anything(x, guide, steps=1, radius=1).shape
        (1, 4, 4, 5)

    Reference:
        Seo et al., Upsample Anything: A Simple and Hard to Beat Baseline for Feature Upsampling, 2025. The official
        repository, seominseok0429/Upsample-Anything, states no licence.
    """
    check_image("x", x)
    check_shape("guide", guide, (x.shape[0], None, None, None))
    guide = jax.lax.stop_gradient(guide)
    options: dict[str, Any] = dict(steps=steps, sigma_spatial=sigma_spatial, sigma_range=sigma_range)
    fit = fit_bilateral(guide, size=(x.shape[1], x.shape[2]), scale=scale, radius=radius, **options)
    return fit.apply(x, guide, scale=scale, radius=radius)


def reduced(guide: jax.Array, size: Pair, scale: tuple[float, ...]) -> jax.Array:
    """The image on the grid of cells, by cubic interpolation without antialiasing."""
    return resize_in_steps(guide, size=size, steps=scale)


@partial(jax.jit, static_argnums=1)
def _fit(guide: jax.Array, options: tuple[Any, ...]) -> tuple[Raw, Raw, jax.Array]:
    """The last parameters, those after each step, and the losses before each."""
    size, scale, steps, (spatial, colour), radius = options
    guide = guide.astype(accum_dtype(guide))
    low = reduced(guide, size, scale)

    def loss(raw: Raw) -> tuple[jax.Array, jax.Array]:
        error = jnp.abs(_apply(raw, low, guide, scale=scale, radius=radius) - guide).mean((1, 2, 3))
        return error.sum(), error.mean()

    def step(state: tuple[Raw, Raw, Raw], t: jax.Array) -> tuple[tuple[Raw, Raw, Raw], tuple[Raw, jax.Array]]:
        raw, first, second = state
        gradients, value = jax.grad(loss, has_aux=True)(raw)
        rate = (_RATE * _DECAY ** t.astype(guide.dtype)).astype(guide.dtype)
        updated = [_adam(*args, t + 1, rate) for args in zip(raw, gradients, first, second, strict=True)]
        raw, first, second = (tuple(x) for x in zip(*updated, strict=True))
        return (raw, first, second), (raw, value)

    like = jnp.zeros_like(guide, shape=(guide.shape[0], *size, 1))
    start: Raw = (like + spatial, like + spatial, like, like + colour)
    zeros: Raw = (like,) * 4
    (raw, *_), (history, losses) = jax.lax.scan(step, (start, zeros, zeros), jnp.arange(steps))
    return raw, history, losses


def _adam(
    x: jax.Array, gradient: jax.Array, first: jax.Array, second: jax.Array, t: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One update, the t-th: the parameter and both running means."""
    power, (b1, b2) = t.astype(x.dtype), _BETAS
    first = b1 * first + (1 - b1) * gradient
    second = b2 * second + (1 - b2) * gradient * gradient
    scale = jnp.sqrt(second) / jnp.sqrt(1 - b2**power) + _EPSILON
    return x - rate / (1 - b1**power) * first / scale, first, second
