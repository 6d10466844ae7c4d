"""The convolution of a resized map, by products at the map's own size."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.pointwise import on_cpus, pointwise_conv
from jaxup.ops.resize import resize, row_table

# Part of the multiply-adds up to which this is faster: of kernels up to 3 x 3, for which Winograd's form saves the
# others more, and of larger ones.
_PART, _PART_OF_LARGE = 0.35, 0.45


def convolve_resized(
    x: jax.Array, kernel: jax.Array, size: Pair, *, method: str = "bilinear", align_corners: bool = False
) -> jax.Array:
    """A convolution of a resized map, with stride 1 and as many zeros around as keep its size.

        y[i, j] = sum over a, b of u[i + a - r, j + b - r] kernel[a, b],    u = resize(x, size=size)

    Interpolation and a linear map of channels may change places, so that pixels of x meet all entries of the kernel
    first, and the results are interpolated and shifted, along columns and then along rows, as products with matrices
    [H, h] and [W, w]. The resized map is never made. From h x w to H x W, C channels to F, K x K entries, that takes

        h w C K K F + h w W K K F + h H W K F    multiply-adds in the place of    H W C K K F.

    With K = 1 it is done where the map grows, and nothing is shifted. With more it is done on CPUs, where it is less
    than about a third (`resizes_last`): 5 x 5 of 2048 channels from 8 x 8 to 128 x 128 take 5 ms in the place of 490 on
    one core, and with gradients 12 in the place of 1330; of 512 channels from 16 x 16 to 32 x 32 24 of 37, and 56 of
    165. A NaN in x spoils all of y then.

    Args:
        x: [B, h, w, C].
        kernel: [K, K, C, F], K odd.
        size: (H, W).
        method: of `resize`: "nearest", "bilinear" or "bicubic".
        align_corners: of `resize`.

    Returns:
        [B, H, W, F] in the dtype of x; sums are in float32 or more.

    Example:
        >>> x, kernel = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 3, 3, 1))
        >>> convolve_resized(x, kernel, (4, 4))[0, :, :, 0]
        Array([[12., 18., 18., 12.],
               [18., 27., 27., 18.],
               [18., 27., 27., 18.],
               [12., 18., 18., 12.]], dtype=float32)
    """
    how: dict[str, Any] = dict(size=size, method=method, align_corners=align_corners)
    if not resizes_last(x, kernel, size):
        return convolve_layer(resize(x, **how), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if kernel.shape[:2] == (1, 1):
        return resize(pointwise_conv(x, kernel, (1, 1), "VALID"), **how)
    return _resized_products(x, kernel, **how)


def resizes_last(x: jax.Array, kernel: jax.Array, size: Pair) -> bool:
    """Whether `convolve_resized` makes no resized map; with larger kernels on CPUs alone, where it was measured."""
    (height, width), (rows, columns, channels, _) = x.shape[1:3], kernel.shape
    if not all(isinstance(n, int) for n in (height, width, *size)) or (height, width) == tuple(size):
        return False
    if rows == columns == 1:
        return height * width <= size[0] * size[1]
    split = any(axis is not None for axis in jax.typeof(x).sharding.spec[1:])
    part = height * width / (size[0] * size[1]) + height * width / (size[0] * channels) + height / (rows * channels)
    return on_cpus() and not split and part <= (_PART if rows <= 3 else _PART_OF_LARGE)


def _resized_products(x: jax.Array, kernel: jax.Array, size: Pair, method: str, align_corners: bool) -> jax.Array:
    dtype, (rows, columns, channels, features) = accum_dtype(x), kernel.shape
    batch, height, width, _ = x.shape
    to_rows = jnp.asarray(_shifted(height, size[0], rows, method, align_corners), dtype)
    to_columns = jnp.asarray(_shifted(width, size[1], columns, method, align_corners), dtype)
    # Columns first: in front, they are multiplied from the left, without copies of what is larger than x.
    of_columns = x.astype(dtype).transpose(2, 0, 1, 3)
    kernels = kernel.astype(dtype).transpose(1, 2, 0, 3).reshape(columns, channels, rows * features)
    parts = [
        _product("Ww,wbhf->Wbhf", to_columns[b], jnp.einsum("wbhc,cf->wbhf", of_columns, kernels[b]))
        for b in range(columns)
    ]
    total = sum(parts[1:], parts[0]).reshape(size[1], batch, height, rows, features)
    total = total.transpose(1, 2, 3, 0, 4).reshape(batch, height * rows, size[1], features)
    total = total.reshape(batch, height * rows, size[1] * features)  # axis by axis, or a batch split over devices fails
    of_rows = to_rows.transpose(1, 2, 0).reshape(size[0], height * rows)
    return _product("Hn,bnf->bHf", of_rows, total).reshape(batch, *size, features).astype(x.dtype)


def _product(subscripts: str, matrix: jax.Array, y: jax.Array) -> jax.Array:
    """Interpolation in full precision."""
    return jnp.einsum(subscripts, matrix, y, precision=jax.lax.Precision.HIGHEST)


@lru_cache(maxsize=64)
def _shifted(n: int, m: int, taps: int, method: str, align_corners: bool) -> np.ndarray:
    """[taps, m, n]: the matrices of interpolation from n to m lines, shifted, with zeros for lines outside."""
    indices, weights = row_table(n, m, method, align_corners=align_corners)
    matrix = np.zeros((m + taps - 1, n))
    np.add.at(matrix, (taps // 2 + np.broadcast_to(np.arange(m), indices.shape), indices), weights)
    return np.stack([matrix[tap : tap + m] for tap in range(taps)])
