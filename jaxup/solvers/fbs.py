"""The fast bilateral solver: smoothness between all pixels that are near in space and colour, solved on their grid."""

import math
from collections.abc import Callable
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from jaxup._checks import Ratio, accum_dtype, check_image, check_int, check_positive, check_shape, fail, jit, renamed
from jaxup._colours import YUV
from jaxup.ops.filters import Number, check_guide, check_larger_guide, check_scalar
from jaxup.ops.resize import resize
from jaxup.ops.windows import source_cells
from jaxup.solvers.samples import fill_images, trusted

# Rounds of the fixed-point iteration that makes the blur doubly stochastic; it converges in a few.
_BALANCE_ROUNDS = 20
_NUMBERED = 2**31  # vertices, at most, whether there is a pixel in them or not
# The confidence of means over blocks where nothing was measured: colours that no sample has would be zero without it.
_PRIOR = 1e-3
# The default of sigma_spatial where x has the guide's size, and by what it grows where there are too many vertices.
_SPARSE, _WIDER = 8.0, 1.25


@renamed("target", "x")
def bilateral_solver(
    x: jax.Array,
    guide: jax.Array,
    *,
    confidence: jax.Array | None = None,
    smoothness: Number = 128.0,
    sigma_spatial: float = 8.0,
    sigma_luma: float = 0.03,
    sigma_chroma: float = 0.03,
    iterations: int = 25,
    tolerance: float = 1e-5,
) -> jax.Array:
    r"""The map closest to a target x, where that is trusted, that is smooth in the bilateral sense.

        min_x  lambda / 2 sum_{ij} W_ij (x_i - x_j)^2 + sum_i c_i (x_i - t_i)^2

    with W the bilateral affinity of pixels, near in space and alike in the guide, scaled to be doubly stochastic.
    Pixels are gathered in the vertices of a bilateral grid (nearest vertex), where the blur of W is [1 2 1] along
    each axis and the problem is one sparse linear system, (lambda (D_m - D_n B D_n) + diag(S c)) y = S (c t).

    Stopping rule: conjugate gradients, with the diagonal as preconditioner and from the mean of each vertex,
    end when the residual is `tolerance` of the right-hand side, or after `iterations`. The scaling takes 20 rounds.
    The paper's pyramid preconditioner is not used. Only occupied vertices exist, at most as many as pixels; memory
    is proportional to the pixels, so that shapes stay static under `jax.jit`.
    Differentiable in x, confidence and smoothness; not in the guide, which only chooses vertices.

    Args:
        x: [B, H, W, C].
        guide: [B, H, W, 1] or RGB [B, H, W, 3], in [0, 1].
        confidence: c, [B, H, W, 1], not negative; None is 1 everywhere.
        smoothness: lambda > 0.
        sigma_spatial: cell of the grid in pixels.
        sigma_luma: cell in luma, in the guide's unit.
        sigma_chroma: cell in both chromas of an RGB guide.
        iterations: most steps of the conjugate gradients.
        tolerance: of the relative residual.

    Returns:
        [B, H, W, C] in the dtype of x; computed in float32, or float64 if an input is. An image without any
        confidence gives zeros.

    Raises:
        ValueError: maps whose shapes do not fit, an option that is not positive, or a grid of more than 2^31 vertices.

    Example:
        >>> import jax.numpy as jnp
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> x = jnp.array([2.0, 0.0, 0.0, 0.0, 8.0, 0.0]).reshape(1, 1, 6, 1)
        >>> bilateral_solver(x, guide, confidence=x / 8, sigma_spatial=2.0).round(2).ravel()
        Array([2., 2., 2., 8., 8., 8.], dtype=float32)

    Reference:
        Barron and Poole, The Fast Bilateral Solver, ECCV 2016. The paper was not at hand; the problem and the system
        above are what the tests compare with.
    """
    check_image("x", x)
    check_guide(guide, x.shape[:3])
    if guide.shape[-1] not in (1, 3):
        fail("guide", "1 or 3 channels", guide.shape[-1])
    check_scalar("smoothness", smoothness)
    for name, value in (
        ("sigma_spatial", sigma_spatial),
        ("sigma_luma", sigma_luma),
        ("sigma_chroma", sigma_chroma),
        ("tolerance", tolerance),
    ):
        check_positive(name, value)
    if confidence is None:
        confidence = jnp.ones_like(x[..., :1])
    check_image("confidence", confidence)
    check_shape("confidence", confidence, (*x.shape[:3], 1))
    dtype = accum_dtype(x, guide, confidence)
    return _solve(
        x.astype(dtype),
        guide.astype(dtype),
        confidence.astype(dtype),
        jnp.asarray(smoothness, dtype),
        (float(sigma_spatial), float(sigma_luma), float(sigma_chroma)),
        check_int("iterations", iterations),
        float(tolerance),
    ).astype(jnp.result_type(x))


@renamed("src", "x")
def bilateral_solver_upsample(
    x: jax.Array,
    guide: jax.Array,
    *,
    scale: Ratio | None = None,
    bump: float = 0.25,
    smoothness: Number = 2.0,
    sigma_spatial: float | None = None,
    sigma_luma: float = 0.02,
    sigma_chroma: float = 0.04,
    iterations: int = 25,
    tolerance: float = 1e-5,
    confidence: jax.Array | None = None,
) -> jax.Array:
    r"""Upsample under a guide: the bilateral solver on the enlarged map, trusted near the low-resolution pixels.

        c(p) = exp(-|p - q|^2 / (2 (bump s)^2)),    q the centre of the s x s block of p

    A Gaussian bump of confidence per low-resolution pixel is the method's idea for depth super-resolution. Open, and
    chosen here: the enlargement is bicubic, the centre is the middle of the block, and the defaults of `bump`,
    `smoothness` and sigmas, which did well at 4x and 8x on generated scenes and on pairs of Middlebury.

    Args:
        x: [B, h, w, C].
        guide: [B, sy*h, sx*w, 1] or RGB [B, sy*h, sx*w, 3], in [0, 1].
        scale: a number >= 1 that makes whole pixels (7.5, say), or a pair (vertical, horizontal); None takes the ratio
            of the sizes.
        bump: width of the trusted spot in blocks.
        smoothness: as all that follow, see `bilateral_solver`.
        sigma_spatial: in pixels; None is one block, or 8 pixels where x is as large as the guide and its confidence
            says where samples are; more for images of so many pixels that vertices could not be numbered.
        sigma_luma: in the guide's unit.
        sigma_chroma: in the guide's unit.
        iterations: most steps of the conjugate gradients.
        tolerance: of the relative residual.
        confidence: of the low-resolution pixels, [B, h, w, 1], not negative, by which the spots are multiplied: where
            it is 0, what stands there does not count, NaN included, and means over blocks take its place with a
            confidence of 0.001, for colours that no sample has; None is 1 everywhere.

    Returns:
        [B, sy*h, sx*w, C] in the dtype of x.

    Raises:
        ValueError: a guide that is not `scale` times as large as `x`, and as `bilateral_solver`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, guide = jnp.ones((1, 3, 4, 1)), jnp.zeros((1, 6, 8, 3))
        >>> bilateral_solver_upsample(x, guide, scale=2).shape
        (1, 6, 8, 1)

    Reference:
        Barron and Poole, The Fast Bilateral Solver, ECCV 2016.
    """
    check_image("x", x)
    check_larger_guide(guide, x, scale)
    check_positive("bump", bump)
    low, high = x.shape[1:3], guide.shape[1:3]
    if sigma_spatial is None:
        sigma_spatial = _block(low, high, guide.shape[3], sigma_luma, sigma_chroma)
    rows, columns = (np.exp(-(source_cells(*sizes)[1] ** 2) / (2 * bump**2)) for sizes in zip(low, high, strict=True))
    spots = rows[:, None] * columns
    dtype = accum_dtype(x, guide)
    spotted = jnp.zeros_like(guide[..., :1], dtype) + jnp.asarray(spots, dtype)[None, :, :, None]
    if confidence is not None:
        trust = trusted(x, confidence).astype(dtype)
        spotted = jnp.maximum(spotted * resize(trust, size=high, method="nearest_exact"), _PRIOR)
        x = fill_images(x, trust)
    return bilateral_solver(
        resize(x.astype(dtype), size=high, method="bicubic"),
        guide,
        confidence=spotted,
        smoothness=smoothness,
        sigma_spatial=sigma_spatial,
        sigma_luma=sigma_luma,
        sigma_chroma=sigma_chroma,
        iterations=iterations,
        tolerance=tolerance,
    ).astype(jnp.result_type(x))


def _block(low: tuple[int, ...], high: tuple[int, ...], channels: int, luma: float, chroma: float) -> float:
    """The default of `sigma_spatial`."""
    spatial = _SPARSE if low == high else math.sqrt(math.prod(high) / math.prod(low))
    while min(luma, chroma) > 0 and spatial < max(high):
        if math.prod(_cells(high, channels, (spatial, luma, chroma))) < _NUMBERED:
            break
        spatial *= _WIDER
    return spatial


def _cells(size: tuple[int, ...], channels: int, sigmas: tuple[float, float, float]) -> list[int]:
    """Of every axis, with one that is empty on both sides, so that no neighbour belongs to another row."""
    spatial, luma, chroma = sigmas
    largest = [*((n - 1) / spatial for n in size), 1 / luma, *(1 / chroma for _ in range(channels - 1))]
    return [int(n + 0.5) + 3 for n in largest]


class _Grid(NamedTuple):
    """The occupied vertices of one image: where each pixel belongs, and each vertex' two neighbours per axis."""

    vertex: jax.Array  # [H * W], the vertex of every pixel
    neighbours: jax.Array  # [2 * axes, N]; N, a vertex that does not exist, where there is none
    size: int  # N


def _grid(guide: jax.Array, sigmas: tuple[float, float, float]) -> _Grid:
    """Quantise position and colour; vertices are the distinct codes, sorted, and as many unused ones as are left."""
    height, width, channels = guide.shape
    spatial, luma, chroma = sigmas
    colours = guide if channels == 1 else guide @ jnp.asarray(YUV.T, guide.dtype)
    rows, columns = jnp.indices((height, width), guide.dtype)
    values = [rows / spatial, columns / spatial, colours[..., 0] / luma]
    values += [(colours[..., c] + 0.5) / chroma for c in range(1, channels)]
    cells = _cells((height, width), channels, sigmas)
    *steps, vertices_in_all = accumulate(cells, mul, initial=1)
    if vertices_in_all >= _NUMBERED:
        fail("sigma_spatial, sigma_luma, sigma_chroma", "values that make fewer than 2^31 vertices", vertices_in_all)
    code = jnp.zeros((height, width), jnp.int32)
    for value, count, step in zip(values, cells, steps, strict=True):
        code = code + step * (1 + jnp.clip(jnp.round(value).astype(jnp.int32), 0, count - 3))
    size = height * width
    vertices, vertex = jnp.unique(code.ravel(), return_inverse=True, size=size, fill_value=2**31 - 1)

    def find(wanted: jax.Array) -> jax.Array:
        at = jnp.minimum(jnp.searchsorted(vertices, wanted), size - 1)
        return jnp.where((vertices[at] == wanted) & (vertices < 2**31 - 1), at, size)

    moved = [vertices + sign * step for step in steps for sign in (-1, 1)]
    return _Grid(vertex, jnp.stack([find(jnp.where(vertices < 2**31 - 1, m, -1)) for m in moved]), size)


def _splat(grid: _Grid, x: jax.Array) -> jax.Array:
    """Sums of the pixels [H * W, C] of each vertex, [N, C]."""
    return jnp.zeros((grid.size, x.shape[1]), x.dtype).at[grid.vertex].add(x)


def _blur(grid: _Grid, y: jax.Array) -> jax.Array:
    """[1 2 1] along every axis of the grid, added up."""
    near = sum(y.at[index].get(mode="fill", fill_value=0) for index in grid.neighbours)
    return len(grid.neighbours) * y + near


@jit(static_argnums=(4, 5, 6))
def _solve(
    target: jax.Array,
    guide: jax.Array,
    confidence: jax.Array,
    smoothness: jax.Array,
    sigmas: tuple[float, float, float],
    iterations: int,
    tolerance: float,
) -> jax.Array:
    def one(target: jax.Array, guide: jax.Array, confidence: jax.Array) -> jax.Array:
        grid = _grid(guide, sigmas)
        flat, trust = target.reshape(-1, target.shape[-1]), confidence.reshape(-1, 1)
        pixels = _splat(grid, jnp.ones_like(trust))
        scaling = _balance(grid, pixels)
        # The diagonal of the system; vertices that do not exist get 1.
        weight = _splat(grid, trust)
        laplacian = scaling * _blur(grid, scaling)  # equals the number of pixels once balanced, and keeps constants
        absent = (pixels == 0).astype(target.dtype)

        def system(y: jax.Array) -> jax.Array:
            smooth = laplacian * y - scaling * _blur(grid, scaling * y)
            return smoothness * smooth + (weight + absent) * y

        right = _splat(grid, trust * flat)
        diagonal = smoothness * (laplacian - len(grid.neighbours) * scaling**2) + weight + absent
        floor = np.finfo(target.dtype).tiny
        start = jax.lax.stop_gradient(right / jnp.maximum(weight, floor))
        solve: Callable[..., tuple[jax.Array, Any]] = cg  # which has no annotations
        y, _ = solve(
            system, right, start, tol=tolerance, maxiter=iterations, M=lambda r: r / jnp.maximum(diagonal, floor)
        )
        return y[grid.vertex].reshape(target.shape)

    return jax.vmap(one)(target, guide, confidence)


def _balance(grid: _Grid, pixels: jax.Array) -> jax.Array:
    """N with n (B n) = number of pixels: the scaling that makes the affinity doubly stochastic."""

    def step(_: int, n: jax.Array) -> jax.Array:
        return jnp.sqrt(n * pixels / jnp.maximum(_blur(grid, n), np.finfo(n.dtype).tiny))

    scaling: jax.Array = jax.lax.fori_loop(0, _BALANCE_ROUNDS, step, (pixels > 0).astype(pixels.dtype))
    return scaling
