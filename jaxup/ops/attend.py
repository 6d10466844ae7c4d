"""Attention upsampling: masked attention over the low-resolution cells inside a K x K window of the output grid."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_divides,
    check_float,
    check_image,
    check_int,
    check_odd,
    check_shape,
    fail,
    jit,
    known,
    pair,
)
from jaxup.ops.attend_phases import Cells, Positions, average, by_phase, position_table, position_terms, reached
from jaxup.ops.attend_tiles import Tiles, attend_in_tiles, tiles
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import held, window_offsets

# Windows up to K = 5 go phase by phase, offset by offset: two to five times as fast as tiles with K = 3, and up to half
# as fast again with K = 5. Small maps are not worth that: tiles compile two to four times as fast. Nor are heads of
# fewer channels than stand here by K: scores, and for gradients sums for positions, 2 K to a head, take much memory.
_MANY, _THIN = 1 << 16, {1: 16, 3: 16, 5: 64}

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@by_rows("query", "key", "value", reach=lambda scale, kernel_size, **_: reached(kernel_size, pair("scale", scale))[0])
def attention_upsample(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    scale: int | Pair,
    kernel_size: int,
    positions: tuple[jax.Array, jax.Array] | None = None,
    num_heads: int = 1,
    scaled: bool = False,
) -> jax.Array:
    r"""Attention-based upsampling: masked dot-product attention in a K x K window of the HR grid.

    Key and value are thought of as zero-upsampled, and only their original positions may be attended to:

        z[i, j] = sum_{(a, b)} softmax_{(a, b)}(q[i, j] . (k[a, b] + p[a - i, b - j])) v[a, b]

    over the (a, b) inside the image and inside the K x K window centred at (i, j) with a mod sy = 0 and
    b mod sx = 0; p[d, e] = px[d + r] || py[e + r], r = (K - 1) / 2. Windows without such a position give zeros.
    Every (phase, neighbour) pair that survives the mask is visited once: K^2 dot products and K^2 averages per LR
    cell, instead of K^2 per HR pixel. Zero-upsampled maps are never made.
    A NaN in key or value spoils the outputs whose windows hold its position, one in the query its own output; of an HR
    key, what is not read does not count.

    Args:
        query: HR queries [B, sy*h, sx*w, D].
        key: keys, LR [B, h, w, D], or HR [B, sy*h, sx*w, D] (the joint form: read at the allowed positions).
        value: LR values [B, h, w, Cv].
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd; the window is measured on the HR grid. K >= 2*max(scale) - 1 leaves no window empty.
        positions: None, or the pair (px, py) of learned relative positions [K, D/2]: px by row offset, py by column.
        num_heads: heads are consecutive blocks of channels; it divides D and Cv. p is cut into heads as k is.
        scaled: divide the scores by sqrt(D / num_heads) (Eqs. 1 to 3; Eqs. 7 and 12 do not).

    Returns:
        HR map [B, sy*h, sx*w, Cv] in the dtype of value; scores and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, an even K, a scale below 1, heads that do not divide the channels.

    Example:
        >>> import jax.numpy as jnp
        >>> query, key = jnp.zeros((1, 4, 4, 8)), jnp.zeros((1, 2, 2, 8))
        >>> value = jnp.array([[0.0, 4.0], [8.0, 12.0]]).reshape(1, 2, 2, 1)
        >>> attention_upsample(query, key, value, scale=2, kernel_size=3)[0, :, :, 0]
        Array([[ 0.,  2.,  4.,  4.],
               [ 4.,  6.,  8.,  8.],
               [ 8., 10., 12., 12.],
               [ 8., 10., 12., 12.]], dtype=float32)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Eqs. 7 to 15. In Eq. 12 the mask stands inside the
        product with q; it is meant, and computed here, as added to the score.
    """
    (sy, sx), window = pair("scale", scale), check_odd("kernel_size", kernel_size)
    heads = check_int("num_heads", num_heads)
    check_image("value", value)
    _check_maps(query, key, value.shape[:3], (sy, sx), heads)
    check_divides("num_heads", heads, "the channels of value", value.shape[3])
    if positions is not None:
        _check_positions(positions, window, query.shape[-1])
    return _attention_upsample(query, key, value, positions, (sy, sx), window, heads, bool(scaled))


@by_rows("query", "key", reach=lambda scale, kernel_size, **_: reached(kernel_size, pair("scale", scale))[0])
def attention_kernels(
    query: jax.Array,
    key: jax.Array,
    *,
    scale: int | Pair,
    kernel_size: int,
    positions: tuple[jax.Array, jax.Array] | None = None,
    num_heads: int = 1,
    scaled: bool = False,
) -> jax.Array:
    """The weights with which `attention_upsample` averages, as kernels over low-resolution cells.

        attention_upsample(query, key, value) = reassemble(value, attention_kernels(query, key), kernel_size=n)

    where n = 2 ceil(((K - 1) / 2) / min(scale)) + 1: as many cells as the window K can touch in a row. For looking at
    them and for analysis; `attention_upsample` makes no array that grows with n^2.

    Args:
        query: HR queries [B, sy*h, sx*w, D].
        key: keys, LR [B, h, w, D], or HR [B, sy*h, sx*w, D].
        scale: as in `attention_upsample`, like all that follow.
        kernel_size: K, odd, on the HR grid.
        positions: None, or the pair (px, py).
        num_heads: G, heads.
        scaled: divide the scores by sqrt(D / num_heads).

    Returns:
        [B, sy*h, sx*w, G, n*n], row by row over the window of cells, in the dtype of query: not negative, with the
        sum 1, or 0 where the window has no cell. Cells that it cannot touch have the weight 0.

    Raises:
        ValueError: as in `attention_upsample`.

    Example:
        >>> import jax.numpy as jnp
        >>> query, key = jnp.zeros((1, 4, 4, 8)), jnp.zeros((1, 2, 2, 8))
        >>> attention_kernels(query, key, scale=2, kernel_size=3)[0, 1, 0, 0].reshape(3, 3)
        Array([[0. , 0. , 0. ],
               [0. , 0.5, 0. ],
               [0. , 0.5, 0. ]], dtype=float32)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Eqs. 7 to 15.
    """
    factors, window, heads = (
        pair("scale", scale),
        check_odd("kernel_size", kernel_size),
        check_int("num_heads", num_heads),
    )
    check_image("query", query)
    for name, factor, length in zip(("height", "width"), factors, query.shape[1:3], strict=True):
        check_divides("scale", factor, f"the {name} of query", length)
    cells = (query.shape[0], query.shape[1] // factors[0], query.shape[2] // factors[1])
    _check_maps(query, key, cells, factors, heads)
    if positions is not None:
        _check_positions(positions, window, query.shape[-1])
    return _attention_kernels(query, key, positions, factors, window, heads, bool(scaled))


@jit(static_argnums=(4, 5, 6, 7))
def _attention_upsample(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    positions: Positions | None,
    scale: Pair,
    window: int,
    heads: int,
    scaled: bool,
) -> jax.Array:
    dtype = accum_dtype(query, key, value)
    radius = reached(window, scale)
    if key.shape[1:3] == query.shape[1:3]:
        key = key[:, :: scale[0], :: scale[1]]
    if _goes_by_phase(query, window, heads):
        q, k, v = (_split_heads(held(x.astype(dtype)), heads) for x in (query, key, value))

        def read(weights: jax.Array, cells: Cells) -> jax.Array:
            return average(weights, (v,), cells, radius) if cells else jnp.zeros_like(v)

        out = by_phase(q, k, positions, scale, window, scaled, read)
        return out.reshape(*query.shape[:3], value.shape[3]).astype(value.dtype)

    def tap(pixels: np.ndarray, cells: np.ndarray, axis: int) -> np.ndarray:
        taps = scale[axis] * cells - pixels + window // 2
        return np.where((taps >= 0) & (taps < window), taps, -1)

    out = attend_in_tiles(
        _heads(query.astype(dtype), heads),
        _heads(key.astype(dtype), heads),
        _heads(value.astype(dtype), heads),
        tiles((value.shape[1], value.shape[2]), scale, radius, tap),
        factor=(query.shape[-1] / heads) ** -0.5 if scaled else 1.0,
        inside=True,
        # Stacked here: arrays of this trace, also where a caller of `over_rows` closes over them.
        positions=None if positions is None else partial(_position_scores, tuple(jnp.stack(positions))),
    )
    return out.reshape(*out.shape[:3], value.shape[3]).astype(value.dtype)


def _goes_by_phase(query: jax.Array, window: int, heads: int) -> bool:
    """Not in tiles. On CPUs alone, for nowhere else was it measured."""
    large = known(query.size, _MANY) >= _MANY and window in _THIN and query.shape[-1] >= _THIN[window] * heads
    return large and jax.default_backend() == "cpu"


def _position_scores(positions: Positions, query: jax.Array, over: Tiles) -> jax.Array:
    """Products q . p for every pixel and cell of a tile: [B, T, pixels, G, D] -> [B, T, G, pixels, cells].

    Where that is less work, q meets the K entries of the two parts of p first, and the cells read what belongs to them
    by a product with zeros and ones.
    """
    window, heads = positions[0].shape[0], query.shape[3]
    rows, cols = over.taps
    if 2 * window > over.near.shape[1]:
        table = position_table(positions, query)
        of_cells = table[rows.clip(0)[:, None, :, None], cols.clip(0)[None, :, None, :]]
        of_cells = of_cells.reshape(*over.near.shape, heads, -1)
        return _einsum("btqgd,qkgd->btgqk", query, of_cells)
    entries = np.arange(window)
    square = (*rows.shape[:1], *cols.shape[:1], rows.shape[1], cols.shape[1], window)
    by_row, by_col = rows[:, :, None] == entries, cols[:, :, None] == entries
    chosen = [np.broadcast_to(taps, square) for taps in (by_row[:, None, :, None], by_col[None, :, None])]
    selected = jnp.asarray(over.flat(np.concatenate(chosen, axis=-1)), query.dtype)
    return _einsum("btqgn,qkn->btgqk", position_terms(positions, query), selected)


@jit(static_argnums=(3, 4, 5, 6))
def _attention_kernels(
    query: jax.Array, key: jax.Array, positions: Positions | None, scale: Pair, window: int, heads: int, scaled: bool
) -> jax.Array:
    radius = max(reached(window, scale))
    order = window_offsets(2 * radius + 1)

    def place(weights: jax.Array, cells: Cells) -> jax.Array:
        """The weights of a phase, whose cells are known, in the order of the whole window."""
        chosen = np.array([[float(offset == other) for other in order] for offset, _ in cells]).reshape(-1, len(order))
        return jnp.matmul(weights, jnp.asarray(chosen, weights.dtype), precision=jax.lax.Precision.HIGHEST)

    if key.shape[1:3] == query.shape[1:3]:
        key = key[:, :: scale[0], :: scale[1]]
    dtype = accum_dtype(query, key)
    q, k = (_split_heads(x.astype(dtype), heads) for x in (query, key))
    kernels = by_phase(q, k, positions, scale, window, scaled, place)
    return kernels.reshape(*query.shape[:3], heads, len(order)).astype(query.dtype)


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, heads, C / heads]; no axis for one head: XLA's loops would take twice as long."""
    return x if heads == 1 else _heads(x, heads)


def _heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, heads, C / heads]."""
    return x.reshape(*x.shape[:3], heads, x.shape[-1] // heads)


def _check_positions(positions: tuple[jax.Array, jax.Array], window: int, channels: int) -> None:
    if channels % 2:
        fail("query", "an even number of channels where positions are given", channels)
    for name, part in zip(("positions[0]", "positions[1]"), positions, strict=True):
        check_float(name, part)
        check_shape(name, part, (window, channels // 2))


def _check_maps(query: jax.Array, key: jax.Array, cells: tuple[int, ...], scale: Pair, heads: int) -> None:
    """Require a query on the HR grid over cells [B, h, w], and a key on either grid."""
    for name, x in (("query", query), ("key", key)):
        check_image(name, x)
    batch, height, width = cells
    grid, depth = (batch, scale[0] * height, scale[1] * width), query.shape[-1]
    check_shape("query", query, (*grid, depth))
    if key.shape not in ((*cells, depth), (*grid, depth)):
        fail("key", f"shape {(*cells, depth)} or {(*grid, depth)}", f"shape {key.shape}")
    check_divides("num_heads", heads, "the channels of query", depth)
