"""UPLiFT of large images, by strips of rows: equal results, and no map of the image's size but the output.

All of a doubling is local: its strip of rows follows from a strip of the map before, and of the image, with margins.
Maps that fill memory are not kept, but made anew for each strip of the one that follows, and so are those of the image
encoder, of which smaller maps need some pixels alone: at 2048 x 2048 these are computed five times.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import Pair, known
from jaxup.nn.uplift_layers import Group, Noise
from jaxup.ops.resize import resize, row_table, some_rows
from jaxup.ops.tiling import STRIP_BYTES, by_strips

if TYPE_CHECKING:
    from jaxup.nn.uplift import UPLiFT

_REACH = 2  # cells, of the local attender
_KEPT = 2 * STRIP_BYTES  # bytes of a map that is kept
_STRIP = 3 * STRIP_BYTES // 2  # bytes of one that is cut, beside those of the encoder


def in_strips(up: "UPLiFT", x: jax.Array, image: jax.Array, count: int) -> bool:
    """Whether the maps are large, and rows of them depend on rows around alone."""
    pixels = max(1, known(x.shape[0], 1)) * x.shape[1] * x.shape[2] * 4**count
    large = 4 * pixels * (x.shape[3] + sum(up.encoder.features)) > 4 * STRIP_BYTES
    return bool(large and _local(up))


def _local(up: "UPLiFT") -> bool:
    plain = up.share_encoder and up.resample == "nearest" and not up.noise[0] and up.refiner is None
    groups = [up.coarse, up.fine, *up.encoder.groups]
    blocks = [block for group in groups for block in group.blocks]
    norms = [norm for block in blocks for norm in block.norms]
    trained = any(isinstance(norm, nnx.BatchNorm) and not norm.use_running_average for norm in norms)
    same = all(down.kind == "none" and not down.residual for down in up.encoder.downs)
    return plain and same and not trained and all(block.stride == 1 for block in blocks)


def upsample(up: "UPLiFT", x: jax.Array, image: jax.Array, count: int, size: Pair) -> jax.Array:
    """The last of `count` doublings of x under an image, resized with antialiasing."""
    steps = sum(4 * x.size * 4**i <= _KEPT for i in range(1, count))
    if steps:
        maps = _samples(up, image, _size(x, steps - 1))
        for _ in range(steps):
            x = up.step(x.astype(up.dtype), maps, Noise(None, None)).astype(x.dtype)
    return _whole(up, x, image, count - steps, size)


def _size(x: jax.Array, steps: int) -> Pair:
    return x.shape[1] * 2**steps, x.shape[2] * 2**steps


def _whole(up: "UPLiFT", x: jax.Array, image: jax.Array, steps: int, size: Pair) -> jax.Array:
    """The map so many steps behind x, at this size."""
    (height, width), own = size, _size(x, steps)
    row_bytes = 8 * max(1, known(x.shape[0], 1)) * own[1] * (x.shape[3] + 2 * up.fine.features)
    rows = max(1, min(height, _STRIP // row_bytes))
    table = row_table(own[0], height, "bilinear", antialias=True)
    low = np.where(table[1] != 0, table[0], own[0]).min(0)
    behind = np.where(table[1] != 0, table[0], 0).max(0) + 1
    firsts = np.minimum(np.arange(-(-height // rows)) * rows, height - rows)
    span = int((behind[firsts + rows - 1] - low[firsts]).max())
    starts = jnp.asarray(np.minimum(low[firsts], own[0] - span))

    @partial(jax.checkpoint, prevent_cse=False)
    def strip(n: jax.Array, first: jax.Array) -> jax.Array:
        part = _rows(up, x, image, steps, starts[n], span)
        if size != own:
            part = some_rows(part, table, first, rows, starts[n])
            part = resize(part, size=(rows, width), method="bilinear", antialias=True)
        return part.astype(x.dtype)

    return by_strips(strip, jnp.zeros_like(x, shape=(x.shape[0], height, width, x.shape[3])), rows)


def _rows(up: "UPLiFT", x: jax.Array, image: jax.Array, steps: int, first: Any, count: int) -> jax.Array:
    """Rows of the map so many steps behind x."""
    if steps == 0:
        return jax.lax.dynamic_slice_in_dim(x, first, count, axis=1)
    height, width = _size(x, steps - 1)
    # What a cell's pixels depend on: convolutions behind the enlargement, which reads a cell, and before; or averages.
    margin = max(_REACH, -(-_convolutions(up.fine) // 2) + 1 + _convolutions(up.coarse))
    cells = min(height, count // 2 + 1 + 2 * margin)
    start = jnp.clip(first // 2 - margin, 0, height - cells)
    before = _rows(up, x, image, steps - 1, start, cells)
    maps = _encoded(up, image, start, cells, (height, width))
    y = up.step(before.astype(up.dtype), maps, Noise(None, None), rows=(start, height)).astype(x.dtype)
    return jax.lax.dynamic_slice_in_dim(y, first - 2 * start, count, axis=1)


def _samples(up: "UPLiFT", image: jax.Array, grid: Pair) -> list[jax.Array]:
    """The last two maps of the image encoder at the places of these cells, and of cells half as large."""
    batch, height, width, _ = image.shape
    row_bytes = 8 * max(1, known(batch, 1)) * width * sum(up.encoder.features[-2:])
    cells = max(1, min(grid[0], STRIP_BYTES * grid[0] // (height * row_bytes)))
    sizes = [(batch, n * grid[0], n * grid[1], f) for n, f in zip((2, 1), up.encoder.features[-2:], strict=True)]

    def put(n: jax.Array, maps: list[jax.Array]) -> list[jax.Array]:
        first = jnp.minimum(n * cells, grid[0] - cells)
        found = _encoded(up, image, first, cells, grid)
        pairs = zip(maps, found, (2 * first, first), strict=True)
        return [jax.lax.dynamic_update_slice_in_dim(y, part, at, axis=1) for y, part, at in pairs]

    start = [jnp.zeros_like(image, shape=shape) for shape in sizes]
    maps: list[jax.Array] = jax.lax.fori_loop(0, -(-grid[0] // cells), jax.checkpoint(put, prevent_cse=False), start)
    return maps


def _convolutions(*groups: Group) -> int:
    return sum(len(block.convs) for group in groups for block in group.blocks)


def _encoded(up: "UPLiFT", image: jax.Array, start: jax.Array, cells: int, grid: Pair) -> list[jax.Array]:
    """The last two maps of the image encoder, of some rows of cells; the first of them on a grid twice as fine."""
    margin, height = _convolutions(*up.encoder.groups), image.shape[1]
    seen = min(height, -(-cells * height // grid[0]) + 1 + 2 * margin)
    top = jnp.clip(start * height // grid[0] - margin, 0, height - seen)
    *_, fine, coarse = up.encoder(jax.lax.dynamic_slice_in_dim(image, top, seen, axis=1))
    found = []
    for y, times in ((fine, 2), (coarse, 1)):
        rows = (times * start + jnp.arange(times * cells)) * height // (times * grid[0]) - top
        y = jnp.take(y, rows, axis=1, mode="clip")
        found.append(resize(y, size=(times * cells, times * grid[1]), method="nearest"))
    return found
