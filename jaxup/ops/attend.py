"""Attention upsampling: masked attention over the low-resolution cells inside a K x K window of the output grid."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
from jaxup.ops.attend_tiles import Tiles, attend_in_tiles, tiles
from jaxup.ops.linear import bilinear
from jaxup.ops.rows import by_rows
from jaxup.ops.softmax import masked_softmax
from jaxup.ops.windows import (
    Offset,
    held,
    in_memory,
    inside,
    merge_phases,
    neighbour,
    occupied_offsets,
    pad_window,
    phase_blocks,
    split_phases,
    sum_by_halves,
    window_offsets,
)

Positions = tuple[jax.Array, jax.Array]
Cells = tuple[tuple[Offset, Pair], ...]  # their places seen from a pixel's own cell, and in the window
Near = tuple[jax.Array, ...]  # a map of cells, or that and positions

# Windows up to K = 5 go phase by phase, offset by offset: two to five times as fast as tiles with K = 3, and up to half
# as fast again with K = 5. Small maps are not worth that: tiles compile two to four times as fast. Nor are heads of
# fewer channels than stand here by K: scores, and for gradients sums for positions, 2 K to a head, take much memory.
_MANY, _THIN = 1 << 16, {1: 16, 3: 16, 5: 64}

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@by_rows("query", "key", "value", reach=lambda scale, kernel_size, **_: _radius(kernel_size, pair("scale", scale))[0])
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


@by_rows("query", "key", reach=lambda scale, kernel_size, **_: _radius(kernel_size, pair("scale", scale))[0])
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
    radius = _radius(window, scale)
    if key.shape[1:3] == query.shape[1:3]:
        key = key[:, :: scale[0], :: scale[1]]
    if _goes_by_phase(query, window, heads):
        q, k, v = (_split_heads(held(x.astype(dtype)), heads) for x in (query, key, value))

        def average(weights: jax.Array, cells: Cells) -> jax.Array:
            return _average(weights, (v,), cells, radius) if cells else jnp.zeros_like(v)

        out = _by_phase(q, k, positions, scale, window, heads, scaled, average)
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
        table = _position_table(positions, query)
        of_cells = table[rows.clip(0)[:, None, :, None], cols.clip(0)[None, :, None, :]]
        of_cells = of_cells.reshape(*over.near.shape, heads, -1)
        return _einsum("btqgd,qkgd->btgqk", query, of_cells)
    entries = np.arange(window)
    square = (*rows.shape[:1], *cols.shape[:1], rows.shape[1], cols.shape[1], window)
    by_row, by_col = rows[:, :, None] == entries, cols[:, :, None] == entries
    chosen = [np.broadcast_to(taps, square) for taps in (by_row[:, None, :, None], by_col[None, :, None])]
    selected = jnp.asarray(over.flat(np.concatenate(chosen, axis=-1)), query.dtype)
    return _einsum("btqgn,qkn->btgqk", _position_terms(positions, query), selected)


def _position_terms(positions: Positions, query: jax.Array) -> jax.Array:
    """Products of queries [..., G, D] with the K entries of px and those of py: [..., G, 2 K]; or all without G."""
    px, py = (part.astype(query.dtype) for part in positions)
    window, half = px.shape
    parts = jnp.concatenate([jnp.pad(px, ((0, 0), (0, half))), jnp.pad(py, ((0, 0), (half, 0)))])
    if query.shape[-1] == 2 * half:
        return _einsum("...d,nd->...n", query, parts)
    return _einsum("...gd,ngd->...gn", query, parts.reshape(2 * window, *query.shape[-2:]))


@jit(static_argnums=(3, 4, 5, 6))
def _attention_kernels(
    query: jax.Array, key: jax.Array, positions: Positions | None, scale: Pair, window: int, heads: int, scaled: bool
) -> jax.Array:
    radius = max(_radius(window, scale))
    order = window_offsets(2 * radius + 1)

    def place(weights: jax.Array, cells: Cells) -> jax.Array:
        """The weights of a phase, whose cells are known, in the order of the whole window."""
        chosen = np.array([[float(offset == other) for other in order] for offset, _ in cells]).reshape(-1, len(order))
        return jnp.matmul(weights, jnp.asarray(chosen, weights.dtype), precision=jax.lax.Precision.HIGHEST)

    if key.shape[1:3] == query.shape[1:3]:
        key = key[:, :: scale[0], :: scale[1]]
    dtype = accum_dtype(query, key)
    q, k = (_split_heads(x.astype(dtype), heads) for x in (query, key))
    kernels = _by_phase(q, k, positions, scale, window, heads, scaled, place)
    return kernels.reshape(*query.shape[:3], heads, len(order)).astype(query.dtype)


def _radius(window: int, scale: Pair) -> Pair:
    """How many cells the window reaches to on each side."""
    return -(-(window // 2) // scale[0]), -(-(window // 2) // scale[1])


def _by_phase(
    query: jax.Array,
    key: jax.Array,
    positions: Positions | None,
    scale: Pair,
    window: int,
    heads: int,
    scaled: bool,
    read: Callable[[jax.Array, Cells], jax.Array],
) -> jax.Array:
    """[B, H, W, G, ...] of what `read` makes of each phase's weights [B, h, w, G, N] over its N cells; no G if one."""
    radius, size = _radius(window, scale), (key.shape[1], key.shape[2])
    rows, cols = occupied_offsets(window, scale[0]), occupied_offsets(window, scale[1])
    phases = tuple(tuple(((dy, dx), (a, b)) for dy, a in row for dx, b in col) for row in rows for col in cols)
    near = (key,) if positions is None else (key, *(part.astype(key.dtype) for part in positions))
    scores = _scores(split_phases(query, scale), near, phases, radius)
    factor = query.shape[-1] ** -0.5 if scaled else 1.0

    def phase(scores: jax.Array, cells: Cells) -> jax.Array:
        if not cells:
            return read(scores, cells)
        mask = jnp.stack([inside(size, offset) for offset, _ in cells], axis=-1)
        mask = mask.reshape(*size, *[1] * (scores.ndim - 4), -1)
        return read(masked_softmax(scores * factor, mask), cells)

    return merge_phases(_join(list(map(phase, _cut(scores, phases), phases)), scale))


# For one phase what `windows.window_average` and the like are for blocks of them: with axes of length 1 for these, and
# one for a single head, XLA's loops would take twice as long.


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _average(weights: jax.Array, near: Near, cells: Cells, radius: Pair) -> jax.Array:
    """Weighted sum of neighbouring cells: [B, h, w, ..., N], [B, h, w, ..., C] -> [B, h, w, ..., C]."""
    terms = [weights[..., n, None] * other for n, other in enumerate(_neighbours(near, cells, radius))]
    return sum(terms[1:], terms[0])


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _scores(queries: jax.Array, near: Near, phases: tuple[Cells, ...], radius: Pair) -> jax.Array:
    """Products with the cells of every phase: [B, h, sy, w, sx, ..., C], [B, h, w, ..., C] -> [B, h, w, ..., all N]."""
    # One cell after the other: no array of all neighbours is made.
    pairs = [(own, other) for own, cells in _by_phases(queries, phases) for other in _neighbours(near, cells, radius)]
    return jnp.stack([sum_by_halves(own * other) for own, other in pairs], axis=-1)


def _neighbours(near: Near, cells: Cells, radius: Pair) -> list[jax.Array]:
    """Zeros outside, and with positions added, in the loops that read both."""
    padded = pad_window(near[0], radius)
    others = [neighbour(padded, offset, radius) for offset, _ in cells]
    if len(near) == 1:
        return others
    table = _position_table(near[1:], near[0])
    return [other + table[taps][None, None, None] for other, (_, taps) in zip(others, cells, strict=True)]


def _to_queries(ct: jax.Array, near: Near, phases: tuple[Cells, ...], radius: Pair, scale: Pair) -> jax.Array:
    """The transpose of `_scores` in queries."""
    pairs = zip(_cut(ct, phases), phases, strict=True)
    return _join([_average(x, near, cells, radius) if cells else jnp.zeros_like(near[0]) for x, cells in pairs], scale)


def _to_near(queries: jax.Array, weights: jax.Array, phases: tuple[Cells, ...], window: int) -> Near:
    """The transpose of `_scores`, and of `_average` for one phase, in the rest; window: K of positions, or 0."""
    pairs = zip(_by_phases(queries, phases), _cut(weights, phases), strict=True)
    terms = [_spread(x, own, cells) for (own, cells), x in pairs if cells]
    total = sum(terms[1:], terms[0])
    if not window:
        return (total,)
    heads = queries.shape[5] if queries.ndim > 6 else 1
    zeros = jnp.zeros((window, heads * queries.shape[-1] // 2), queries.dtype)

    # All pixels and taps in one product. One for each phase would need its queries once more.
    def scores(positions: Positions) -> jax.Array:
        terms = _position_terms(positions, queries)
        halves = [(jnp.split(x, 2, axis=-1), cells) for x, cells in _by_phases(terms, phases)]
        return jnp.stack([rows[..., a] + cols[..., b] for (rows, cols), cells in halves for _, (a, b) in cells], -1)

    return (total, *jax.vjp(scores, (zeros, zeros))[1](weights)[0])


def _spread(weights: jax.Array, values: jax.Array, cells: Cells) -> jax.Array:
    """Each cell gets what it gave to its neighbours: [B, h, w, ..., N], [B, h, w, ..., C] -> [B, h, w, ..., C]."""
    # With zeros in memory: in JAX's own transpose every entry of every shifted map asks whether it is one of them.
    back = [(-dy, -dx) for (dy, dx), _ in cells]
    radius = max(abs(dy) for dy, _ in back), max(abs(dx) for _, dx in back)
    weights, values = in_memory((pad_window(weights, radius), pad_window(values, radius)))
    terms = [neighbour(weights, o, radius)[..., n, None] * neighbour(values, o, radius) for n, o in enumerate(back)]
    return sum(terms[1:], terms[0])


@partial(_average.defjvp, symbolic_zeros=True)
def _average_jvp(cells: Cells, radius: Pair, primals: Any, tangents: Any) -> Any:
    window = _window(primals[1])
    return bilinear(
        lambda weights, near: _average(weights, near, cells, radius),
        lambda ct, near: _scores(ct[:, :, None, :, None], near, (cells,), radius),
        lambda weights, ct: _to_near(ct[:, :, None, :, None], weights, (cells,), window),
        primals,
        tangents,
    )


@partial(_scores.defjvp, symbolic_zeros=True)
def _scores_jvp(phases: tuple[Cells, ...], radius: Pair, primals: Any, tangents: Any) -> Any:
    scale, window = (primals[0].shape[2], primals[0].shape[4]), _window(primals[1])
    return bilinear(
        lambda queries, near: _scores(queries, near, phases, radius),
        lambda ct, near: _to_queries(ct, near, phases, radius, scale),
        lambda queries, ct: _to_near(queries, ct, phases, window),
        primals,
        tangents,
    )


def _window(near: Near) -> int:
    """K of the positions, or 0 without them."""
    return near[1].shape[0] if len(near) > 1 else 0


def _by_phases(x: jax.Array, phases: tuple[Cells, ...]) -> list[tuple[jax.Array, Cells]]:
    """[B, h, sy, w, sx, ...] -> [B, h, w, ...] of each phase, with its cells."""
    # Cut in one go, so that the gradients of all phases are joined, and not added.
    maps = [block[:, :, 0, :, 0] for row in phase_blocks(x) for block in row]
    return list(zip(maps, phases, strict=True))


def _cut(x: jax.Array, phases: tuple[Cells, ...]) -> list[jax.Array]:
    """[..., all N] -> [..., N] of each phase."""
    return list(jax.lax.split(x, [len(cells) for cells in phases], axis=x.ndim - 1))


def _join(maps: list[jax.Array], scale: Pair) -> jax.Array:
    """[B, h, w, ...] of each phase -> [B, h, sy, w, sx, ...]."""
    rows = [jnp.stack(maps[u * scale[1] : (u + 1) * scale[1]], axis=3) for u in range(scale[0])]
    return jnp.stack(rows, axis=2)


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, heads, C / heads]; no axis for one head: XLA's loops would take twice as long."""
    return x if heads == 1 else _heads(x, heads)


def _heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, heads, C / heads]."""
    return x.reshape(*x.shape[:3], heads, x.shape[-1] // heads)


def _position_table(positions: Sequence[jax.Array], like: jax.Array) -> jax.Array:
    """p[a, b] = px[a] || py[b], cut into heads as the last axes of `like` are: [K, K, G, D], or [K, K, D]."""
    px, py = (part.astype(like.dtype) for part in positions)
    square = (px.shape[0], px.shape[0], px.shape[1])
    table = jnp.concatenate([jnp.broadcast_to(px[:, None], square), jnp.broadcast_to(py[None, :], square)], axis=-1)
    return table.reshape(*square[:2], *like.shape[3:])


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
