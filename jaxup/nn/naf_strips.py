"""NAF of large images, by strips of rows: equal results, and no map of the image's size but the output.

The norms see whole images. So before each of them the strips of what it normalises are gone through once, computed anew
each time; then once for the keys, and once for the output: 14 convolutions in the place of 4, at the usual depth.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import Pair, accum_dtype, known
from jaxup.ops.neighbourhood import neighbour_counts
from jaxup.ops.resize import resize, row_table
from jaxup.ops.tiling import STRIP_BYTES
from jaxup.ops.window_attend import attend_strips
from jaxup.ops.windows import pad_window

if TYPE_CHECKING:
    from jaxup.nn.naf import NAF, Branch

Moments = tuple[jax.Array, jax.Array, jax.Array]  # how many numbers, their means, and sums of squares about these
_TILE = 16  # strips have a multiple of the rows of the largest tile of attention


def strip_rows(guide: jax.Array, features: int) -> int:
    """Rows of a strip; 0 where all of the image is computed at once."""
    row_bytes = 4 * features * max(1, known(guide.shape[0], 1)) * guide.shape[2]
    if guide.shape[1] * row_bytes <= 2 * STRIP_BYTES:
        return 0
    return min(guide.shape[1], max(1, STRIP_BYTES // 2 // row_bytes // _TILE) * _TILE) // _TILE * _TILE


def upsample(up: "NAF", x: jax.Array, guide: jax.Array, rows: int) -> jax.Array:
    """The features x under an image [B, H, W, Cg], at the size of that."""
    size, image = (guide.shape[1], guide.shape[2]), guide.astype(up.dtype)
    branches = [(branch, _statistics(branch, image, rows)) for branch in (up.pointwise, up.around)]

    def queries(first: jax.Array) -> jax.Array:
        parts = [_some(branch, image, found, first, rows) for branch, found in branches]
        return up.rotated(jnp.concatenate(parts, axis=-1), size, first)

    key = _keys(queries, size, (x.shape[1], x.shape[2]), rows)
    shape = (guide.shape[0], *size, key.shape[3])
    reach = (neighbour_counts, up.kernel_size)
    return attend_strips(queries, shape, key, x, reach=reach, heads=up.num_heads, by_head=True, rows=rows)


def _some(branch: "Branch", image: jax.Array, known_moments: list[Moments], first: jax.Array, rows: int) -> jax.Array:
    """Rows of a branch, up to the norm of which nothing is known yet."""
    height, margin = image.shape[1], branch.radius * (1 + len(known_moments))
    seen = min(height, rows + 2 * margin)
    start = jnp.clip(first - margin, 0, height - seen)
    around = partial(pad_window, radius=(branch.radius,) * 2, border="reflect")
    y = branch.first(around(jax.lax.dynamic_slice_in_dim(image, start, seen, axis=1)))
    for norm, conv, moments in zip(branch.norms, branch.convs, known_moments, strict=False):
        y = conv(around(nnx.silu(_normed(norm, y, moments).astype(branch.dtype))))
    return jax.lax.dynamic_slice_in_dim(y, first - start, rows, axis=1)


def _normed(norm: nnx.GroupNorm, y: jax.Array, moments: Moments) -> jax.Array:
    count, mean, squares = moments
    y = _grouped(norm, y.astype(mean.dtype))
    y = (y - mean[:, None, None, :, None]) * jax.lax.rsqrt(squares / count + norm.epsilon)[:, None, None, :, None]
    normed: jax.Array = y.reshape(*y.shape[:3], -1)
    affine: Any = norm.scale, norm.bias
    scale, bias = (p[...].astype(y.dtype)[None, None, None] for p in affine)
    normed = normed * scale + bias
    return normed


def _grouped(norm: nnx.GroupNorm, y: jax.Array) -> jax.Array:
    return y.reshape(*y.shape[:3], norm.num_groups, -1)


def _statistics(branch: "Branch", image: jax.Array, rows: int) -> list[Moments]:
    """Of what each norm normalises, over the whole image."""
    found: list[Moments] = []
    for norm in branch.norms:

        @partial(jax.checkpoint, prevent_cse=False)
        def add(moments: Moments, n: jax.Array, norm: Any = norm) -> tuple[Moments, None]:
            first = jnp.minimum(n * rows, image.shape[1] - rows)
            y = _grouped(norm, _some(branch, image, found, first, rows).astype(moments[1].dtype))
            own = (first + jnp.arange(rows) >= n * rows).astype(y.dtype)[None, :, None, None, None]
            count = jnp.sum(own) * (y.shape[2] * y.shape[4])
            mean = jnp.sum(own * y, axis=(1, 2, 4)) / count
            squares = jnp.sum(own * (y - mean[:, None, None, :, None]) ** 2, axis=(1, 2, 4))
            total, apart = moments[0] + count, mean - moments[1]
            squares = moments[2] + squares + apart**2 * (moments[0] * count / total)
            return (total, moments[1] + apart * (count / total), squares), None

        dtype = accum_dtype(image)
        zeros = jnp.zeros((image.shape[0], norm.num_groups), dtype)
        start = jnp.zeros((), dtype), zeros, zeros
        found.append(jax.lax.scan(add, start, jnp.arange(-(-image.shape[1] // rows)))[0])
    return found


def _keys(queries: Any, size: Pair, grid: Pair, rows: int) -> jax.Array:
    """The mean of the queries of each cell."""
    places, weights = row_table(size[0], grid[0], "area")
    table = np.zeros((grid[0], size[0]))
    np.add.at(table, (np.broadcast_to(np.arange(grid[0]), places.shape), places), weights)

    @partial(jax.checkpoint, prevent_cse=False)
    def add(total: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        first = jnp.minimum(n * rows, size[0] - rows)
        y = resize(queries(first), size=(rows, grid[1]), method="area")
        share = jax.lax.dynamic_slice_in_dim(jnp.asarray(table, y.dtype), first, rows, axis=1)
        share = share * (first + jnp.arange(rows) >= n * rows).astype(y.dtype)[None]
        return total + jnp.einsum("ir,brwd->biwd", share, y, precision=jax.lax.Precision.HIGHEST), None

    like = jax.eval_shape(queries, jnp.int32(0))
    start = jnp.zeros((like.shape[0], *grid, like.shape[3]), like.dtype)
    return jax.lax.scan(add, start, jnp.arange(-(-size[0] // rows)))[0]
