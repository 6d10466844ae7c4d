"""Tiles: images computed one part after the other, so that what each part needs in between never fills memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, known
from jaxup.ops.linear import linear
from jaxup.ops.windows import merge_phases

# What one tile may hold at a time.
TILE_BYTES = 4 << 20
# What one strip of `in_strips` may: images that need less are computed at once.
STRIP_BYTES = 256 << 20
# What one strip of `in_cached_strips` may on CPUs, where it is to stay in the cache.
CACHED_BYTES = 1 << 20


def map_tiles(fn: Callable[[jax.Array, jax.Array], jax.Array], size: Pair, tile: Pair) -> jax.Array:
    """[B, H, W, ...] from `fn(top, left)` -> [B, th, tw, ...], one tile after the other.

    The last tiles of a row or column may reach beyond the image and are cut. The backward pass computes every tile
    anew, so that its memory does not grow with their number either.
    """
    rows, cols = (-(-n // t) for n, t in zip(size, tile, strict=True))
    index = jnp.arange(rows * cols)
    corners = (index // cols * tile[0], index % cols * tile[1])
    tiles = jax.lax.map(jax.checkpoint(lambda corner: fn(*corner), prevent_cse=False), corners)
    tiles = tiles.reshape(rows, cols, *tiles.shape[1:])
    return merge_phases(tiles.transpose(2, 0, 3, 1, 4, *range(5, tiles.ndim)))[:, : size[0], : size[1]]


def in_strips(
    fn: Callable[..., jax.Array],
    x: jax.Array,
    *images: jax.Array,
    margin: int,
    row_bytes: int,
    channels: int | None = None,
    dtype: Any = None,
) -> jax.Array:
    """`fn(x, *images)`, by strips of rows if all of them need too much memory.

    The result has the shape and dtype of x, if neither its channels nor its dtype are given.

    A strip sees `margin` rows more on both sides, or what the image has of them, and is computed anew in the backward
    pass: equal results, if `fn` reads no further and treats the borders of a strip like those of the image.
    """
    height, rows = known(x.shape[1], 0), _rows(row_bytes, margin)
    if not needs_strips(x, margin=margin, row_bytes=row_bytes):
        return fn(x, *images)
    seen = rows + 2 * margin

    @partial(jax.checkpoint, prevent_cse=False)
    def strip(first: jax.Array) -> jax.Array:
        start = jnp.clip(first - margin, 0, height - seen)
        part = fn(*(jax.lax.dynamic_slice_in_dim(z, start, seen, axis=1) for z in (x, *images)))
        return jax.lax.dynamic_slice_in_dim(part, first - start, rows, axis=1)

    out = jnp.zeros_like(x, dtype, shape=(*x.shape[:3], x.shape[3] if channels is None else channels))
    return by_strips(lambda _, first: strip(first), out, rows)


def needs_strips(x: jax.Array, *, margin: int, row_bytes: int) -> bool:
    """Whether `in_strips` makes several of an image."""
    height = known(x.shape[1], 0)
    return height * row_bytes > STRIP_BYTES and _rows(row_bytes, margin) + 2 * margin < height


def _rows(row_bytes: int, margin: int) -> int:
    return max(1, STRIP_BYTES // max(1, row_bytes) - 2 * margin, 2 * margin)


def in_cached_strips(
    fn: Callable[..., jax.Array],
    cells: tuple[jax.Array, ...],
    pixels: tuple[jax.Array, ...],
    whole: tuple[jax.Array, ...],
    *,
    margin: int,
    channels: int,
    planes: int,
) -> jax.Array:
    """`fn(*cells, *pixels, *whole)` -> [B, H, W, channels], by strips of rows: on CPUs, such that stay in the cache.

    Axis 1 of `cells`, [B, h + 2 margin, ...], has the margin of the window around each cell, which is where a strip
    ends too; that of `pixels`, of which the first is [B, H, W, ...] with H = s h, is cut where cells begin; all are
    floating-point arrays, and `fn` closes over none. `planes` are the numbers per pixel that are needed at a time. The
    backward pass computes each strip anew, and adds to the gradients in place.
    """
    batch, total, width = pixels[0].shape[:3]
    height = cells[0].shape[1] - 2 * margin
    scale = total // max(1, height)
    row_bytes = known(batch) * scale * known(width) * planes * pixels[0].dtype.itemsize
    most = CACHED_BYTES if jax.default_backend() == "cpu" else STRIP_BYTES
    rows = min(max(1, most // max(1, row_bytes)), height)
    if rows == height:
        return fn(*cells, *pixels, *whole)
    strips = _Strips(fn, rows, scale, margin, channels, len(cells), len(cells) + len(pixels))
    return _over_strips(strips, (*cells, *pixels, *whole))


class _Strips(NamedTuple):
    """What `in_cached_strips` goes by; of its arrays, the first few are cells, and the next ones pixels."""

    fn: Callable[..., jax.Array]
    rows: int
    scale: int
    margin: int
    channels: int
    cells: int
    cut: int

    def part(self, arrays: tuple[jax.Array, ...], first: jax.Array) -> tuple[jax.Array, ...]:
        """What the strip sees that begins at a row of the result."""
        return tuple(self._place(n, first, x)[0] for n, x in enumerate(arrays))

    def add(
        self, totals: tuple[jax.Array, ...], parts: tuple[jax.Array, ...], first: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Parts added to where they were cut out."""
        added = []
        for n, (total, part) in enumerate(zip(totals, parts, strict=True)):
            seen, start = self._place(n, first, total)
            added.append(seen + part if n >= self.cut else _put(total, seen + part, start))
        return tuple(added)

    def _place(self, n: int, first: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if n >= self.cut:
            return x, first
        at_cells = n < self.cells
        start = first // self.scale if at_cells else first
        count = self.rows + 2 * self.margin if at_cells else self.scale * self.rows
        return jax.lax.dynamic_slice_in_dim(x, start, count, axis=1), start

    def fill(self, fn: Callable[[jax.Array], jax.Array], arrays: tuple[jax.Array, ...]) -> jax.Array:
        """The result, of what is made of each strip."""
        like = arrays[self.cells]
        out = jnp.zeros_like(like, shape=(*like.shape[:3], self.channels))
        return by_strips(lambda _, first: fn(first), out, self.scale * self.rows)


def _put(total: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(total, part, start, axis=1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _over_strips(strips: _Strips, arrays: tuple[jax.Array, ...]) -> jax.Array:
    return strips.fill(lambda first: strips.fn(*strips.part(arrays, first)), arrays)


@_over_strips.defjvp
def _over_strips_jvp(strips: _Strips, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (arrays,), (changes,) = primals, tangents
    count = len(arrays)

    def forward(*both: jax.Array) -> tuple[jax.Array]:
        given, moved = both[:count], both[count:]

        def strip(first: jax.Array) -> jax.Array:
            change: jax.Array = jax.jvp(strips.fn, strips.part(given, first), strips.part(moved, first))[1]
            return change

        return (strips.fill(strip, given),)

    def back(*given_and_ct: jax.Array) -> tuple[jax.Array, ...]:
        """Where the last strip overlaps the one before, those rows count once."""
        given, ct = given_and_ct[:count], given_and_ct[count]
        rows, height = strips.scale * strips.rows, ct.shape[1]

        def add(n: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            first = jnp.minimum(n * rows, height - rows)
            new = jnp.arange(rows)[None, :, None, None] >= n * rows - first
            part = jnp.where(new, jax.lax.dynamic_slice_in_dim(ct, first, rows, axis=1), 0)
            pulled = jax.vjp(strips.fn, *strips.part(given, first))[1](part)
            return strips.add(totals, pulled, first)

        found: tuple[jax.Array, ...] = jax.lax.fori_loop(0, -(-height // rows), add, tuple(map(jnp.zeros_like, given)))
        return found

    return _over_strips(strips, arrays), linear(forward, back, arrays, changes)[0]


def by_strips(fn: Callable[[jax.Array, jax.Array], jax.Array], out: jax.Array, rows: int) -> jax.Array:
    """`out` [B, H, W, ...] with all rows replaced by those of `fn(number, first)`, [B, rows, W, ...], strip by strip.

    The last strip ends where the image does, and overlaps the one before if need be.
    """

    def put(n: jax.Array, out: jax.Array) -> jax.Array:
        first = jnp.minimum(n * rows, out.shape[1] - rows)
        return jax.lax.dynamic_update_slice_in_dim(out, fn(n, first), first, axis=1)

    filled: jax.Array = jax.lax.fori_loop(0, -(-out.shape[1] // rows), put, out)
    return filled


def cut(x: jax.Array, top: jax.Array, left: jax.Array, size: Pair) -> jax.Array:
    """The part [B, size, ...] of [B, H, W, ...] at a traced corner; it has to lie inside."""
    rows = jax.lax.dynamic_slice_in_dim(x, top, size[0], axis=1)
    return jax.lax.dynamic_slice_in_dim(rows, left, size[1], axis=2)


def fill_tiles(x: jax.Array, tile: Pair, radius: int = 0) -> jax.Array:
    """Zeros behind [B, H, W, ...] so that all tiles are full; H and W may include a margin of `radius` on each side."""
    extra = [(0, -(n - 2 * radius) % t) for n, t in zip(x.shape[1:3], tile, strict=True)]
    return jnp.pad(x, [(0, 0), *extra] + [(0, 0)] * (x.ndim - 3))
