"""Attention of the pixels over each other's cells, tile by tile: what a window sees is a part of what its tile sees.

The pixels of t x t cells attend, masked, to all the (t + 2 r)^2 cells that some of their windows hold: every sum is a
batched product of matrices, forward and in its gradients. Strips of tiles come one after the other, and are computed
anew in the backward pass, so that the scores never fill more than a fixed memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, fail, known
from jaxup.ops.softmax import WEIGHTS, masked_softmax
from jaxup.ops.tiling import TILE_BYTES
from jaxup.ops.windows import merge_phases

# Pixels along a side of a tile: products of matrices of that many squared rows.
_SIDE = 8

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

PositionScores = Callable[[jax.Array, "Tiles"], jax.Array]


class Tiles(NamedTuple):
    """Tiles of cells, and which of the cells around them each of their pixels attends to."""

    scale: Pair
    side: Pair  # cells
    reach: Pair  # further cells that it sees on each side
    taps: tuple[np.ndarray, np.ndarray]  # per axis [pixels, cells]: the entry of the window, or -1 outside of it

    @property
    def near(self) -> np.ndarray:
        """Whether the window of a pixel holds a cell: [pixels, cells]."""
        rows, cols = (tap >= 0 for tap in self.taps)
        return self.flat(rows[:, None, :, None] & cols[None, :, None, :])

    def flat(self, x: np.ndarray) -> np.ndarray:
        """[rows, columns of pixels, rows, columns of cells, ...] -> [pixels, cells, ...]."""
        return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3], *x.shape[4:])


def tiles(size: Pair, scale: Pair, reach: Pair, tap: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Tiles:
    """Tiles for a map of `size` cells; `tap` of pixels and cells, counted from those of the first, and the axis."""
    if not all(isinstance(n, int) for n in size):
        fail("x", "a height and width that are known while tracing (only the batch may be symbolic)", f"shape {size}")
    sides = [max(1, min(_SIDE // s, n)) for n, s in zip(size, scale, strict=True)]
    pixels = (np.arange(t * s)[:, None] for t, s in zip(sides, scale, strict=True))
    cells = (np.arange(-r, t + r)[None] for t, r in zip(sides, reach, strict=True))
    rows, cols = (tap(p, c, axis) for axis, (p, c) in enumerate(zip(pixels, cells, strict=True)))
    return Tiles(scale, (sides[0], sides[1]), reach, (rows, cols))


def attend_in_tiles(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    over: Tiles,
    *,
    factor: float = 1.0,
    inside: bool,
    positions: PositionScores | None = None,
) -> jax.Array:
    """Softmax of products over windows, and the average: pixels [B, sy h, sx w, G, D], cells [B, h, w, G, D or C].

    Args:
        query: of every pixel.
        key: of every cell.
        value: of every cell.
        over: the tiles.
        factor: of all scores.
        inside: attend to cells of the image only; else those outside are zeros and have the score 0.
        positions: further scores of queries [B, T, pixels, G, D]: [B, T, G, pixels, cells].

    Returns:
        [B, sy h, sx w, G, C]; zero where a window has no cell.
    """
    (height, width), (ty, tx), (sy, sx), (ry, rx) = value.shape[1:3], over.side, over.scale, over.reach
    batch, heads = value.shape[0], value.shape[3]
    columns, wanted = -(-width // tx), -(-height // ty)
    row_bytes = known(batch) * heads * columns * over.near.size * value.dtype.itemsize
    # Beside the scores of a strip there are a few arrays of their size: little, too, where there are few pixels.
    most = min(TILE_BYTES, known(query.size, TILE_BYTES) * query.dtype.itemsize // 4)
    fewest = max(1, -(-wanted // max(1, most // max(1, row_bytes))))
    most_strips = max(fewest, min(2 * fewest, wanted))
    strips = min(range(fewest, most_strips + 1), key=lambda n: -wanted % n)  # without padding, where that can be
    rows = -(-wanted // strips)

    def whole(x: jax.Array, s: Pair, r: Pair = (0, 0)) -> jax.Array:
        ends = [
            (r[a], n * s[a] - length + r[a])
            for a, (n, length) in enumerate(zip((strips * rows * ty, columns * tx), x.shape[1:3], strict=True))
        ]
        return jnp.pad(x, [(0, 0), *ends, *[(0, 0)] * (x.ndim - 3)])

    real = np.zeros((1, strips * rows * ty + 2 * ry, columns * tx + 2 * rx, 1), bool)
    real[:, ry : ry + height, rx : rx + width] = True
    seen = [_overlapping(whole(x, (1, 1), over.reach), 1, rows * ty, strips, 2 * ry) for x in (key, value)]
    seen.append(_overlapping(jnp.asarray(real), 1, rows * ty, strips, 2 * ry))
    queries = _split(whole(query, over.scale), 1, strips)
    near = jnp.asarray(over.near)

    def strip(parts: tuple[jax.Array, ...]) -> jax.Array:
        q, k, v, ok = (_tiled(parts[0], rows, columns), *(_cells(x, over, rows, columns) for x in parts[1:]))
        scores = _einsum("btqgd,btkgd->btgqk", q, k)
        if positions is not None:
            scores = scores + positions(q, over)
        allowed = near[None, None, None] & (ok[:, :, None, None, :, 0] if inside else True)
        weights = masked_softmax(scores * factor, allowed)
        # In a product the weight 0 of a cell outside the window would not keep what is not finite away.
        finite = jnp.where(jnp.isfinite(v), v, 0)
        if heads == 1:  # with its axis the product would have channels before pixels, and be turned round afterwards
            out = _einsum("btqk,btkc->btqc", weights[:, :, 0], finite[:, :, :, 0])[:, :, :, None]
        else:
            out = _einsum("btgqk,btkgc->btqgc", weights, finite)
        out = _split(_split(out, 2, ty * sy), 1, rows)
        return merge_phases(jnp.swapaxes(out, 2, 3)) + jax.lax.stop_gradient(_spoilt(parts[2], over))

    # Where the weights take less than half of what queries and results do, they need not be computed anew.
    kept = [WEIGHTS] if 2 * over.near.shape[1] < query.shape[4] + value.shape[4] else []
    out = _map_second(strip, (queries, *seen), jax.checkpoint_policies.save_only_these_names(*kept))
    return out.reshape(out.shape[0], strips * out.shape[2], *out.shape[3:])[:, : sy * height, : sx * width]


def _map_second(
    fn: Callable[[tuple[jax.Array, ...]], jax.Array], arrays: tuple[jax.Array, ...], policy: Callable[..., Any]
) -> jax.Array:
    """`jax.lax.map` along the second axis, computed anew in the backward pass but for what a policy keeps.

    Without axes of length 1 meanwhile, for which XLA copies whole arrays.
    """
    parts = [jnp.moveaxis(x, 1, 0) for x in arrays]
    shapes = [x.shape[1:] for x in parts]
    of_result: list[tuple[int, ...]] = []

    # Of what is given, which the loop has already: of other shapes it would keep copies.
    @partial(jax.checkpoint, prevent_cse=False, policy=policy)
    def one(xs: tuple[jax.Array, ...]) -> jax.Array:
        out = fn(tuple(x.reshape(shape) for x, shape in zip(xs, shapes, strict=True)))
        of_result.append(out.shape)
        return out.reshape(_longer(out.shape))

    out = jax.lax.map(one, tuple(x.reshape(x.shape[0], *_longer(x.shape[1:])) for x in parts))
    return jnp.moveaxis(out.reshape(out.shape[0], *of_result[0]), 0, 1)


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if known(n, 0) != 1)


def _split(x: jax.Array, axis: int, count: int) -> jax.Array:
    return x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])


def _overlapping(x: jax.Array, axis: int, length: int, count: int, more: int) -> jax.Array:
    """[.., count * length + more, ..] -> [.., count, length + more, ..]: parts with the first entries of the next."""
    further = -(-more // length)
    widths = [(0, (count + further) * length - x.shape[axis] if a == axis else 0) for a in range(x.ndim)]
    parts = _split(jnp.pad(x, widths), axis, count + further)

    def cut(first: int) -> jax.Array:
        part = jax.lax.slice_in_dim(parts, first, first + count, axis=axis)
        return jax.lax.slice_in_dim(part, 0, min(length, (1 - first) * length + more), axis=axis + 1)

    return jnp.concatenate([cut(n) for n in range(1 + further)], axis=axis + 1) if more else cut(0)


def _tiled(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """A strip [B, rows p, columns q, ...] as its tiles [B, T, p q, ...]."""
    return _listed(_split(_split(x, 2, columns), 1, rows))


def _cells(x: jax.Array, over: Tiles, rows: int, columns: int) -> jax.Array:
    """What the tiles of a strip see: [B, T, cells, ...]."""
    (ty, tx), (ry, rx) = over.side, over.reach
    return _listed(_overlapping(_overlapping(x, 2, tx, columns, 2 * rx), 1, ty, rows, 2 * ry))


def _listed(x: jax.Array) -> jax.Array:
    """[B, rows, p, columns, q, ...] -> [B, rows columns, p q, ...]."""
    batch, rows, p, columns, q = x.shape[:5]
    tiles = jnp.swapaxes(x, 2, 3).reshape(batch, rows * columns, p, q, *x.shape[5:])
    return tiles.reshape(batch, rows * columns, p * q, *x.shape[5:])  # JAX follows a split batch through one at a time


def _spoilt(value: jax.Array, over: Tiles) -> jax.Array:
    """What is not finite in the window of every pixel, and zeros, of cells with those around them that are seen."""
    x = jnp.where(jnp.isfinite(value), 0, value)
    for axis, (s, r, taps) in enumerate(zip(over.scale, over.reach, over.taps, strict=True)):
        at, length = 1 + 2 * axis, value.shape[1 + axis] - 2 * r
        phases = []
        for tap in taps[:s]:  # the pixels of the first cell
            cells = [jax.lax.slice_in_dim(x, c, c + length, axis=at) for c in np.flatnonzero(tap >= 0).tolist()]
            phases.append(
                sum(cells[1:], cells[0]) if cells else jnp.zeros_like(jax.lax.slice_in_dim(x, 0, length, axis=at))
            )
        x = jnp.stack(phases, axis=at + 1)
    return merge_phases(x)
