"""Errors of depth maps where the truth is known: per image as jitted functions, and their means over a set."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_choice, check_features, check_shape, fail, jit

CONVENTIONS = ("hu", "fastdepth")
_MEANS = (*CONVENTIONS, "pixels")
_ROOTS = ("rmse", "irmse")


@jit(static_argnames=("convention",))
def depth_errors(
    x: jax.Array, truth: jax.Array, *, valid: jax.Array | None = None, convention: str = "hu"
) -> dict[str, jax.Array]:
    """Errors of each depth map, means over its valid pixels.

        mse = mean (x - t)^2,  rmse = sqrt(mse),  mae = mean |x - t|,  rel = mean |x - t| / t,
        log10 = mean |log10 x - log10 t|,  irmse = sqrt(mean (1/x - 1/t)^2),  imae = mean |1/x - 1/t|,
        delta_k = share of pixels with max(x/t, t/x) <= 1.25^k ("hu"), or < 1.25^k ("fastdepth")

    Args:
        x: predicted depth [B, H, W, 1], in the unit of `truth`.
        truth: [B, H, W, 1].
        valid: bool or numbers [B, H, W, 1], true or not zero at the pixels that count; what the others hold has no
            effect. None: those that the public code of the convention counts, "hu" where t is no NaN, "fastdepth" where
            t > 0 *or* x > 0: there, a hole (t = 0) with a positive prediction counts, and rel is infinite.
        convention: "hu" or "fastdepth".

    Returns:
        "mse", "rmse", "mae", "rel", "log10", "delta1", "delta2", "delta3", "irmse", "imae", and "pixels", the number
        of valid pixels: each [B], float32 or float64. Where there are none, NaN with a gradient of zero.

    Raises:
        ValueError: a map is not a floating-point [B, H, W, 1], the shapes differ, or an unknown convention.

    Example:
        >>> x, truth = jnp.full((1, 2, 2, 1), 5.0), jnp.full((1, 2, 2, 1), 4.0)
        >>> errors = depth_errors(x, truth)
        >>> errors["rel"], errors["delta1"], depth_errors(x, truth, convention="fastdepth")["delta1"]
        (Array([0.25], dtype=float32), Array([1.], dtype=float32), Array([0.], dtype=float32))

    Reference:
        Eigen et al., Depth Map Prediction from a Single Image, NIPS 2014; Wofk et al., FastDepth, ICRA 2019; Hu et al.,
        Revisiting Single Image Depth Estimation, WACV 2019.
    """
    check_choice("convention", convention, CONVENTIONS)
    check_features("x", x, 1)
    check_features("truth", truth, 1)
    check_shape("truth", truth, x.shape)
    if valid is not None:
        check_shape("valid", valid, x.shape)
    dtype = accum_dtype(x, truth)
    x, truth = x.astype(dtype), truth.astype(dtype)
    measured = ~jnp.isnan(truth) if convention == "hu" else (truth > 0) | (x > 0)
    mask = measured if valid is None else valid.astype(bool)
    x, truth = jnp.where(mask, x, 1), jnp.where(mask, truth, 1)  # a pair without any error, and with finite derivatives
    count = jnp.sum(mask, axis=(1, 2, 3)).astype(dtype)

    def mean(z: jax.Array) -> jax.Array:
        return jnp.where(count == 0, jnp.nan, jnp.sum(jnp.where(mask, z, 0), axis=(1, 2, 3)) / jnp.maximum(count, 1))

    ratio = jnp.maximum(x / truth, truth / x)
    below = jnp.less_equal if convention == "hu" else jnp.less
    inverse = (truth - x) / (x * truth)  # 1/x - 1/t, without its cancellation
    errors = {"mse": mean((x - truth) ** 2), "mae": mean(jnp.abs(x - truth))}
    errors |= {"rmse": _root(errors["mse"]), "rel": mean(jnp.abs(x - truth) / truth)}
    errors |= {"log10": mean(jnp.abs(jnp.log10(x) - jnp.log10(truth)))}
    errors |= {f"delta{k}": mean(below(ratio, 1.25**k).astype(dtype)) for k in (1, 2, 3)}
    return errors | {"irmse": _root(mean(inverse**2)), "imae": mean(jnp.abs(inverse)), "pixels": count}


def depth_scores(errors: Mapping[str, np.ndarray], *, convention: str = "hu") -> dict[str, float]:
    """Means over a set of images of the numbers of `depth_errors`.

    "fastdepth": means over the images, also of their rmse. "hu": means over the images, but rmse and irmse are roots of
    means of squares. "pixels": so, too, but over all pixels of all images, as Index Networks, 6.4, writes. Images
    without valid pixels do not count.

    Args:
        errors: numbers of N images by name, each [N], of which "pixels" says what counts.
        convention: "hu", "fastdepth" or "pixels".

    Returns:
        A number for each name; the sum for "pixels". NaN where no image counts.

    Raises:
        ValueError: no "pixels", arrays of different lengths, or an unknown convention.

    Example:
        >>> errors = {"rmse": np.array([1.0, 3.0]), "pixels": np.array([4, 4])}
        >>> depth_scores(errors, convention="fastdepth")["rmse"], round(depth_scores(errors)["rmse"], 3)
        (2.0, 2.236)

    Reference:
        The evaluations of Wofk et al., FastDepth, ICRA 2019, and Hu et al., WACV 2019.
    """
    check_choice("convention", convention, _MEANS)
    if "pixels" not in errors:
        fail("errors", "an entry 'pixels'", sorted(errors))
    pixels = np.asarray(errors["pixels"], np.float64)
    weights = pixels if convention == "pixels" else (pixels > 0).astype(np.float64)

    def mean(name: str) -> float:
        check_shape(name, jnp.asarray(errors[name]), pixels.shape)
        values = np.asarray(errors[name], np.float64)[weights > 0]
        if not values.size:
            return float("nan")
        power = 2 if name in _ROOTS and convention != "fastdepth" else 1
        return float(np.average(values**power, weights=weights[weights > 0]) ** (1 / power))

    return {name: mean(name) for name in errors if name != "pixels"} | {"pixels": float(pixels.sum())}


def _root(x: jax.Array) -> jax.Array:
    """The square root, with a gradient of zero at zero."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))
