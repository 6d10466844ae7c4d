"""Weighted least squares on the pixel grid: links between neighbours, their Laplacian, and conjugate gradients.

Arrays are [B, C, H, W] here, so that the innermost loop of a compiled program runs along a row, and weights
[B, 1, H, W]. A link (dy, dx) of a pixel p joins it to p + (dy, dx), and is zero where that lies outside.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Links = Mapping[tuple[int, int], jax.Array]
Progress = Callable[[int, int], None]  # steps done, most steps

NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}
"""One half of the neighbours of a pixel; the other half has it as its neighbour."""
_SHOWN = 50  # times that progress is called at most


class Report(NamedTuple):
    """How a solve ended, for every image: what solvers return beside the depth with `report`.

    Args:
        steps: int [B], steps that were taken.
        residual: [B], what the stopping rule compares with the tolerance.
        converged: bool [B], whether that was reached; false where the residual is no number.

    Returns:
        A named tuple.

    Example:
        >>> from jaxup import solvers
        >>> x = jnp.ones((1, 2, 3, 1))
        >>> solvers.mrf_interpolate(x, x, report=True)[1].converged
        Array([ True], dtype=bool)

    Reference:
        The stopping rules stand with each solver.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array


def shift(x: jax.Array, dy: int, dx: int) -> jax.Array:
    """The value at p + (dy, dx) for every p, zero outside."""
    rows, columns = (-dy, dy, 0), (-dx, dx, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 2) + [rows, columns])


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """Sum of at least one."""
    first, *rest = terms
    return sum(rest, first)


def inside(size: tuple[int, ...], offset: tuple[int, int]) -> np.ndarray:
    """Whether p + offset is in the image, bool [1, 1, H, W]."""
    rows, columns = (np.arange(n) + d for n, d in zip(size, offset, strict=True))
    mask = np.logical_and.outer((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))
    return mask[None, None]


def squared_steps(x: jax.Array, offset: tuple[int, int]) -> jax.Array:
    """|x_p - x_{p + offset}|^2 over the channels, [B, 1, H, W]; zero where that lies outside."""
    mask = inside(x.shape[2:], offset)
    return jnp.sum(jnp.where(mask, x - shift(x, *offset), 0) ** 2, axis=1, keepdims=True)


def laplacian(links: Links, x: jax.Array) -> jax.Array:
    """sum_q w_pq (x_p - x_q)."""
    y = jnp.zeros_like(x)
    for (dy, dx), weight in links.items():
        flow = weight * (x - shift(x, dy, dx))
        y = y + flow - shift(flow, -dy, -dx)
    return y


def degree(links: Links) -> jax.Array:
    """sum_q w_pq, the diagonal of the Laplacian."""
    return total(w + shift(w, -dy, -dx) for (dy, dx), w in links.items())


def least_squares(
    smooth: Callable[[jax.Array], jax.Array],
    degrees: jax.Array,
    weight: jax.Array,
    data: jax.Array,
    start: jax.Array,
    **stopping: Any,
) -> tuple[jax.Array, Report]:
    """min_u  sum_p c_p (u_p - f_p)^2 + u' L u, that is (diag(c) + L) u = c f, with L a Laplacian and its diagonal.

    The unknown is u minus the weighted mean of the data, which keeps digits and constants.
    """
    weights = jnp.sum(weight, axis=(2, 3), keepdims=True)
    mean = jnp.sum(weight * data, axis=(2, 3), keepdims=True) / jnp.where(weights > 0, weights, 1)
    mean = jax.lax.stop_gradient(mean)
    diagonal = weight + degrees
    rest, report = conjugate_gradients(
        lambda u: weight * u + smooth(u),
        weight * (data - mean),
        start - mean,
        lambda r: r / jnp.where(diagonal > 0, diagonal, 1),
        **stopping,
    )
    return mean + rest, report


def conjugate_gradients(
    system: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    start: jax.Array,
    precondition: Callable[[jax.Array], jax.Array],
    *,
    tolerance: float,
    iterations: int,
    progress: Progress | None = None,
) -> tuple[jax.Array, Report]:
    """Solve a symmetric positive system for every image and channel by itself; gradients are those of the solution.

    The gradient of a symmetric system is another solution of it, by the same rule. A channel stops when |r| <=
    tolerance |b|, or where its residual is no number, and what has stopped no longer changes.
    """
    start = jax.lax.stop_gradient(start)

    def solve(apply: Callable[[jax.Array], jax.Array], b: jax.Array) -> tuple[jax.Array, Report]:
        limit = tolerance**2 * _dot(b, b)
        x = start.astype(b.dtype)
        r = b - apply(x)
        z = precondition(r)
        count = jnp.zeros(limit.shape, jnp.int32)

        def going(state: Any) -> jax.Array:
            _, r, _, _, count = state
            return jnp.any((_dot(r, r) > limit) & (count < iterations))

        def step(state: Any) -> Any:
            x, r, p, rz, count = state
            active = _dot(r, r) > limit
            q = apply(p)
            length = jnp.where(active, _ratio(rz, _dot(p, q)), 0)
            x, r = x + length * p, r - length * q
            z = precondition(r)
            new = jnp.where(active, _dot(r, z), rz)
            if progress is not None:
                _show(progress, jnp.max(count) + 1, iterations)
            return x, r, jnp.where(active, z + _ratio(new, rz) * p, p), new, count + active.astype(jnp.int32)

        x, r, _, _, count = jax.lax.while_loop(going, step, (x, r, z, _dot(r, z), count))
        residual = jnp.sqrt(_ratio(_dot(r, r), _dot(b, b)))
        steps, worst = (jnp.max(y, axis=(1, 2, 3)) for y in (count, residual))
        return x, Report(steps, worst, jnp.all(_dot(r, r) <= limit, axis=(1, 2, 3)))

    x, report = jax.lax.custom_linear_solve(system, right, solve, symmetric=True, has_aux=True)
    return x, jax.tree.map(jax.lax.stop_gradient, report)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=(2, 3), keepdims=True)


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """Quotients, 0 where there is nothing to divide by."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _show(progress: Progress, count: jax.Array, most: int) -> None:
    """Call `progress` now and then while the compiled program runs."""
    every = max(1, most // _SHOWN)

    def call() -> None:
        jax.debug.callback(lambda done: progress(int(done), most), count)

    jax.lax.cond(count % every == 0, call, lambda: None)
