"""Depth by a Markov random field whose links follow the image: one sparse linear system."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Ratio, check_choice, check_int, check_positive, jit
from jaxup.ops.filters import Number, check_scalar, falloff
from jaxup.solvers.linear import (
    NEIGHBOURS,
    Links,
    Progress,
    Report,
    conjugate_gradients,
    degree,
    inside,
    laplacian,
    least_squares,
    squared_steps,
)
from jaxup.solvers.samples import fill, prepare, upsample

FORMS = ("paper", "official")
# Added to every link, so that parts of an image behind strong edges are not cut off from all data.
_LEAST = 1e-6


def mrf_interpolate(
    x: jax.Array,
    guide: jax.Array,
    *,
    confidence: jax.Array | None = None,
    smoothness: Number = 0.01,
    sigma: Number = 0.03,
    form: str = "paper",
    iterations: int = 1000,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
    report: bool = False,
) -> Any:
    r"""Depth from measured pixels, smooth where the image is: the mode of a Gaussian Markov random field.

        min_u  sum_p c_p (u_p - x_p)^2 + lambda sum_{pq} e_pq (u_p - u_q)^2,    e_pq = exp(-|g_p - g_q|^2 / (2 sigma^2))

    over the pairs of 4-neighbours, that is (diag(c) + lambda L) u = c x with L the Laplacian of the links e + 1e-6.
    `form="official"` is what a public MATLAB version solves, which is not the authors': its links are without the 1e-6,
    the sum over all neighbours of a pixel is squared, and data counts by the square of the depth itself,

        min_u  sum_p c_p (x_p / max x)^2 (u_p - x_p)^2 + lambda |L u|^2

    Stopping rule: conjugate gradients, with the diagonal as preconditioner, from block means of the data, end when the
    residual is `tolerance` of the right-hand side, whose data has its mean taken off, or after `iterations`. Time and
    memory are proportional to the pixels. Differentiable in all arrays and numbers, by the implicit rule.

    Args:
        x: [B, H, W, C]; what stands where the confidence is zero does not count, NaN included.
        guide: [B, H, W, G]; |.| is the Euclidean norm over its channels.
        confidence: c, [B, H, W, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        smoothness: lambda > 0; it may be traced, as may sigma.
        sigma: in the guide's unit, > 0.
        form: "paper" or "official".
        iterations: most steps.
        tolerance: of the relative residual.
        progress: called with the number of steps and `iterations` while it runs.
        report: return how the solve ended, too.

    Returns:
        [B, H, W, C] in the dtype of x; computed in float32, or float64 if an input is. With `report` a pair of this and
        `Report(steps, residual, converged)`, arrays [B]. Where nothing was measured the links alone decide; an image
        without any confidence gives zeros. A NaN elsewhere spoils its image, which has then not converged.

    Raises:
        ValueError: maps whose shapes do not fit, or a wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> x = jnp.array([2.0, 0.0, 0.0, 0.0, 8.0, 0.0]).reshape(1, 1, 6, 1)
        >>> mrf_interpolate(x, guide, confidence=(x > 0).astype(x.dtype)).round(2).ravel()
        Array([2., 2., 2., 8., 8., 8.], dtype=float32)

    Reference:
        Diebel and Thrun, An Application of Markov Random Fields to Range Sensing, NIPS 2005. The official form:
        sebdi/Depth-Super-Resolution.
    """
    maps = prepare(x, guide, confidence)
    check_scalar("smoothness", smoothness)
    check_scalar("sigma", sigma)
    check_choice("form", form, FORMS)
    check_positive("tolerance", tolerance)
    numbers = jnp.asarray(smoothness, maps[0].dtype), falloff(sigma, maps[0].dtype)
    u, ended = _solve(*maps, *numbers, form, check_int("iterations", iterations), float(tolerance), progress)
    u = u.astype(jnp.result_type(x))
    return (u, ended) if report else u


def mrf_upsample(
    x: jax.Array, guide: jax.Array, *, scale: Ratio | None = None, confidence: jax.Array | None = None, **options: Any
) -> Any:
    """Upsample under a guide: `mrf_interpolate` with the low-resolution pixels at the centres of their blocks.

    A centre between pixels is divided among those around it by bilinear weights.

    Args:
        x: [B, h, w, C].
        guide: [B, sy*h, sx*w, G].
        scale: a number >= 1 that makes whole pixels (7.5, say), or a pair (vertical, horizontal); None takes the ratio
            of the sizes.
        confidence: [B, h, w, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        options: those of `mrf_interpolate`.

    Returns:
        [B, sy*h, sx*w, C] in the dtype of x, and with `report` how the solve ended.

    Raises:
        ValueError: a guide that is not `scale` times as large as `x`, and as `mrf_interpolate`.

    Example:
        >>> import jax.numpy as jnp
        >>> mrf_upsample(jnp.ones((1, 3, 4, 1)), jnp.zeros((1, 6, 8, 3)), scale=2).shape
        (1, 6, 8, 1)

    Reference:
        Diebel and Thrun, An Application of Markov Random Fields to Range Sensing, NIPS 2005.
    """
    return upsample(mrf_interpolate, x, guide, scale, confidence, options)


@jit(static_argnums=(5, 6, 7, 8))
def _solve(
    data: jax.Array,
    guide: jax.Array,
    weight: jax.Array,
    smoothness: jax.Array,
    near: jax.Array,
    form: str,
    iterations: int,
    tolerance: float,
    progress: Progress | None,
) -> tuple[jax.Array, Report]:
    links, start = {}, fill(data, weight)
    for offset in NEIGHBOURS[4]:
        alike = jnp.exp(-near * squared_steps(guide, offset)) + (_LEAST if form == "paper" else 0)
        links[offset] = jnp.where(inside(guide.shape[2:], offset), alike, 0)
    stopping: dict[str, Any] = dict(tolerance=tolerance, iterations=iterations, progress=progress)
    if form == "paper":
        links = {offset: smoothness * w for offset, w in links.items()}
        u, ended = least_squares(partial(laplacian, links), degree(links), weight, data, start, **stopping)
    else:
        u, ended = _squared(links, weight, data, start, smoothness, stopping)
    return jnp.moveaxis(u, 1, 3), ended


def _squared(
    links: Links, weight: jax.Array, data: jax.Array, start: jax.Array, smoothness: jax.Array, stopping: dict[str, Any]
) -> tuple[jax.Array, Report]:
    """(lambda L^2 + diag(c d^2)) u = c d^2 x, with d = x / max x."""
    top = jnp.max(data, axis=(2, 3), keepdims=True)
    weight = weight * (data / jnp.where(top == 0, 1, top)) ** 2
    squares = degree(links) ** 2 + degree({offset: w**2 for offset, w in links.items()})
    diagonal = weight + smoothness * squares

    def system(u: jax.Array) -> jax.Array:
        return weight * u + smoothness * laplacian(links, laplacian(links, u))

    return conjugate_gradients(
        system, weight * data, start, lambda r: r / jnp.where(diagonal > 0, diagonal, 1), **stopping
    )
