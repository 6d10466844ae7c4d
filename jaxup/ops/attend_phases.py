"""Attention phase by phase, cell by cell: what `windows.window_average` and the like are for blocks of phases.

With axes of length 1, for one phase or a single head, XLA's loops would take twice as long, so that here there are
none. Averages, scores and spreading are the gradients of each other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Pair
from jaxup.ops.linear import bilinear
from jaxup.ops.softmax import masked_softmax
from jaxup.ops.windows import (
    Offset,
    in_memory,
    inside,
    merge_phases,
    neighbour,
    occupied_offsets,
    pad_window,
    phase_blocks,
    split_phases,
    sum_by_halves,
)

Positions = tuple[jax.Array, jax.Array]
Cells = tuple[tuple[Offset, Pair], ...]  # their places seen from a pixel's own cell, and in the window
Near = tuple[jax.Array, ...]  # a map of cells, or that and positions

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def reached(window: int, scale: Pair) -> Pair:
    """How many cells the window reaches to on each side."""
    return -(-(window // 2) // scale[0]), -(-(window // 2) // scale[1])


def by_phase(
    query: jax.Array,
    key: jax.Array,
    positions: Positions | None,
    scale: Pair,
    window: int,
    scaled: bool,
    read: Callable[[jax.Array, Cells], jax.Array],
) -> jax.Array:
    """[B, H, W, G, ...] of what `read` makes of each phase's weights [B, h, w, G, N] over its N cells; no G if one."""
    radius, size = reached(window, scale), (key.shape[1], key.shape[2])
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


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def average(weights: jax.Array, near: Near, cells: Cells, radius: Pair) -> jax.Array:
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
    table = position_table(near[1:], near[0])
    return [other + table[taps][None, None, None] for other, (_, taps) in zip(others, cells, strict=True)]


def _to_queries(ct: jax.Array, near: Near, phases: tuple[Cells, ...], radius: Pair, scale: Pair) -> jax.Array:
    """The transpose of `_scores` in queries."""
    pairs = zip(_cut(ct, phases), phases, strict=True)
    return _join([average(x, near, cells, radius) if cells else jnp.zeros_like(near[0]) for x, cells in pairs], scale)


def _to_near(queries: jax.Array, weights: jax.Array, phases: tuple[Cells, ...], window: int) -> Near:
    """The transpose of `_scores`, and of `average` for one phase, in the rest; window: K of positions, or 0."""
    pairs = zip(_by_phases(queries, phases), _cut(weights, phases), strict=True)
    terms = [_spread(x, own, cells) for (own, cells), x in pairs if cells]
    total = sum(terms[1:], terms[0])
    if not window:
        return (total,)
    heads = queries.shape[5] if queries.ndim > 6 else 1
    zeros = jnp.zeros((window, heads * queries.shape[-1] // 2), queries.dtype)

    # All pixels and taps in one product. One for each phase would need its queries once more.
    def scores(positions: Positions) -> jax.Array:
        terms = position_terms(positions, queries)
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


@partial(average.defjvp, symbolic_zeros=True)
def _average_jvp(cells: Cells, radius: Pair, primals: Any, tangents: Any) -> Any:
    window = _window(primals[1])
    return bilinear(
        lambda weights, near: average(weights, near, cells, radius),
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


def position_terms(positions: Positions, query: jax.Array) -> jax.Array:
    """Products of queries [..., G, D] with the K entries of px and those of py: [..., G, 2 K]; or all without G."""
    px, py = (part.astype(query.dtype) for part in positions)
    window, half = px.shape
    parts = jnp.concatenate([jnp.pad(px, ((0, 0), (0, half))), jnp.pad(py, ((0, 0), (half, 0)))])
    if query.shape[-1] == 2 * half:
        return _einsum("...d,nd->...n", query, parts)
    return _einsum("...gd,ngd->...gn", query, parts.reshape(2 * window, *query.shape[-2:]))


def position_table(positions: Sequence[jax.Array], like: jax.Array) -> jax.Array:
    """p[a, b] = px[a] || py[b], cut into heads as the last axes of `like` are: [K, K, G, D], or [K, K, D]."""
    px, py = (part.astype(like.dtype) for part in positions)
    square = (px.shape[0], px.shape[0], px.shape[1])
    table = jnp.concatenate([jnp.broadcast_to(px[:, None], square), jnp.broadcast_to(py[None, :], square)], axis=-1)
    return table.reshape(*square[:2], *like.shape[3:])
