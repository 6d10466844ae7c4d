"""The static and dynamic filter: links that follow the guide and the result itself, by majorise-minimise steps."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Ratio, check_choice, check_int, check_positive, jit
from jaxup.ops.filters import Number, check_scalar
from jaxup.solvers.linear import (
    NEIGHBOURS,
    Links,
    Progress,
    Report,
    degree,
    inside,
    laplacian,
    least_squares,
    squared_steps,
)
from jaxup.solvers.samples import fill, prepare, upsample

FORMS = ("paper", "official")
_LEAST = {"paper": 1e-6, "official": 1e-5}  # added to both factors of every link
# XYZ of linear RGB (ITU-R BT.709), and the white point that L*a*b* is relative to.
_XYZ = np.linalg.inv(
    [[3.240479, -1.53715, -0.498535], [-0.969256, 1.875992, 0.041556], [0.055648, -0.204043, 1.057311]]
)
_WHITE = np.array([0.950456, 1.0, 1.088754])


def sd_filter(
    x: jax.Array,
    guide: jax.Array,
    *,
    confidence: jax.Array | None = None,
    smoothness: Number = 0.1,
    mu: Number = 500.0,
    nu: Number = 200.0,
    steps: int = 5,
    neighbours: int = 4,
    form: str = "paper",
    iterations: int = 500,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
    report: bool = False,
) -> Any:
    r"""Smooth or interpolate under a static guide and, step by step, under the result itself.

        min_u  sum_p c_p (u_p - x_p)^2 + lambda sum_{pq} exp(-mu |g_p - g_q|^2) (1 - exp(-nu |u_p - u_q|^2)) / nu

    over pairs of neighbours. The penalty is not convex; each step replaces it by a quadratic above it that touches it
    at the u of the step before, and solves (diag(c) + lambda L_k) u = c x with the links

        w_pq = (exp(-mu |g_p - g_q|^2) + e) (exp(-nu |u_p - u_q|^2) + e),    e = 1e-6

    from a constant u, so that the first step follows the guide alone. `form="official"` is what the authors' code does:
    e is 1e-5; the squared differences of all links of an image are scaled to 0 .. 1 before mu and before nu; and guides
    and results of three channels are taken as RGB and compared in CIE L*a*b*, with the curve of Rec. 709.

    Stopping rule: `steps` systems, each by conjugate gradients, which end when the residual is `tolerance` of the
    right-hand side, whose data has its mean taken off, or after `iterations`. Time and memory are proportional to the
    pixels. Differentiable in all arrays and numbers, every system by the implicit rule.

    Args:
        x: [B, H, W, C]; what stands where the confidence is zero does not count, NaN included.
        guide: [B, H, W, G]; |.| is the Euclidean norm over channels.
        confidence: c, [B, H, W, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        smoothness: lambda > 0; it may be traced, as may mu and nu.
        mu: of the guide, > 0.
        nu: of the result, > 0.
        steps: systems that are solved.
        neighbours: of a pixel, 4 or 8.
        form: "paper" or "official".
        iterations: most steps of each system.
        tolerance: of the relative residual.
        progress: called with the number of systems solved and `steps` while it runs.
        report: return how the last system ended, too.

    Returns:
        [B, H, W, C] in the dtype of x; computed in float32, or float64 if an input is. With `report` a pair of this and
        `Report(steps, residual, converged)`, arrays [B]: steps and residual are the largest of all systems, and
        converged is true where all of them have. Where nothing was measured the links alone decide; an image without
        any confidence gives zeros. A NaN elsewhere spoils its image, which has then not converged.

    Raises:
        ValueError: maps whose shapes do not fit, or a wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> x = jnp.array([2.0, 0.0, 0.0, 0.0, 8.0, 0.0]).reshape(1, 1, 6, 1)
        >>> sd_filter(x, guide, confidence=(x > 0).astype(x.dtype)).round(2).ravel()
        Array([2., 2., 2., 8., 8., 8.], dtype=float32)

    Reference:
        Ham, Cho and Ponce, Robust Guided Image Filtering Using Nonconvex Potentials, TPAMI 2018 (CVPR 2015), Eqs. 2 to
        10. The official form: the authors' SD filter 1.1.
    """
    maps = prepare(x, guide, confidence)
    for name, value in (("smoothness", smoothness), ("mu", mu), ("nu", nu)):
        check_scalar(name, value)
    check_choice("neighbours", neighbours, NEIGHBOURS)
    check_choice("form", form, FORMS)
    check_positive("tolerance", tolerance)
    numbers = jnp.stack([jnp.asarray(n, maps[0].dtype) for n in (smoothness, mu, nu)])
    stopping = (float(tolerance), check_int("iterations", iterations))
    u, ended = _filter(*maps, numbers, check_int("steps", steps), neighbours, form, stopping, progress)
    u = u.astype(jnp.result_type(x))
    return (u, ended) if report else u


def sdf_upsample(
    x: jax.Array, guide: jax.Array, *, scale: Ratio | None = None, confidence: jax.Array | None = None, **options: Any
) -> Any:
    """Upsample under a guide: `sd_filter` with the low-resolution pixels at the centres of their blocks.

    A centre between pixels is divided among those around it by bilinear weights.

    Args:
        x: [B, h, w, C].
        guide: [B, sy*h, sx*w, G].
        scale: a number >= 1 that makes whole pixels (7.5, say), or a pair (vertical, horizontal); None takes the ratio
            of the sizes.
        confidence: [B, h, w, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        options: those of `sd_filter`.

    Returns:
        [B, sy*h, sx*w, C] in the dtype of x, and with `report` how the solve ended.

    Raises:
        ValueError: a guide that is not `scale` times as large as `x`, and as `sd_filter`.

    Example:
        >>> import jax.numpy as jnp
        >>> sdf_upsample(jnp.ones((1, 3, 4, 1)), jnp.zeros((1, 6, 8, 3)), scale=2).shape
        (1, 6, 8, 1)

    Reference:
        Ham, Cho and Ponce, Robust Guided Image Filtering Using Nonconvex Potentials, TPAMI 2018, section 5.1.
    """
    return upsample(sd_filter, x, guide, scale, confidence, options)


@jit(static_argnums=(4, 5, 6, 7, 8))
def _filter(
    data: jax.Array,
    guide: jax.Array,
    weight: jax.Array,
    numbers: jax.Array,
    steps: int,
    neighbours: int,
    form: str,
    stopping: tuple[float, int],
    progress: Progress | None,
) -> tuple[jax.Array, Report]:
    smoothness, mu, nu = numbers
    static = _alike(guide, mu, neighbours, form)
    first = fill(data, weight)
    rule = dict(zip(("tolerance", "iterations"), stopping, strict=True))

    def step(u: jax.Array, index: jax.Array) -> tuple[jax.Array, Report]:
        dynamic = _alike(u, nu, neighbours, form)
        links = {offset: smoothness * static[offset] * dynamic[offset] for offset in static}
        guess = jnp.where(index == 0, first, u)
        u, ended = least_squares(partial(laplacian, links), degree(links), weight, data, guess, **rule)
        if progress is not None:
            jax.debug.callback(lambda done: progress(int(done) + 1, steps), index)
        return u, ended

    u, ended = jax.lax.scan(step, jnp.ones_like(data), jnp.arange(steps))
    report = Report(ended.steps.max(0), ended.residual.max(0), ended.converged.all(0))
    return jnp.moveaxis(u, 1, 3), report


def _alike(x: jax.Array, rate: jax.Array, neighbours: int, form: str) -> Links:
    """exp(-rate |x_p - x_q|^2) + e for each pair of neighbours, zero at the border."""
    if form == "official" and x.shape[1] == 3:
        x = _lab(x)
    squares = {offset: squared_steps(x, offset) for offset in NEIGHBOURS[neighbours]}
    masks = {offset: inside(x.shape[2:], offset) for offset in squares}
    if form == "official":
        squares = _scaled(squares, masks)
    return {o: jnp.where(masks[o], jnp.exp(-rate * s) + _LEAST[form], 0) for o, s in squares.items()}


def _scaled(squares: Links, masks: Mapping[tuple[int, int], np.ndarray]) -> dict[tuple[int, int], jax.Array]:
    """The values of all links of an image from 0 to 1; equal ones are left as they are."""
    low = jnp.min(jnp.stack([jnp.where(masks[o], s, jnp.inf) for o, s in squares.items()]), (0, 2, 3, 4))
    high = jnp.max(jnp.stack([jnp.where(masks[o], s, -jnp.inf) for o, s in squares.items()]), (0, 2, 3, 4))
    span = jnp.where(high > low, high - low, 1)
    low = jnp.where(high > low, low, 0)
    return {o: (s - low[:, None, None, None]) / span[:, None, None, None] for o, s in squares.items()}


def _lab(x: jax.Array) -> jax.Array:
    """CIE L*a*b* of RGB in 0 .. 1, [B, 3, H, W]."""
    curve = (jnp.maximum(x, 0) + 0.099) / 1.099
    bright = curve ** (1 / 0.45)
    linear = jnp.where(bright < 0.018, x / 4.5138, bright)
    xyz = jnp.einsum("ij,bjhw->bihw", jnp.asarray(_XYZ / _WHITE[:, None], x.dtype), linear)
    root = jnp.cbrt(jnp.maximum(xyz, 0.008856))
    fx, fy, fz = jnp.moveaxis(jnp.where(xyz > 0.008856, root, xyz * (841 / 108) + 4 / 29), 1, 0)
    return jnp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=1)
