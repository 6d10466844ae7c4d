"""Fine-grained neighbours: windows of the bilinearly upsampled map, which is formed only where it is small."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, check_float, check_image, check_odd, check_shape, jit, pair
from jaxup.ops.resize import bilinear_phases, resize
from jaxup.ops.rows import by_rows
from jaxup.ops.tiling import in_cached_strips
from jaxup.ops.windows import merge_phases, pad_window, split_phases, window_average, window_offsets

# Channels up to which the enlarged map is cheaper than weights that are spread over cells.
_FEW = 16

# Channels up to which the weights of cells take more memory than the output, so that they are made by strips of rows.
# With gradients they took 1.5 to 2.7 times inputs and outputs; strips take 0.4 to 0.8. They take up to
# half as much time more forward, at 128 channels and a factor of 16, and up to a quarter more with gradients.
_MANY = 128


@by_rows("x", "weights", reach=lambda kernel_size, **_: kernel_size // 2 + 1)
def fine_neighbour_attention(x: jax.Array, weights: jax.Array, *, scale: int | Pair, kernel_size: int) -> jax.Array:
    r"""Weighted sum over a K x K window, dilated by the scale, of the bilinearly upsampled map.

    With x~ = bilinear(x), r = (K - 1) / 2 and positions beyond the centres of the border pixels moved onto them:

        out[i, j] = sum_{a, b} weights[i, j, (a + r) K + b + r] x~[i + a sy, j + b sx]

    At one phase, the K x K fine neighbours are K x K shifts by whole cells of one interpolation between 2 x 2 cells.
    So the weights are spread by the two taps per axis to a window of K + 2 cells, of which each phase uses K + 1, and
    the average is over those: x~ is never formed. A map continued by its border pixels, interpolated anywhere, equals
    the map read at a clamped position. With at most 16 channels x~ is formed: it is smaller than the weights then.
    Weights are used as given, nothing is normalised.
    Cost: (K + 2)^2 multiply-adds per output entry, K^2 for up to 16 channels. A NaN in x spoils the outputs that it
    counts for, with more than 16 channels all of the K + 2 x K + 2 cells around it.

    Args:
        x: LR map [B, h, w, C].
        weights: [B, sy*h, sx*w, K*K], row by row over the window.
        scale: integer upsampling factor, or a pair (vertical, horizontal); also the dilation of the window.
        kernel_size: K, odd.

    Returns:
        HR map [B, sy*h, sx*w, C] in the dtype of x; sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, an even K or a scale below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
        >>> after = jnp.zeros((1, 1, 6, 9)).at[..., 5].set(1.0)
        >>> fine_neighbour_attention(x, after, scale=(1, 2), kernel_size=3).ravel()
        Array([3., 5., 7., 8., 8., 8.], dtype=float32)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler for Direct High-Ratio Feature Upsampling, 2024, Eq. 2 and
        Sec. 4.3. The official kernel (zmhhmz/ReSFU) has the same values; its gradient with respect to x misses what
        is clamped to the last row and column, here it is complete.
    """
    check_image("x", x)
    check_float("weights", weights)
    (sy, sx), size = pair("scale", scale), check_odd("kernel_size", kernel_size)
    check_shape("weights", weights, (x.shape[0], sy * x.shape[1], sx * x.shape[2], size**2))
    return _fine_neighbour_attention(x, weights, (sy, sx), size)


@jit(static_argnums=(2, 3))
def _fine_neighbour_attention(x: jax.Array, weights: jax.Array, scale: Pair, size: int) -> jax.Array:
    weights = weights.astype(accum_dtype(x, weights))
    margin, channels = size // 2 + 1, x.shape[3]
    average = partial(_over_pixels if channels <= _FEW else _over_cells, scale=scale, size=size)
    cells = pad_window(x, (margin, margin), "edge")
    if _FEW < channels <= _MANY:
        options = dict(margin=margin, channels=channels, planes=size**2 // 2)
        return in_cached_strips(average, (cells,), (weights,), (), **options).astype(x.dtype)
    return average(cells, weights).astype(x.dtype)


def _over_pixels(cells: jax.Array, weights: jax.Array, scale: Pair, size: int) -> jax.Array:
    """The enlarged map, and windows of it whose entries are whole cells apart."""
    (sy, sx), reach = scale, size // 2
    # Without what is made of the outer half of the outermost cells.
    large = resize(cells, scale=scale)[:, sy:-sy, sx:-sx]
    offsets = tuple((sy * a, sx * b) for a, b in window_offsets(size))
    one_phase = weights[:, :, None, :, None, None]
    out = window_average(one_phase, large[..., None, :], offsets, (sy * reach, sx * reach))
    return out[:, :, 0, :, 0, 0]


def _over_cells(cells: jax.Array, weights: jax.Array, scale: Pair, size: int) -> jax.Array:
    """Weights of the cells, spread from those of the window, and no enlarged map."""
    phases = split_phases(weights, scale)
    phases = phases.reshape(*phases.shape[:5], size, size)
    for axis, s in zip((2, 4), scale, strict=True):
        phases = _spread(phases, axis, s)
    of_cells = phases.reshape(*phases.shape[:5], (size + 2) ** 2)[..., None, :]
    radius = (size // 2 + 1, size // 2 + 1)
    out = window_average(of_cells, cells[..., None, :], window_offsets(size + 2), radius)
    return merge_phases(out)[..., 0, :]


def _spread(weights: jax.Array, axis: int, scale: int) -> jax.Array:
    """Weights of K fine neighbours to those of K + 2 cells: phases in axis 2, window in axis 5; or axes 4 and 6."""
    window = 5 if axis == 2 else 6
    taps = jnp.asarray(bilinear_phases(scale), weights.dtype)

    def tap(cell: int) -> jax.Array:
        share = taps[:, cell].reshape([-1 if a == axis else 1 for a in range(7)])
        return jnp.pad(share * weights, [(cell, 2 - cell) if a == window else (0, 0) for a in range(7)])

    return tap(0) + tap(1) + tap(2)
