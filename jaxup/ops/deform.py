"""Averages over a few deformed positions per pixel, as deformable kernel networks have them."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import accum_dtype, check_choice, check_float, check_image, check_odd, check_shape, fail, jit
from jaxup.ops.linear import Arrays, linear
from jaxup.ops.rows import by_rows
from jaxup.ops.sample import sample
from jaxup.ops.windows import to_channels

# The regular grid that the offsets start from: the paper's, and what its code makes of it (two conventions).
GRIDS = ("centred", "shifted", "compressed")


@by_rows("x", "weights", "offsets", reach=lambda window_size, **_: window_size // 2 + 1)
def deformable_average(
    x: jax.Array, weights: jax.Array, offsets: jax.Array, *, window_size: int = 15, grid: str = "centred"
) -> jax.Array:
    """Weighted sum of k x k samples per pixel, at learned sub-pixel positions inside a d x d window.

        out[p] = sum_q weights[p, q] f(s(q)),    s(q) = q + offsets[p, q],
        f(s)   = sum_t max(0, 1 - |s_y - t_y|) max(0, 1 - |s_x - t_x|) x[t]

    q runs row by row over a k x k grid around p; t over the pixels of the d x d window centred on p, of which those
    outside the image are zero. A position beyond the window's border pixels fades to zero within one pixel. Nothing
    is normalised. A NaN in x spoils the outputs that read one of their four pixels from it, in its channel; one in
    weights or offsets its own output. The grid is, per axis and for a = 0 .. k-1,

    - "centred", as in the paper: q = p + a - (k-1)/2 (between the pixels for even k);
    - "shifted", as in the paper's code with `align_corners=False`: s = p + a + offset - 1/2;
    - "compressed", as in the paper's code with `align_corners=True`: s = p + (a + offset - 1/2) (d-1)/d.

    Cost: about 5 k^2 C multiply-adds per pixel. The k^2 samples are made one after the other, with gradients again:
    scratch memory is a few copies of weights, offsets and x, and does not depend on d.

    Args:
        x: images [B, H, W, C].
        weights: [B, H, W, k*k].
        offsets: (row, column) in pixels, [B, H, W, k*k, 2].
        window_size: d, odd. The paper has 15.
        grid: "centred", "shifted" or "compressed".

    Returns:
        [B, H, W, C] in the dtype of x; positions and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, an image without pixels, a number of weights that is no square, an
            even window or an unknown grid.

    Example:
        >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
        >>> to_the_right = jnp.broadcast_to(jnp.array([0.0, 0.5]), (1, 2, 2, 1, 2))
        >>> deformable_average(x, jnp.ones((1, 2, 2, 1)), to_the_right).ravel()
        Array([0.5, 0.5, 2.5, 1.5], dtype=float32)

    Reference:
        Kim, Ponce and Ham, Deformable Kernel Networks for Guided Depth Map Upsampling, 2019, Eqs. 3 to 7, and the
        window in Sec. 1.1 of the supplement. Official code: jun0kim/DKN (GPL-3.0). There the grid starts at the pixel
        and extends to the right and down, and passes through the normalised coordinates of PyTorch's `grid_sample`.
    """
    check_image("x", x)
    check_float("weights", weights)
    check_float("offsets", offsets)
    check_odd("window_size", window_size)
    check_choice("grid", grid, GRIDS)
    check_shape("weights", weights, (*x.shape[:3], None))
    count = weights.shape[3]
    if count == 0 or math.isqrt(count) ** 2 != count:
        fail("weights", "k*k entries per pixel", f"shape {weights.shape}")
    check_shape("offsets", offsets, (*weights.shape, 2))
    return _average(x, weights, offsets, int(window_size), grid)


@jit(static_argnums=(3, 4))
def _average(x: jax.Array, weights: jax.Array, offsets: jax.Array, window_size: int, grid: str) -> jax.Array:
    dtype = accum_dtype(x, weights, offsets)
    # The samples become the leading axis, over which the loops run.
    # Rows and columns apart: over a last axis of 2, XLA's loops for CPUs take many times as long.
    by_sample = [jnp.moveaxis(part, 3, 0).astype(dtype) for part in (weights, offsets[..., 0], offsets[..., 1])]
    options = _grid(math.isqrt(weights.shape[3]), window_size, grid), window_size // 2
    return _sum_of_samples(x.astype(dtype), *by_sample, *options).astype(x.dtype)


def _grid(size: int, window_size: int, grid: str) -> tuple[int, float, float]:
    """k, and the step and start of an axis: entry a with an offset lies at step * (a + offset) + start from p."""
    step = (window_size - 1) / window_size if grid == "compressed" else 1.0
    return size, step, -(size - 1) / 2 if grid == "centred" else -step / 2


Grid = tuple[int, float, float]


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _sum_of_samples(
    x: jax.Array, weights: jax.Array, rows: jax.Array, cols: jax.Array, grid: Grid, radius: int
) -> jax.Array:
    """[B, H, W, C], and of weights and both offsets [n, B, H, W] -> [B, H, W, C]."""

    def add(total: jax.Array, sample: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        n, *of_sample = sample
        return total + _one_sample(grid, radius, n, x, *of_sample), None

    return jax.lax.scan(add, jnp.zeros_like(x), (jnp.arange(len(weights)), weights, rows, cols))[0]


def _one_sample(
    grid: Grid, radius: int, n: jax.Array, x: jax.Array, weight: jax.Array, row: jax.Array, col: jax.Array
) -> jax.Array:
    """The term of the n-th grid position: [B, H, W, C]."""
    size, step, start = grid

    def along(offset: jax.Array, entry: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
        """Positions in the image, and the weights that the window's border leaves them."""
        away = step * (entry.astype(offset.dtype) + offset) + start
        # One pixel beyond the window's border only the border pixel counts, and less with the distance.
        inside = (away >= -radius) & (away < radius)
        nearest = jnp.where(inside, away, jax.lax.stop_gradient(jnp.clip(away, -radius, radius)))
        part = jnp.where(inside, 1, jnp.clip(radius + 1 - jnp.abs(away), 0, 1))
        pixels = jnp.arange(offset.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
        return pixels.astype(offset.dtype) + nearest, part

    (rows, row_part), (cols, col_part) = along(row, n // size, 1), along(col, n % size, 2)
    values = sample(x, jnp.stack([rows, cols], axis=-1))
    return to_channels((weight * row_part * col_part)[..., None], x.shape[3]) * values


@_sum_of_samples.defjvp
def _sum_jvp(grid: Grid, radius: int, primals: Arrays, tangents: Arrays) -> tuple[jax.Array, jax.Array]:
    """Every sample is made again: autodiff of the forward loop would keep the taps of all."""
    term = partial(_one_sample, grid, radius)

    def push(*arrays: jax.Array) -> tuple[jax.Array]:
        (x, *by_sample), (d_x, *d_by_sample) = arrays[:4], arrays[4:]

        def add(total: jax.Array, sample: Any) -> tuple[jax.Array, None]:
            n, of_sample, d_of_sample = sample
            return total + jax.jvp(partial(term, n), (x, *of_sample), (d_x, *d_of_sample))[1], None

        samples = jnp.arange(len(by_sample[0])), by_sample, d_by_sample
        return (jax.lax.scan(add, jnp.zeros_like(x), samples)[0],)

    def pull(x: jax.Array, *arrays: jax.Array) -> Arrays:
        *by_sample, ct = arrays

        def back(total: jax.Array, sample: Any) -> tuple[jax.Array, list[jax.Array]]:
            n, of_sample = sample
            d_x, *d_of_sample = jax.vjp(partial(term, n), x, *of_sample)[1](ct)
            return total + d_x, d_of_sample

        d_x, parts = jax.lax.scan(back, jnp.zeros_like(x), (jnp.arange(len(by_sample[0])), by_sample))
        return d_x, *parts

    return _sum_of_samples(*primals, grid, radius), linear(push, pull, primals, tangents)[0]
