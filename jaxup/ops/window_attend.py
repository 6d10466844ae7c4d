"""Attention of queries on one grid over the keys on another, inside a window around the same place in the image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_divides, check_image, check_int, check_shape, fail, jit, known
from jaxup.ops.rows import by_rows
from jaxup.ops.softmax import softmax
from jaxup.ops.tiling import TILE_BYTES, by_strips, cut, fill_tiles, map_tiles

# Larger tiles of queries see many keys that only some of them may attend to.
_LONGEST_TILE = 16

# A function that says how often each key counts for each query, [queries, keys] of an axis, and its last argument.
Reach = tuple[Callable[[int, int, Any], np.ndarray], Any]

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def window_bounds(queries: int, keys: int, ratio: float) -> np.ndarray:
    """First key and the one behind the last that each query may attend to along one axis, [queries, 2].

    floor(max(p - ratio, 0) n) .. ceil(min(p + ratio, 1) n), p = (i + 1/2) / queries, n keys, in float32 as the
    official code has it; at least one key; all of them for ratio 0.
    """
    if ratio == 0:
        return np.tile([0, keys], (queries, 1))
    centre = (np.arange(queries, dtype=np.float32) + np.float32(0.5)) / np.float32(queries)
    start = np.floor(np.clip(centre - np.float32(ratio), 0, 1) * np.float32(keys)).astype(int)
    stop = np.ceil(np.clip(centre + np.float32(ratio), 0, 1) * np.float32(keys)).astype(int)
    return np.stack([start, np.maximum(stop, start + 1)], axis=1)


@by_rows("query", "key", "value", reach=lambda **_: None)
def window_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, window_ratio: float, num_heads: int = 1
) -> jax.Array:
    r"""Average of the values in a window of the LR grid, by the mean over heads of softmaxed scaled dot products.

        out[i] = sum_{j in N(i)} a[i, j] v[j],    a[i, j] = 1/M sum_m softmax_{j in N(i)}(q_m[i] . k_m[j] / sqrt(D/M))

    with M heads of D/M consecutive channels. N(i) holds the LR cells that reach into the box of +-`window_ratio` times
    the image around pixel i (see `window_bounds`). The grids may have any two sizes. Queries are processed in tiles,
    each with the part of the LR map that it can see, and anew in the backward pass: scratch memory beside padded
    copies of the arguments is bounded. Cost: (D + C) |N| multiply-adds per output pixel, and up to a few times that
    where neighbouring queries have different windows.

    Args:
        query: [B, H, W, D].
        key: [B, h, w, D].
        value: [B, h, w, C].
        window_ratio: half the size of the window in units of the image, a number >= 0; 0 is the whole map.
        num_heads: M, a divisor of D.

    Returns:
        [B, H, W, C] in the dtype of value; scores and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, an LR map without a cell, M that does not divide D, a negative
            ratio.

    Example:
        >>> import jax.numpy as jnp
        >>> value = jnp.array([0.0, 1.0, 2.0, 9.0]).reshape(1, 1, 4, 1)
        >>> query, key = jnp.zeros((1, 1, 8, 2)), jnp.zeros((1, 1, 4, 2))
        >>> window_attend(query, key, value, window_ratio=0.25).ravel()
        Array([0.5, 0.5, 1. , 1. , 4. , 4. , 5.5, 5.5], dtype=float32)

    Reference:
        Window attention of AnyUp, wimmerth/anyup (CC BY 4.0), with a mask.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_image(name, x)
    check_shape("key", key, (query.shape[0], None, None, query.shape[3]))
    check_shape("value", value, (*key.shape[:3], None))
    check_divides("num_heads", check_int("num_heads", num_heads), "the channels of query", query.shape[3])
    if isinstance(window_ratio, str) or np.ndim(window_ratio) or not 0 <= window_ratio < np.inf:
        fail("window_ratio", "a number >= 0", repr(window_ratio))
    return attend_counted(query, key, value, (_window_counts, float(window_ratio)), num_heads)


def _window_counts(queries: int, keys: int, ratio: float) -> np.ndarray:
    cells, bounds = np.arange(keys), window_bounds(queries, keys, ratio)
    return (cells >= bounds[:, :1]) & (cells < bounds[:, 1:])


@jit(static_argnums=(3, 4, 5))
def attend_counted(
    query: jax.Array, key: jax.Array, value: jax.Array, reach: Reach, heads: int, by_head: bool = False
) -> jax.Array:
    """Attention along both axes of which each cell counts as often as a table [queries, keys] of each axis says.

    Args:
        query: [B, H, W, D].
        key: [B, h, w, D].
        value: [B, h, w, C].
        reach: a function that makes the table of an axis, and what it is called with after both lengths.
        heads: a divisor of D.
        by_head: whether each head averages its own block of value channels; the mean over heads has them all.

    Returns:
        [B, H, W, C].
    """
    shape = (query.shape[0], query.shape[1], query.shape[2], query.shape[3])
    return _attention(shape, accum_dtype(query, key, value), key, value, reach, heads, by_head)(query)


def attend_strips(
    queries: Callable[[jax.Array], jax.Array],
    shape: tuple[int, int, int, int],
    key: jax.Array,
    value: jax.Array,
    *,
    reach: Reach,
    heads: int,
    by_head: bool,
    rows: int,
) -> jax.Array:
    """`attend_counted` of queries [B, H, W, D] = `shape` of which `queries(first)` makes `rows`, a multiple of 16.

    They have the dtype of the keys.
    """
    batch, height, width, _ = shape
    strips = -(-height // rows)
    firsts = np.minimum(np.arange(strips) * rows, height - rows)
    order = (firsts[:, None] + np.arange(rows)).ravel()
    attend = _attention(shape, accum_dtype(key, value), key, value, reach, heads, by_head, order)

    @partial(jax.checkpoint, prevent_cse=False)
    def strip(n: jax.Array, first: jax.Array) -> jax.Array:
        return attend(queries(first), n * rows)

    return by_strips(strip, jnp.zeros_like(value, shape=(batch, height, width, value.shape[3])), rows)


def _attention(
    shape: tuple[int, int, int, int],
    dtype: Any,
    key: jax.Array,
    value: jax.Array,
    reach: Reach,
    heads: int,
    by_head: bool,
    order: np.ndarray | None = None,
) -> Callable[..., jax.Array]:
    """Attention of the rows of queries from a place on, among all in `order`, computed tile by tile in `dtype`."""
    batch, height, width, depth = shape
    counts = [reach[0](n, m, reach[1]) for n, m in zip((height, width), key.shape[1:3], strict=True)]
    counts[0] = counts[0] if order is None else counts[0][order]
    bounds = [_bounds(table) for table in counts]
    side = _LONGEST_TILE
    while side > 1 and max(1, known(batch)) * heads * side**2 * _cells(bounds, side) * dtype.itemsize > TILE_BYTES:
        side //= 2
    tile = (min(side, height), min(side, width))
    starts, extents, often = zip(*(_tiles(*args) for args in zip(bounds, tile, counts, strict=True)), strict=True)
    keys, values, scale = key.astype(dtype), value.astype(dtype), jnp.asarray((depth / heads) ** 0.5, dtype)
    pixels, cells = tile[0] * tile[1], extents[0] * extents[1]

    def one(query: jax.Array, row: jax.Array, col: jax.Array) -> jax.Array:
        corner = jnp.asarray(starts[0])[row], jnp.asarray(starts[1])[col]
        # Plain lists of pixels and cells: with both image axes in the products, XLA for CPUs crashed under `vmap`.
        q = (query.astype(dtype) / scale).reshape(batch, pixels, depth)
        k, v = (cut(x, *corner, extents).reshape(batch, cells, x.shape[3]) for x in (keys, values))
        q, k = (x.reshape(*x.shape[:2], heads, depth // heads) for x in (q, k))
        scores = _einsum("bnhd,bmhd->bhnm", q, k)
        rows, cols = jnp.asarray(often[0], dtype)[row], jnp.asarray(often[1], dtype)[col]
        times = (rows[:, None, :, None] * cols[None, :, None, :]).reshape(1, 1, pixels, cells)
        weights = softmax(jnp.where(times > 0, scores + jnp.log(jnp.maximum(times, 1)), -jnp.inf))
        if by_head:
            out = _einsum("bhnm,bmhc->bnhc", weights, v.reshape(batch, cells, heads, -1))
            return out.reshape(batch, *tile, values.shape[3])
        # As a product: XLA for CPUs would take the softmax of all heads anew for every value channel of a mean.
        mean = _einsum("h,bhnm->bnm", jnp.full(heads, 1 / heads, dtype), weights)
        out = _einsum("bnm,bmc->bnc", mean, v)
        return out.reshape(batch, *tile, values.shape[3])

    def attend(query: jax.Array, first: int | jax.Array = 0) -> jax.Array:
        filled = fill_tiles(query, tile)

        def at(top: jax.Array, left: jax.Array) -> jax.Array:
            return one(cut(filled, top, left, tile), (first + top) // tile[0], left // tile[1])

        return map_tiles(at, (query.shape[1], query.shape[2]), tile).astype(value.dtype)

    return attend


def _bounds(counts: np.ndarray) -> np.ndarray:
    """First key that counts and the one behind the last, [queries, 2]."""
    seen = counts > 0
    return np.stack([seen.argmax(1), counts.shape[1] - seen[:, ::-1].argmax(1)], axis=1)


def _tiles(bounds: np.ndarray, side: int, counts: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Per tile along one axis: the first key that is cut out, how many are, and how often each counts for whom."""
    first, extent = _spans(bounds, side)
    first = np.minimum(first, counts.shape[1] - extent)
    rows = np.pad(counts, ((0, len(first) * side - len(counts)), (0, 0)), mode="edge").reshape(len(first), side, -1)
    cells = first[:, None] + np.arange(extent)
    return first.astype(np.int32), extent, np.take_along_axis(rows, cells[:, None], axis=2)


def _spans(bounds: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """The first key that each tile of queries sees, and how many the tile that sees most does."""
    count = -(-len(bounds) // side)
    parts = np.pad(bounds, ((0, count * side - len(bounds)), (0, 0)), mode="edge").reshape(count, side, 2)
    first, behind = parts[..., 0].min(1), parts[..., 1].max(1)
    return first, int((behind - first).max())


def _cells(bounds: list[np.ndarray], side: int) -> int:
    """An upper bound of the keys that a tile of side x side queries sees."""
    return int(np.prod([_spans(b, side)[1] for b in bounds]))
