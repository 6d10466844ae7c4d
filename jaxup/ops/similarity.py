"""Similarity-based upsampling: attention of HR queries over the window of LR keys around their source cells."""

import jax
import numpy as np

from jaxup._checks import Pair, accum_dtype, check_image, check_odd, check_shape, jit, pair
from jaxup.ops.attend_tiles import attend_in_tiles, tiles
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import (
    merge_phases,
    pad_window,
    split_phases,
    window_offsets,
    window_scores,
)


@by_rows("query", "key", "value", reach=lambda kernel_size, **_: kernel_size // 2)
def similarity_upsample(
    query: jax.Array, key: jax.Array, value: jax.Array, *, scale: int | Pair, kernel_size: int
) -> jax.Array:
    r"""Average of the K x K low-resolution window around the source cell, weighted by likeness to the query.

    With source cell (i0, j0) = (floor(i / sy), floor(j / sx)) and offsets (a, b) of the centred window:

        z[i, j] = sum_{(a, b)} softmax_{(a, b)}(q[i, j] . k[i0 + a, j0 + b]) v[i0 + a, j0 + b]

    Key and value are zero outside the image: neighbours there have the score 0, not -inf, so that they take a share
    of the weight, and what they take is lost. Cost: K^2 (D + C) multiply-adds per output pixel.
    A NaN in key or value spoils the outputs whose windows hold its cell, one in the query its own output.

    Args:
        query: HR queries [B, sy*h, sx*w, D].
        key: LR keys [B, h, w, D].
        value: LR values [B, h, w, C].
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd, measured on the LR grid.

    Returns:
        HR map [B, sy*h, sx*w, C] in the dtype of value; scores and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, an even K or a scale below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> query, key = jnp.array([[9.0], [9.0], [0.0]]).reshape(1, 1, 3, 1), jnp.ones((1, 1, 1, 1))
        >>> similarity_upsample(query, key, key, scale=(1, 3), kernel_size=3).round(2).ravel()
        Array([1.  , 1.  , 0.11], dtype=float32)

    Reference:
        Lu et al., SAPA: Similarity-Aware Point Affiliation for Feature Upsampling, NeurIPS 2022.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_image(name, x)
    (sy, sx), size = pair("scale", scale), check_odd("kernel_size", kernel_size)
    batch, height, width, _ = value.shape
    check_shape("key", key, (batch, height, width, None))
    check_shape("query", query, (batch, sy * height, sx * width, key.shape[3]))
    return _similarity_upsample(query, key, value, (sy, sx), size)


@jit(static_argnums=(3, 4))
def _similarity_upsample(query: jax.Array, key: jax.Array, value: jax.Array, scale: Pair, size: int) -> jax.Array:
    dtype, radius = accum_dtype(query, key, value), size // 2

    def tap(pixels: np.ndarray, cells: np.ndarray, axis: int) -> np.ndarray:
        taps = cells - pixels // scale[axis] + radius
        return np.where((taps >= 0) & (taps < size), taps, -1)

    query, key, cells = (x[..., None, :].astype(dtype) for x in (query, key, value))
    over = tiles((value.shape[1], value.shape[2]), scale, (radius, radius), tap)
    out = attend_in_tiles(query, key, cells, over, inside=False)
    return out[..., 0, :].astype(value.dtype)


def similarity_scores(query: jax.Array, key: jax.Array, scale: Pair, size: int, border: str = "zeros") -> jax.Array:
    """q[i, j] . k[i0 + a, j0 + b], row by row over the window: [B, H, W, K*K] in the dtype of accumulation."""
    radius = (size // 2, size // 2)
    cells = pad_window(key, radius, border)[..., None, :]
    queries = split_phases(query[..., None, :], scale)
    return merge_phases(window_scores(queries, cells, window_offsets(size), radius))[..., 0, :]
