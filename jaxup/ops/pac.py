"""Pixel-adaptive transposed convolution: a transposed convolution whose taps fade where the guide differs."""

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, check_float, check_image, check_odd, check_rank, check_shape, jit, pair
from jaxup.ops.rows import by_rows
from jaxup.ops.softmax import masked_softmax
from jaxup.ops.windows import (
    Offsets,
    inside,
    join_blocks,
    merge_phases,
    neighbour,
    occupied_offsets,
    pad_window,
    phase_blocks,
    split_phases,
    sum_by_halves,
    window_average,
)


@by_rows("x", "guide", reach=lambda kernel, scale, **_: -(-(kernel.shape[0] // 2) // pair("scale", scale)[0]))
def pac_conv_transpose(
    x: jax.Array, guide: jax.Array, kernel: jax.Array, *, scale: int | Pair, normalize_kernel: bool = False
) -> jax.Array:
    r"""Pixel-adaptive transposed convolution: zero-upsample, then a convolution modulated by likeness in the guide.

    With z = zero_upsample(x) and the K x K window N(p) of the HR pixel p, in which q - p is the place of q:

        out_p = \sum_{q in N(p)} A_pq z_q W[q - p],    A_pq = exp(-|g_p - g_q|^2 / 2)

    Only the q that hold a sample of x are computed: K^2 / (sy sx) per pixel. `normalize_kernel` divides A by its sum
    over them, which makes it a softmax: it stays defined where all A vanish. Where no sample is in reach, the
    result is 0. Multiply-adds per output pixel: K^2 / (sy sx) times G + Cin Cout, or G + Cin for shared filters.
    A NaN in x, or in the guide where a sample lies, spoils the outputs whose windows hold it; elsewhere in the guide,
    its own output.

    Args:
        x: LR map [B, h, w, Cin].
        guide: HR features g [B, sy*h, sx*w, G] that are compared, scaled so that a distance of 1 matters.
        kernel: W [K, K, Cin, Cout], K odd; or shared filters [K, K, 1, 1], by which each channel is filtered by itself.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        normalize_kernel: let the A of a pixel sum to one.

    Returns:
        HR map [B, sy*h, sx*w, Cout] in the dtype of x; A, products and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, an even K.

    Example:
        >>> import jax.numpy as jnp
        >>> x, guide = jnp.array([2.0, 8.0]).reshape(1, 1, 2, 1), jnp.array([0.0, 0.0, 9.0, 9.0]).reshape(1, 1, 4, 1)
        >>> ones = jnp.ones((3, 3, 1, 1))
        >>> pac_conv_transpose(x, guide, ones, scale=(1, 2), normalize_kernel=True).ravel()
        Array([2., 2., 8., 8.], dtype=float32)

    Reference:
        Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, Eq. 3 and Sec. 4.1; `pac.py` of
        NVlabs/pacnet (CC BY-NC-SA 4.0), where the A of a pixel all become 0 where they underflow, also if normalised.
    """
    for name, image in (("x", x), ("guide", guide)):
        check_image(name, image)
    check_float("kernel", kernel)
    check_rank("kernel", kernel, 4, "[K, K, Cin, Cout]")
    (sy, sx), size = pair("scale", scale), check_odd("kernel", kernel.shape[0])
    batch, height, width, channels = x.shape
    check_shape("guide", guide, (batch, sy * height, sx * width, None))
    shared = kernel.shape[2:] == (1, 1)
    check_shape("kernel", kernel, (size, size, *((1, 1) if shared else (channels, None))))
    return _pac_conv_transpose(x, guide, kernel, (sy, sx), bool(normalize_kernel))


@jit(static_argnums=(3, 4))
def _pac_conv_transpose(x: jax.Array, guide: jax.Array, kernel: jax.Array, scale: Pair, normalised: bool) -> jax.Array:
    (sy, sx), reach, dtype = scale, kernel.shape[0] // 2, accum_dtype(x, guide, kernel)
    radius = (-(-reach // sy), -(-reach // sx))
    # Everything in the dtype of sums: gradients of products exceed 16 bits where those of the arguments do not.
    out_dtype, x, kernel = x.dtype, x.astype(dtype), kernel.astype(dtype)
    fine = split_phases(guide.astype(dtype), scale)
    cells, samples = pad_window(x, radius), pad_window(fine[:, :, 0, :, 0], radius)
    blocks: list[list[jax.Array]] = []
    for row, rows in zip(phase_blocks(fine), occupied_offsets(kernel.shape[0], sy), strict=True):
        blocks.append([])
        for block, cols in zip(row, occupied_offsets(kernel.shape[0], sx), strict=True):
            offsets = tuple((dy, dx) for dy, _ in rows for dx, _ in cols)
            if not offsets:
                empty = jnp.zeros_like(x[:, :, None, :, None, :1])  # sharded like x
                channels = x.shape[3] if kernel.shape[2:] == (1, 1) else kernel.shape[3]
                blocks[-1].append(jnp.broadcast_to(empty, (*empty.shape[:5], channels)))
                continue
            taps = kernel[rows[0][1] :: sy, cols[0][1] :: sx].reshape(len(offsets), *kernel.shape[2:])
            adapting = _adapting_kernel(block, samples, offsets, radius, normalised)
            convolve = _filter if kernel.shape[2:] == (1, 1) else _convolve
            blocks[-1].append(convolve(adapting, cells, taps, offsets, radius))
    return merge_phases(join_blocks(blocks)).astype(out_dtype)


def _adapting_kernel(
    block: jax.Array, samples: jax.Array, offsets: Offsets, radius: Pair, normalised: bool
) -> jax.Array:
    """A of one phase [B, h, 1, w, 1, G] against the padded guide at the samples: [B, h, 1, w, 1, n]."""
    squares = [(neighbour(samples, offset, radius)[:, :, None, :, None] - block) ** 2 for offset in offsets]
    scores = -0.5 * jnp.stack([sum_by_halves(s) for s in squares], axis=-1)
    if not normalised:
        return jnp.exp(scores)
    mask = jnp.stack([inside((block.shape[1], block.shape[3]), offset) for offset in offsets], axis=-1)
    return masked_softmax(scores, mask[None, :, None, :, None])


def _filter(adapting: jax.Array, cells: jax.Array, taps: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """Each channel by itself, with the taps [n, 1, 1]."""
    weights = adapting * taps[:, 0, 0][None, None, None, None, None]
    return window_average(weights[..., None, :], cells[..., None, :], offsets, radius)[..., 0, :]


def _convolve(adapting: jax.Array, cells: jax.Array, taps: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """All channels, with the taps [n, Cin, Cout]: one matrix product per tap, so that no window is ever gathered."""
    height, width = adapting.shape[1], adapting.shape[3]

    @jax.checkpoint  # a modulated map is cheaper to make twice than to keep for every tap
    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        start, weight, matrix = tap
        rows = jax.lax.dynamic_slice_in_dim(cells, start[0], height, axis=1)
        near = jax.lax.dynamic_slice_in_dim(rows, start[1], width, axis=2)
        return total + jnp.matmul(near * weight[:, :, 0, :, 0, None], matrix), None

    starts = jnp.array([(radius[0] + dy, radius[1] + dx) for dy, dx in offsets])
    empty = jnp.zeros_like(adapting[:, :, 0, :, 0, :1])  # sharded like the input
    total = jnp.broadcast_to(empty, (*empty.shape[:3], taps.shape[2]))
    return jax.lax.scan(add, total, (starts, jnp.moveaxis(adapting, -1, 0), taps))[0][:, :, None, :, None]
