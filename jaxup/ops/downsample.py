"""Weighted sums over windows that move in steps: the counterparts of reassembly that make maps smaller.

Pixels of one phase form a map of cells, so that a window of pixels becomes, phase by phase, a window of cells.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_divides,
    check_float,
    check_image,
    check_int,
    check_shape,
    fail,
    jit,
    pair,
)
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import Offsets, neighbour, pad_window, split_phases, strided_offsets, window_average


@by_rows("x", "kernels", reach=lambda scale, kernel_size, **_: -(-(kernel_size // 2) // pair("scale", scale)[0]))
def downsample_reassemble(
    x: jax.Array, kernels: jax.Array, *, scale: int | Pair, kernel_size: int, groups: int = 1
) -> jax.Array:
    r"""Weighted sum over the K x K window of pixels around every cell of sy x sx pixels: `reassemble` the other way.

    With b = floor((K - 1) / 2) and g the group of channel c (consecutive channels form a group):

        out[i, j, c] = \sum_{p, q} kernels[i, j, g, p*K + q] * x[sy*i + p - b, sx*j + q - b, c]

    x is zero outside the image. At scale 2 an even window is centred on the cell, an odd one on its first pixel.
    Kernels are used as given: nothing is normalised. Cost: K^2 multiply-adds per output entry; the scratch memory
    does not grow with K^2.

    Args:
        x: HR map [B, sy*h, sx*w, C].
        kernels: weights [B, h, w, G*K*K] or [B, h, w, G, K*K], row by row over the window.
        scale: integer downsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, even or odd.
        groups: G, a divisor of C.

    Returns:
        LR map [B, h, w, C] in the dtype of x; sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, G that does not divide C, a scale that does not divide the image.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> downsample_reassemble(x, jnp.full((1, 2, 2, 4), 0.25), scale=2, kernel_size=2)[0, :, :, 0]
        Array([[ 2.5,  4.5],
               [10.5, 12.5]], dtype=float32)

    Reference:
        Dai, Lu, Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021; `bidownsample` of
        dongdong93/a2u_matting (MIT).
    """
    check_image("x", x)
    check_float("kernels", kernels)
    (sy, sx), size = pair("scale", scale), check_int("kernel_size", kernel_size)
    batch, height, width, channels = x.shape
    check_divides("scale", sy, "the height of x", height)
    check_divides("scale", sx, "the width of x", width)
    check_divides("groups", check_int("groups", groups), "the channels of x", channels)
    grid = (batch, height // sy, width // sx)
    if kernels.ndim not in (4, 5):
        fail("kernels", "4 or 5 axes [B, h, w, (G,) n]", f"shape {kernels.shape}")
    check_shape("kernels", kernels, grid + ((groups, size**2) if kernels.ndim == 5 else (groups * size**2,)))
    return _downsample_reassemble(x, kernels.reshape(*grid, groups, size, size), (sy, sx))


@jit(static_argnums=2)
def _downsample_reassemble(x: jax.Array, kernels: jax.Array, scale: Pair) -> jax.Array:
    *grid, groups, size, _ = kernels.shape
    cells = x.reshape(*x.shape[:3], groups, x.shape[3] // groups)
    total = jnp.zeros((1,) * 7, accum_dtype(x, kernels))
    for phase, offsets, radius, (rows, cols) in _strided_windows(cells, size, scale):
        weights = kernels[..., rows, cols].reshape(*grid, groups, len(offsets))
        total = total + window_average(weights[:, :, None, :, None], phase, offsets, radius)
    return total[:, :, 0, :, 0].reshape(*grid, x.shape[3]).astype(x.dtype)


def strided_filter(x: jax.Array, filters: jax.Array, scale: Pair) -> jax.Array:
    """Depthwise convolution with a stride, with filters of each image's own; zeros outside the image.

    x [B, sy*h, sx*w, C], filters [B, K, K, C], or with 1 for B or C -> [B, h, w, C] in the dtype of accumulation.
    """
    dtype = accum_dtype(x, filters)
    total = jnp.zeros((1,) * 4, dtype)
    for phase, offsets, radius, (rows, cols) in _strided_windows(x.astype(dtype), filters.shape[1], scale):
        taps = filters[:, rows, cols].astype(dtype)
        taps = taps.reshape(taps.shape[0], len(offsets), taps.shape[3])
        for n, offset in enumerate(offsets):
            total = total + taps[:, None, None, n] * neighbour(phase, offset, radius)
    return total


def _strided_windows(
    x: jax.Array, size: int, scale: Pair
) -> Iterator[tuple[jax.Array, Offsets, Pair, tuple[slice, slice]]]:
    """Per phase that the window meets: its padded cells, offsets and radius, and its rows and columns of the window."""
    phases = split_phases(x, scale)
    for u, rows in enumerate(strided_offsets(size, scale[0])):
        for v, cols in enumerate(strided_offsets(size, scale[1])):
            if rows and cols:
                radius = max(abs(dy) for dy, _ in rows), max(abs(dx) for dx, _ in cols)
                offsets = tuple((dy, dx) for dy, _ in rows for dx, _ in cols)
                taps = slice(rows[0][1], None, scale[0]), slice(cols[0][1], None, scale[1])
                yield pad_window(phases[:, :, u, :, v], radius), offsets, radius, taps
