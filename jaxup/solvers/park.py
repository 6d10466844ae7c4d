"""Depth by weighted least squares between neighbours, and between distant pixels of one structure."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Ratio, check_image, check_int, check_positive, check_shape, fail, jit
from jaxup._colours import YUV
from jaxup.ops.filters import Number, box_filter, check_larger_guide, check_scalar, falloff
from jaxup.ops.resize import resize
from jaxup.solvers.linear import (
    NEIGHBOURS,
    Links,
    Progress,
    Report,
    degree,
    inside,
    laplacian,
    least_squares,
    shift,
    squared_steps,
)
from jaxup.solvers.samples import fill, fill_images, place, prepare, trusted
from jaxup.solvers.superpixels import superpixels

# Added to every weight, so that no part of an image is cut off from all data.
_LEAST = 1e-6
_FLOOR = 0.01  # of the sums that weights are divided by, so that those of a pixel between edges stay small
_ACROSS = 0.7  # weight of a link between two segments
_WIDE = 1e-4  # added to the structure tensor, so that weights fall where the image has no edges, too

Window = tuple[jax.Array, tuple[tuple[int, int], ...]]  # weights [n, B, 1, H, W] of these offsets


def park_interpolate(
    x: jax.Array,
    guide: jax.Array,
    *,
    confidence: jax.Array | None = None,
    guess: jax.Array | None = None,
    smoothness: Number = 0.05,
    nonlocal_smoothness: Number = 0.05,
    sigma_color: Number = 0.03,
    sigma_edge: Number = 0.1,
    sigma_depth: Number = 0.1,
    sigma_structure: Number = 0.1,
    radius: int = 3,
    segment: int = 16,
    iterations: int = 500,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
    report: bool = False,
) -> Any:
    r"""Depth from measured pixels, by least squares with a local and a non-local term.

        min_u  sum_p c_p (u_p - x_p)^2 + l_s sum_p sum_{q in N(p)} w_pq / W_p (u_p - u_q)^2
                                       + l_n sum_p sum_{r in A(p)} k_pr / K_p (u_p - u_r)^2

    with N the 8 neighbours, A a window of (2 radius + 1)^2 pixels, and W_p and K_p the sums of the weights at p, plus
    0.01. A link between neighbours is the product of four weights, of colour, segment, edges and a guess of the depth,

        w_pq = exp(-|I_p - I_q|^2 / (2 sigma_color^2))  (1 in one segment, else 0.7)
               / sqrt(1 + (|grad Y_p|^2 + |grad Y_q|^2) / sigma_edge^2)  exp(-|g_p - g_q|^2 / (2 sigma_depth^2))

    and non-local weights follow the structure of the image, so that thin parts support themselves along their length,

        k_pr = exp(-|I_p - I_r|^2 / (2 sigma_color^2)) (e(S_p) + e(S_r)) / 2
        e(S) = exp(-(p - r)' S (p - r) / sigma_structure^2)

    with I in luma and chroma, Y the luma, and S the mean of grad Y grad Y' over 3 x 3 pixels plus 1e-4.

    The paper was not at hand, and no code is public. Its idea, and from the memory of it: the three terms and their
    norms, the kinds of weights and the symmetric structure filter. Assumed: all numbers; segments by k-means of colour
    and position from cells of `segment` pixels; that the guess of the depth enters as a Gaussian; gradients from
    central differences at one scale; the colour factor of k; and a window of 7 x 7. 1e-6 is added to all weights.

    Stopping rule: conjugate gradients, with the diagonal as preconditioner, from the guess, end when the residual is
    `tolerance` of the right-hand side, whose data has its mean taken off, or after `iterations`. Time and memory are
    proportional to the pixels, times the half of a window. Differentiable in all arrays and numbers, by the implicit
    rule; segments count as constants.

    Args:
        x: [B, H, W, C]; what stands where the confidence is zero does not count, NaN included.
        guide: [B, H, W, 1] or RGB [B, H, W, 3], in 0 .. 1.
        confidence: c, [B, H, W, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        guess: g, [B, H, W, C], depth as smooth interpolation gives it; None: from means over blocks.
        smoothness: l_s > 0; it may be traced, as may the next five numbers.
        nonlocal_smoothness: l_n > 0.
        sigma_color: of colours, in the guide's unit.
        sigma_edge: of gradients of luma, in the guide's unit per pixel.
        sigma_depth: in the unit of x.
        sigma_structure: likewise as sigma_edge.
        radius: of the window A.
        segment: pixels along a side of the cells that segments grow from.
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
        >>> x = jnp.array([2.0, 0.0, 0.0, 0.0, 3.0, 0.0]).reshape(1, 1, 6, 1)
        >>> park_interpolate(x, guide, confidence=(x > 0).astype(x.dtype), sigma_depth=1.0).round(1).ravel()
        Array([2., 2., 2., 3., 3., 3.], dtype=float32)

    Reference:
        Park et al., High Quality Depth Map Upsampling for 3D-ToF Cameras, ICCV 2011.
    """
    data, colours, trust = prepare(x, guide, confidence)
    if colours.shape[1] not in (1, 3):
        fail("guide", "1 or 3 channels", colours.shape[1])
    named = dict(smoothness=smoothness, nonlocal_smoothness=nonlocal_smoothness, sigma_color=sigma_color)
    named |= dict(sigma_edge=sigma_edge, sigma_depth=sigma_depth, sigma_structure=sigma_structure)
    for name, value in named.items():
        check_scalar(name, value)
    check_positive("tolerance", tolerance)
    if guess is not None:
        check_image("guess", guess)
        check_shape("guess", guess, x.shape)
        guess = jnp.moveaxis(guess.astype(data.dtype), 3, 1)
    numbers = {name: jnp.asarray(value, data.dtype) for name, value in named.items()}
    sizes = check_int("radius", radius), check_int("segment", segment)
    stopping = check_int("iterations", iterations), float(tolerance)
    u, ended = _solve(data, colours, trust, guess, numbers, sizes, stopping, progress)
    u = u.astype(jnp.result_type(x))
    return (u, ended) if report else u


def park_upsample(
    x: jax.Array, guide: jax.Array, *, scale: Ratio | None = None, confidence: jax.Array | None = None, **options: Any
) -> Any:
    """Upsample under a guide: `park_interpolate` with low-resolution pixels at the centres of their blocks.

    A centre between pixels is divided among those around it by bilinear weights, and the guess of the depth is the
    bicubic enlargement, for which pixels without confidence take the means of blocks around them.

    Args:
        x: [B, h, w, C].
        guide: [B, sy*h, sx*w, 1] or RGB [B, sy*h, sx*w, 3].
        scale: a number >= 1 that makes whole pixels (7.5, say), or a pair (vertical, horizontal); None takes the ratio
            of the sizes.
        confidence: [B, h, w, 1], not negative: 0 where nothing was measured; None is 1 everywhere.
        options: those of `park_interpolate`.

    Returns:
        [B, sy*h, sx*w, C] in the dtype of x, and with `report` how the solve ended.

    Raises:
        ValueError: a guide that is not `scale` times as large as `x`, and as `park_interpolate`.

    Example:
        >>> import jax.numpy as jnp
        >>> park_upsample(jnp.ones((1, 3, 4, 1)), jnp.zeros((1, 6, 8, 3)), scale=2).shape
        (1, 6, 8, 1)

    Reference:
        Park et al., High Quality Depth Map Upsampling for 3D-ToF Cameras, ICCV 2011.
    """
    check_image("x", x)
    check_larger_guide(guide, x, scale)
    trust = trusted(x, confidence)
    data, weight = place(x, trust, guide.shape[1:3])
    options = {"guess": resize(fill_images(x, trust), size=guide.shape[1:3], method="bicubic")} | options
    return park_interpolate(data, guide, confidence=weight, **options)


@jit(static_argnums=(5, 6, 7))
def _solve(
    data: jax.Array,
    guide: jax.Array,
    weight: jax.Array,
    guess: jax.Array | None,
    numbers: dict[str, jax.Array],
    sizes: tuple[int, int],
    stopping: tuple[int, float],
    progress: Progress | None,
) -> tuple[jax.Array, Report]:
    guess = fill(data, weight) if guess is None else guess
    if guide.shape[1] == 3:
        guide = jnp.einsum("ij,bjhw->bihw", jnp.asarray(YUV, guide.dtype), guide)
    links = _local(guide, guess, numbers, sizes[1])
    distant, offsets = _structure(guide, numbers, sizes[0])
    iterations, tolerance = stopping

    def smooth(u: jax.Array) -> jax.Array:
        return laplacian(links, u) + _window_laplacian((distant, offsets), u)

    degrees = degree(links) + _window_degree((distant, offsets))
    rule: dict[str, Any] = dict(iterations=iterations, tolerance=tolerance, progress=progress)
    u, ended = least_squares(smooth, degrees, weight, data, guess, **rule)
    return jnp.moveaxis(u, 1, 3), ended


def _local(guide: jax.Array, guess: jax.Array, numbers: dict[str, jax.Array], cell: int) -> Links:
    """Links of the 8 neighbours: l_s w_pq (1 / W_p + 1 / W_q)."""
    sigma = jax.lax.stop_gradient(numbers["sigma_color"])
    label = partial(superpixels, cell=cell, sigma=4 * sigma)
    labels = jax.vmap(label)(jax.lax.stop_gradient(jnp.moveaxis(guide, 1, 3)))[:, None]
    gx, gy = _gradient(guide[:, :1])
    edges = (gx**2 + gy**2) / numbers["sigma_edge"] ** 2
    colour, depth = (falloff(numbers[f"sigma_{name}"], guide.dtype) for name in ("color", "depth"))
    links = {}
    for offset in NEIGHBOURS[8]:
        alike = jnp.exp(-colour * squared_steps(guide, offset) - depth * squared_steps(guess, offset))
        alike = alike * jnp.where(labels == shift(labels, *offset), 1, _ACROSS)
        alike = alike / jnp.sqrt(1 + edges + shift(edges, *offset)) + _LEAST
        links[offset] = jnp.where(inside(guide.shape[2:], offset), alike, 0)
    share = 1 / (degree(links) + _FLOOR)
    return {o: numbers["smoothness"] * w * (share + shift(share, *o)) for o, w in links.items()}


def _gradient(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Central differences along rows and columns, one-sided at the border."""
    along: list[jax.Array] = []
    for dy, dx in ((0, 1), (1, 0)):
        size = y.shape[2:]
        after = jnp.where(inside(size, (dy, dx)), shift(y, dy, dx), y)
        before = jnp.where(inside(size, (-dy, -dx)), shift(y, -dy, -dx), y)
        along.append((after - before) / 2)
    return along[0], along[1]


def _structure(guide: jax.Array, numbers: dict[str, jax.Array], radius: int) -> Window:
    """Weights of one half of the window: l_n k_pr (1 / K_p + 1 / K_r)."""
    gx, gy = _gradient(guide[:, :1])
    moments = jnp.moveaxis(jnp.concatenate([gx * gx, gx * gy, gy * gy], axis=1), 1, 3)
    xx, xy, yy = (m[:, None] for m in jnp.moveaxis(box_filter(moments, radius=1), 3, 0))
    height, width = guide.shape[2:]
    span = range(-radius, radius + 1)
    half = [(dy, dx) for dy in span for dx in span if (dy, dx) > (0, 0) and dy < height and abs(dx) < width]
    half = half or [(0, 1)]  # of a single pixel: a link to nowhere
    colour, sharp = falloff(numbers["sigma_color"], guide.dtype), 1 / numbers["sigma_structure"] ** 2

    def weigh(offset: tuple[int, int]) -> jax.Array:
        dy, dx = offset
        along = jnp.exp(-sharp * (xx * dx**2 + 2 * xy * dx * dy + yy * dy**2 + _WIDE * (dx**2 + dy**2)))
        alike = jnp.exp(-colour * squared_steps(guide, offset)) * (along + shift(along, dy, dx)) / 2
        return jnp.where(inside((height, width), offset), alike + _LEAST, 0)

    weights, offsets = jnp.stack([weigh(offset) for offset in half]), tuple(half)
    share = 1 / (_window_degree((weights, offsets)) + _FLOOR)
    both = jnp.stack([share + shift(share, *offset) for offset in offsets])
    return numbers["nonlocal_smoothness"] * weights * both, offsets


def _window_laplacian(window: Window, u: jax.Array) -> jax.Array:
    """sum_r k_pr (u_p - u_r), one offset after the other: straight code for all takes long to compile."""
    weights, offsets = window
    reach = max(max(map(abs, offset)) for offset in offsets)
    pad = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    around = jnp.pad(u, pad)
    places = jnp.asarray(offsets, jnp.int32)

    def at(x: jax.Array, offset: jax.Array) -> jax.Array:
        zero = jnp.zeros((), jnp.int32)
        start = (zero, zero, reach + offset[0], reach + offset[1])
        return jax.lax.dynamic_slice(x, start, (*x.shape[:2], *u.shape[2:]))

    def add(total: jax.Array, entry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        weight, offset = entry
        backward = at(jnp.pad(weight, pad), -offset)
        return total + weight * (u - at(around, offset)) + backward * (u - at(around, -offset)), None

    return jax.lax.scan(add, jnp.zeros_like(u), (weights, places))[0]


def _window_degree(window: Window) -> jax.Array:
    weights, offsets = window
    return degree(dict(zip(offsets, weights, strict=True)))
