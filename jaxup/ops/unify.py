"""Feature unification: maps of any number of channels become maps of one number, by a shared basis of filters."""

import jax
import jax.numpy as jnp

from jaxup._checks import accum_dtype, check_float, check_image, check_odd, check_rank, check_shape, fail, jit, known
from jaxup.ops.rows import by_rows
from jaxup.ops.softmax import softmax
from jaxup.ops.tiling import TILE_BYTES, cut, fill_tiles, map_tiles
from jaxup.ops.windows import inside, neighbour, pad_window, window_offsets


@by_rows("x", reach=lambda basis, **_: basis.shape[0] // 2)
def unify_features(x: jax.Array, basis: jax.Array) -> jax.Array:
    r"""Mean over the channels of the softmax of their responses to O filters.

    Every channel is correlated with every filter, and the sum is divided by the number of taps inside the image:

        r[i, c, o] = sum_n x[i_n, c] basis[n, o] / |{n : i_n inside}|

    At each pixel the C O responses, filters running fastest, are read again as a table R of O rows and C columns
    (R[p, m] = r[c, o] with p C + m = c O + o), and

        out[i, o] = 1/C sum_m softmax_o(R[o, m])

    The second reading is no transposition; trained weights rely on it.
    The responses are made for a block of pixels at a time. Cost: K^2 C O multiply-adds per pixel.

    Args:
        x: [B, h, w, C], any C >= 1.
        basis: filters [K, K, O], K odd.

    Returns:
        [B, h, w, O] in the dtype of x; responses and softmax are in float32 for 16-bit inputs.

    Raises:
        ValueError: a wrong rank, dtype or shape, no channel or filter, an even K.

    Example:
        >>> import jax.numpy as jnp
        >>> unify_features(jnp.ones((1, 1, 2, 1)), jnp.log(jnp.array([[[1.0, 3.0]]]))).round(2)[0, 0]
        Array([[0.25, 0.75],
               [0.25, 0.75]], dtype=float32)

    Reference:
        `LearnedFeatureUnification` of AnyUp, wimmerth/anyup (CC BY 4.0).
    """
    check_image("x", x)
    check_float("basis", basis)
    check_rank("basis", basis, 3, "[K, K, O]")
    size = check_odd("basis size", basis.shape[0])
    check_shape("basis", basis, (size, size, None))
    for name, y in (("x", x), ("basis", basis)):
        if y.shape[-1] == 0:
            fail(name, "at least one entry in the last axis", f"shape {y.shape}")
    return _unify_features(x, basis)


@jit()
def _unify_features(x: jax.Array, basis: jax.Array) -> jax.Array:
    (batch, height, width, channels), (size, _, filters) = x.shape, basis.shape
    dtype, radius, offsets = accum_dtype(x, basis), size // 2, window_offsets(size)
    pixels = max(1, TILE_BYTES // (max(1, known(batch)) * channels * filters * dtype.itemsize))
    cols = max(1, min(width, pixels))
    tile = (max(1, min(height, pixels // cols)), cols)
    padded = fill_tiles(pad_window(x.astype(dtype), (radius, radius)), tile, radius)
    table = basis.astype(dtype).reshape(size**2, filters)
    taps = sum((inside((height, width), offset).astype(dtype) for offset in offsets), jnp.zeros((), dtype))

    def unify(top: jax.Array, left: jax.Array) -> jax.Array:
        seen = cut(padded, top, left, (tile[0] + 2 * radius, tile[1] + 2 * radius))
        windows = jnp.stack([neighbour(seen, offset, (radius, radius)) for offset in offsets], axis=-1)
        responses = jnp.matmul(windows, table, precision=jax.lax.Precision.HIGHEST)
        responses = responses / cut(counts, top, left, tile)[..., None]
        flat = responses.reshape(*responses.shape[:3], channels * filters)
        read_again = flat.reshape(*flat.shape[:3], filters, channels)
        return jnp.mean(softmax(read_again, -2), axis=-1)

    counts = jnp.maximum(fill_tiles(taps[None, :, :, None], tile), 1)
    return map_tiles(unify, (height, width), tile).astype(x.dtype)
