"""Reassembly: each HR pixel is a weighted sum of the K x K low-resolution window around its source cell."""

import jax

from jaxup._checks import (
    Pair,
    check_choice,
    check_divides,
    check_float,
    check_image,
    check_int,
    check_odd,
    check_shape,
    fail,
    jit,
    pair,
)
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import BORDERS, merge_phases, pad_window, split_phases, window_average, window_offsets


@by_rows("x", "kernels", reach=lambda kernel_size, **_: kernel_size // 2)
def reassemble(
    x: jax.Array,
    kernels: jax.Array,
    *,
    scale: int | Pair,
    kernel_size: int,
    groups: int = 1,
    border: str = "zeros",
) -> jax.Array:
    """Weighted sum over the K x K window around the source cell of every HR pixel.

    With source cell (i0, j0) = (floor(i / sy), floor(j / sx)), r = (K - 1) / 2 and g the group of channel c
    (consecutive channels form a group):

        out[i, j, c] = sum_{a, b} kernels[i, j, g, a*K + b] * x[i0 + a - r, j0 + b - r, c]

    Kernels are used as given: nothing is normalised, not at borders either. A NaN in x spoils the outputs whose windows
    hold its cell, in its channel, also with the weight 0; one in a kernel its own output, in its group.
    Cost: K^2 multiply-adds per output entry; the scratch memory does not grow with K^2.

    Args:
        x: LR map [B, h, w, C].
        kernels: weights [B, sy*h, sx*w, G*K*K] or [B, sy*h, sx*w, G, K*K], row by row over the window.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd.
        groups: G, a divisor of C.
        border: what x is outside the image: "zeros", "edge" (the nearest pixel) or "reflect" (mirrored, the border
            pixels not repeated).

    Returns:
        HR map [B, sy*h, sx*w, C] in the dtype of x; sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, an even K, G that does not divide C, an unknown border.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> centre = jnp.zeros((1, 4, 4, 9)).at[..., 4].set(1.0)
        >>> reassemble(x, centre, scale=2, kernel_size=3)[0, :, :, 0]
        Array([[0., 0., 1., 1.],
               [0., 0., 1., 1.],
               [2., 2., 3., 3.],
               [2., 2., 3., 3.]], dtype=float32)

    Reference:
        Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019, Eq. 2.
    """
    check_image("x", x)
    check_float("kernels", kernels)
    (sy, sx), size, groups = (
        pair("scale", scale),
        check_odd("kernel_size", kernel_size),
        check_int("groups", groups),
    )
    check_choice("border", border, BORDERS)
    batch, height, width, channels = x.shape
    check_divides("groups", groups, "the channels of x", channels)
    grid = (batch, sy * height, sx * width)
    if kernels.ndim not in (4, 5):
        fail("kernels", "4 or 5 axes [B, H, W, (G,) n]", f"shape {kernels.shape}")
    check_shape("kernels", kernels, grid + ((groups, size**2) if kernels.ndim == 5 else (groups * size**2,)))
    return _reassemble(x, kernels.reshape(*grid, groups, size**2), (sy, sx), size, border)


@jit(static_argnums=(2, 3, 4))
def _reassemble(x: jax.Array, kernels: jax.Array, scale: Pair, size: int, border: str) -> jax.Array:
    groups, radius = kernels.shape[3], (size // 2, size // 2)
    cells = pad_window(x.reshape(*x.shape[:3], groups, x.shape[3] // groups), radius, border)
    weights = split_phases(kernels, scale)
    out = merge_phases(window_average(weights, cells, window_offsets(size), radius))
    return out.reshape(*kernels.shape[:3], x.shape[3]).astype(x.dtype)
