"""Indices: maps that say how much of every HR pixel goes into, or comes from, the one LR cell that it belongs to.

Pooling and upsampling with indices are dual: `indexed_pool` sums index * x over each region of sy x sx pixels, and
`indexed_upsample` gives every pixel of a region its index times the region's value. An index map of ones is sum
pooling and nearest interpolation; with the 0/1 map of `max_index` the two are max pooling and max unpooling.
"""

from functools import partial

import jax

from jaxup._checks import Pair, accum_dtype, check_divides, check_image, check_shape, fail, jit, pair
from jaxup.ops.linear import Arrays
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import fill_blocks, sum_blocks


@by_rows("x", "index", reach=lambda **_: 0)
def indexed_pool(x: jax.Array, index: jax.Array, *, scale: int | Pair = 2) -> jax.Array:
    """Indexed pooling: the sum of index * x over each region of sy x sx pixels.

        out[i, j, c] = sum_{u, v} index[sy*i + u, sx*j + v, c] * x[sy*i + u, sx*j + v, c]

    A NaN in x or the index spoils the output of its region, also where the other is 0.
    Cost: s^2 multiply-adds per output entry.

    Args:
        x: HR map [B, sy*h, sx*w, C].
        index: index map [B, sy*h, sx*w, C], or [B, sy*h, sx*w, 1] for one map that all channels share.
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        LR map [B, h, w, C] in the dtype of x; products and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, or a scale that does not divide the height and width.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> indexed_pool(x, jnp.full((1, 2, 2, 1), 0.25)).ravel()
        Array([2.5], dtype=float32)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 4.
    """
    check_image("x", x)
    return _indexed_pool(x, _check_index(index, x.shape), check_regions(x, scale))


@jit(static_argnums=2)
def _indexed_pool(x: jax.Array, index: jax.Array, scale: Pair) -> jax.Array:
    dtype = accum_dtype(x, index)
    return _sum_products(x.astype(dtype), index.astype(dtype), scale).astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _sum_products(x: jax.Array, index: jax.Array, block: Pair) -> jax.Array:
    """`sum_blocks(x * index, block)`, row by row: XLA for CPUs would put the product into memory."""
    by_row = [a.reshape(a.shape[0], a.shape[1] // block[0], block[0], *a.shape[2:]) for a in (x, index)]
    rows = [[jax.lax.index_in_dim(a, u, axis=2, keepdims=False) for a in by_row] for u in range(block[0])]
    products = [x * index for x, index in rows]
    return sum_blocks(sum(products[1:], products[0]), (1, block[1]))


@_sum_products.defjvp
def _sum_products_jvp(block: Pair, primals: Arrays, tangents: Arrays) -> tuple[jax.Array, jax.Array]:
    change = jax.jvp(lambda x, index: sum_blocks(x * index, block), primals, tangents)[1]
    return _sum_products(*primals, block), change


@by_rows("x", "index", reach=lambda **_: 0)
def indexed_upsample(x: jax.Array, index: jax.Array, *, scale: int | Pair = 2) -> jax.Array:
    """Indexed upsampling: nearest interpolation, times an index per HR pixel.

        out[i, j, c] = index[i, j, c] * x[floor(i / sy), floor(j / sx), c]

    A NaN in x spoils the outputs of its region, one in the index its own output, also where the other is 0.
    Cost: one multiplication per output entry.

    Args:
        x: LR map [B, h, w, C].
        index: index map [B, sy*h, sx*w, C], or [B, sy*h, sx*w, 1] for one map that all channels share.
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        HR map [B, sy*h, sx*w, C] in the dtype of x; products are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> index = jnp.array([[0.0, 1.0], [0.5, 0.25]]).reshape(1, 2, 2, 1)
        >>> indexed_upsample(jnp.full((1, 1, 1, 1), 8.0), index)[0, :, :, 0]
        Array([[0., 8.],
               [4., 2.]], dtype=float32)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 4.
    """
    check_image("x", x)
    (sy, sx), (batch, height, width, channels) = pair("scale", scale), x.shape
    return _indexed_upsample(x, _check_index(index, (batch, sy * height, sx * width, channels)), (sy, sx))


@jit(static_argnums=2)
def _indexed_upsample(x: jax.Array, index: jax.Array, scale: Pair) -> jax.Array:
    dtype = accum_dtype(x, index)
    return (index.astype(dtype) * fill_blocks(x.astype(dtype), scale)).astype(x.dtype)


def _check_index(index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Require an index map for an HR map of this shape."""
    check_image("index", index)
    check_shape("index", index, (*shape[:3], None))
    if index.shape[3] not in (1, shape[3]):
        fail("index", f"1 or {shape[3]} channels", f"shape {index.shape}")
    return index


def check_regions(x: jax.Array, scale: int | Pair) -> Pair:
    """Require an image that regions of `scale` pixels tile, and return the scale as a pair."""
    sy, sx = pair("scale", scale)
    check_divides("scale", sy, "height", x.shape[1])
    check_divides("scale", sx, "width", x.shape[2])
    return sy, sx
