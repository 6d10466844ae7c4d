"""Windows and phases: the one place that knows neighbour offsets, padding and the layout of an upsampled grid.

For a scale (sy, sx) a high-resolution (HR) pixel is (sy*i + u, sx*j + v): (i, j) is its source cell on the
low-resolution (LR) grid and (u, v) its phase. All phases of one cell read the same few LR neighbours, so operators
work on blocks of phases [B, h, U, w, V, G, C] over cells [B, h, w, G, C] (G groups or heads of C channels), and
nothing of size [HR, K*K, C] ever exists. Three sums over a window of N cell offsets carry every operator:

    window_average(weights, cells)[i,u,j,v,g,c]  = sum_n weights[i,u,j,v,g,n] * cells[i+dy_n, j+dx_n, g, c]
    window_scores(queries, cells)[i,u,j,v,g,n]   = sum_c queries[i,u,j,v,g,c] * cells[i+dy_n, j+dx_n, g, c]
    window_spread(weights, values)[i,j,g,c]      = sum_{n,u,v} weights[i-dy_n,u,j-dx_n,v,g,n]
                                                   * values[i-dy_n,u,j-dx_n,v,g,c]

`cells` comes padded by a `radius` (ry, rx) that holds every offset, with whatever the operator wants to see outside
the image. Each sum is bilinear, and the gradients of one are the other two: that closes them under
differentiation of any order, in either mode. They compute and return float32 (float64 for float64 inputs); their
callers cast. The loops are those that XLA fuses best: `window_average` is one fused loop of
shifted multiply-adds, `window_spread` the same phase by phase, and `window_scores` a matrix product over blocks of
rows that fit the cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype, known
from jaxup.ops.linear import bilinear, linear

Offset = tuple[int, int]
Offsets = tuple[Offset, ...]
T = TypeVar("T")

# What lies outside the image: zeros, the nearest pixel, or the image mirrored at its border pixels (not repeated).
BORDERS = ("zeros", "edge", "reflect")

# Keeps XLA from joining what makes these arrays with what reads them, though not with a copy of theirs that it makes
# itself, transposed for a product. Typed: JAX's own has no annotations.
in_memory: Callable[[T], T] = jax.lax.optimization_barrier

# Products that are summed in one loop, up to 1.9 times as fast with gradients as sums that end in a reduction. Of more,
# XLA forms arrays in memory. And those which are added one by one where no half is left.
_TERMS, _REST = 128, 16

# Neighbours that `window_scores` gathers at a time: enough to keep matrix units busy, little enough to stay in cache.
_GATHER_BYTES = 4 << 20


def held(x: jax.Array) -> jax.Array:
    """x, whose gradient is made once, by XLA for CPUs.

    That joins a sum of many terms with each of its readers, such as the products of matrices behind a projection, and
    computes it anew for every one; a barrier does not keep it from that, a loop does, here over the first two rows.
    """

    def through_loop(ct: jax.Array) -> tuple[jax.Array]:
        def keep(row: jax.Array, out: jax.Array) -> jax.Array:
            lines = jax.lax.dynamic_index_in_dim(out, jnp.maximum(row, 0), axis=1)  # what XLA does not see through
            out = jax.lax.dynamic_update_index_in_dim(out, lines, row, axis=1)
            return out

        same: jax.Array = jax.lax.fori_loop(0, 2, keep, ct)
        return (same,)

    return linear(lambda x: (x,), through_loop, (), (x,))[0]


def source_cells(low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell that holds each of `high` pixels of an axis of `low` cells, and its place in there, -1/2 .. 1/2.

    Centres are half-pixel ones, any ratio will do, and an integer one gives exactly the phases of every cell.
    """
    twice = (2 * np.arange(high) + 1) * low
    return twice // (2 * high), twice % (2 * high) / (2 * high) - 0.5


def window_offsets(kernel_size: int, dilation: int = 1) -> Offsets:
    """Offsets (dy, dx) of a centred, odd K x K window, row by row."""
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return tuple((dilation * dy, dilation * dx) for dy in reach for dx in reach)


def occupied_offsets(window: int, scale: int) -> list[list[Offset]]:
    """A centred window over a zero-upsampled axis: per phase, pairs (LR offset, index in the window) of samples."""
    radius = window // 2
    return [
        [((u + t - radius) // scale, t) for t in range(window) if (u + t - radius) % scale == 0] for u in range(scale)
    ]


def strided_offsets(window: int, scale: int) -> list[list[Offset]]:
    """A window that moves in steps of `scale`: per phase of its pixels, pairs (cell offset, index in the window).

    It starts (window - 1) // 2 pixels before phase 0 of its cell.
    """
    before = (window - 1) // 2
    return [[((t - before) // scale, t) for t in range(window) if (t - before) % scale == u] for u in range(scale)]


def pad_window(x: jax.Array, radius: Pair, border: str = "zeros") -> jax.Array:
    """Surround axes 1 and 2 of [B, H, W, ...] with `radius` pixels, one of `BORDERS`."""
    ry, rx = radius
    if border == "zeros":
        return jnp.pad(x, ((0, 0), (ry, ry), (rx, rx)) + ((0, 0),) * (x.ndim - 3))
    # In the dtype of sums: the gradient of a border pixel adds up all its copies, and each may exceed 16 bits.
    # The barrier keeps the padded map in memory: XLA would join it again, from slices, for every neighbour.
    x = x.astype(accum_dtype(x))
    return in_memory(_continue_axis(_continue_axis(x, 1, ry, border), 2, rx, border))


def _outside(length: int, radius: int, border: str) -> list[tuple[int, int]]:
    """The places outside the image on a padded axis, and the pixels that they show."""
    source = np.pad(np.arange(length), radius, mode="edge" if border == "edge" else "reflect")
    return [(place, int(source[place])) for place in (*range(radius), *range(radius + length, length + 2 * radius))]


def _continue_axis(x: jax.Array, axis: int, radius: int, border: str) -> jax.Array:
    """Joined from slices: `jnp.pad` with these modes fails on a batch sharded over an explicit mesh axis."""
    length = x.shape[axis]
    if radius == 0 or length == 0:
        return x
    places = _outside(length, radius, border)

    def join(x: jax.Array) -> tuple[jax.Array]:
        outside = [jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for _, i in places]
        return (jnp.concatenate([*outside[:radius], x, *outside[radius:]], axis=axis),)

    def fold(ct: jax.Array) -> tuple[jax.Array]:
        """In place, line by line: autodiff would make one whole map per slice."""
        total = jax.lax.slice_in_dim(ct, radius, radius + length, axis=axis)
        for place, i in places:
            more = jax.lax.slice_in_dim(ct, place, place + 1, axis=axis)
            line = jax.lax.slice_in_dim(total, i, i + 1, axis=axis) + more
            total = jax.lax.dynamic_update_slice_in_dim(total, line, i, axis=axis)
        return (total,)

    return linear(join, fold, (), (x,))[0]


def neighbour(padded: jax.Array, offset: Offset, radius: Pair) -> jax.Array:
    """The map shifted so that entry (i, j) is the neighbour at (i + dy, j + dx): a static slice of a padded map."""
    height, width = padded.shape[1] - 2 * radius[0], padded.shape[2] - 2 * radius[1]
    top, left = radius[0] + offset[0], radius[1] + offset[1]
    return padded[:, top : top + height, left : left + width]


def inside(shape: Pair, offset: Offset) -> jax.Array:
    """Boolean [h, w]: whether the neighbour at `offset` of each cell lies inside the image."""
    rows = jnp.arange(shape[0]) + offset[0]
    cols = jnp.arange(shape[1]) + offset[1]
    return ((rows >= 0) & (rows < shape[0]))[:, None] & ((cols >= 0) & (cols < shape[1]))[None, :]


def split_phases(x: jax.Array, scale: Pair) -> jax.Array:
    """[B, sy*h, sx*w, ...] -> [B, h, sy, w, sx, ...], one axis at a time like `merge_phases`."""
    batch, height, width = x.shape[:3]
    sy, sx = scale
    rows = x.reshape(batch, height // sy, sy, width, *x.shape[3:])
    return rows.reshape(batch, height // sy, sy, width // sx, sx, *x.shape[3:])


def merge_phases(x: jax.Array) -> jax.Array:
    """[B, h, sy, w, sx, ...] -> [B, sy*h, sx*w, ...], one axis at a time: a sharded batch then needs no resharding."""
    batch, height, sy, width, sx = x.shape[:5]
    rows = x.reshape(batch, height * sy, width, sx, *x.shape[5:])
    return rows.reshape(batch, height * sy, width * sx, *x.shape[5:])


def sum_blocks(x: jax.Array, block: Pair) -> jax.Array:
    """[B, sy*h, sx*w, C] -> [B, h, w, C]; by slices, as reductions over axes in the middle are slow."""
    return linear(partial(_sums, block=block), partial(_copies, block=block), (), (x,))[0]


def fill_blocks(x: jax.Array, block: Pair) -> jax.Array:
    """The transpose: [B, h, w, C] -> [B, sy*h, sx*w, C], every pixel of a block like its cell."""
    return linear(partial(_copies, block=block), partial(_sums, block=block), (), (x,))[0]


def _sums(x: jax.Array, block: Pair) -> tuple[jax.Array]:
    batch, height, width, channels = x.shape
    by_row = x.reshape(batch, height // block[0], block[0], width, channels)
    rows = [jax.lax.index_in_dim(by_row, u, axis=2, keepdims=False) for u in range(block[0])]
    total = sum(rows[1:], rows[0])
    by_column = total.reshape(batch, height // block[0], width // block[1], block[1], channels)
    columns = [jax.lax.index_in_dim(by_column, v, axis=3, keepdims=False) for v in range(block[1])]
    return (sum(columns[1:], columns[0]),)


def _copies(x: jax.Array, block: Pair) -> tuple[jax.Array]:
    batch, height, width, channels = x.shape
    return (
        merge_phases(jnp.broadcast_to(x[:, :, None, :, None], (batch, height, block[0], width, block[1], channels))),
    )


def sum_by_halves(x: jax.Array, least: int = 0) -> jax.Array:
    """Sum over the last axis, in an order that takes `least` numbers or more at a time; in float32 or more.

    With 1 there is no reduction at the end, and what makes x may be summed in the same loop. 0: as many as leave
    `_TERMS` to a loop.
    """
    return linear(partial(_halves, least=least), partial(_filled, channels=x.shape[-1]), (), (x,))[0]


def to_channels(x: jax.Array, channels: int) -> jax.Array:
    """The transpose: [..., 1] -> [..., C]. XLA's own, of sums over channels of products, takes many times as long."""
    return linear(partial(_filled, channels=channels), _halves, (), (x[..., 0],))[0]


def _halves(x: jax.Array, least: int = 0) -> tuple[jax.Array]:
    total, least = x.astype(accum_dtype(x)), least or -(-x.shape[-1] // _TERMS)
    while total.shape[-1] >= 2 * least and total.shape[-1] % 2 == 0:
        total = total[..., : total.shape[-1] // 2] + total[..., total.shape[-1] // 2 :]
    if least > 1 or total.shape[-1] > _REST:
        return (total.sum(-1).astype(x.dtype),)
    parts = jnp.unstack(total, axis=-1)
    return (sum(parts[1:], parts[0]).astype(x.dtype),)


def _filled(total: jax.Array, channels: int) -> tuple[jax.Array]:
    """A broadcast, where the transposes of slices would be joined piece by piece."""
    return (jnp.broadcast_to(total[..., None], (*total.shape, channels)),)


def phase_blocks(x: jax.Array) -> list[list[jax.Array]]:
    """Cut [B, h, sy, w, sx, ...] into sy x sx blocks of one phase, [B, h, 1, w, 1, ...] each."""
    rows = jax.lax.split(x, (1,) * x.shape[2], axis=2)
    return [list(jax.lax.split(row, (1,) * x.shape[4], axis=4)) for row in rows]


def join_blocks(blocks: list[list[jax.Array]]) -> jax.Array:
    """The inverse of `phase_blocks`."""
    return jnp.concatenate([jnp.concatenate(row, axis=4) for row in blocks], axis=2)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def window_average(weights: jax.Array, cells: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """Weighted sum of neighbouring cells: [B,h,U,w,V,G,N], [B,h+2ry,w+2rx,G,C] -> [B,h,U,w,V,G,C]."""
    dtype = accum_dtype(weights, cells)
    weights, cells = weights.astype(dtype), cells.astype(dtype)
    terms = (
        weights[..., n, None] * neighbour(cells, offset, radius)[:, :, None, :, None]
        for n, offset in enumerate(offsets)
    )
    return sum(terms, start=jnp.zeros((1,) * 7, dtype))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def window_scores(queries: jax.Array, cells: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """Inner products with neighbouring cells: [B,h,U,w,V,G,C], [B,h+2ry,w+2rx,G,C] -> [B,h,U,w,V,G,N]."""
    dtype = accum_dtype(queries, cells)
    one_phase = queries.shape[2] * queries.shape[4] == 1  # then the matrix product is a matrix-vector product
    by = _scores_by_offset if one_phase else _scores_by_rows
    return by(queries.astype(dtype), cells.astype(dtype), offsets, radius)


def _scores_by_offset(queries: jax.Array, cells: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """`window_scores` one offset after the other."""
    height, width = queries.shape[1], queries.shape[3]

    def score(start: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(cells, start[0], height, axis=1)
        window = jax.lax.dynamic_slice_in_dim(rows, start[1], width, axis=2)
        return _dot("bhuwvgc,bhwgc->bhuwvg", queries, window)

    starts = jnp.array([(radius[0] + dy, radius[1] + dx) for dy, dx in offsets])
    return jnp.moveaxis(jax.lax.map(score, starts), 0, -1)


def _scores_by_rows(queries: jax.Array, cells: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """`window_scores` over blocks of rows, so that the gathered neighbours never exceed a fixed size."""
    height = queries.shape[1]
    row = known(queries.shape[0]) * known(queries.shape[3]) * queries.shape[5] * queries.shape[6]
    row_bytes = max(1, row * queries.dtype.itemsize * len(offsets))
    blocks = max(1, -(-known(height) // max(1, _GATHER_BYTES // row_bytes)))
    rows = -(-height // blocks)
    extra = ((0, 0), (0, blocks * rows - height))
    queries = jnp.pad(queries, extra + ((0, 0),) * (queries.ndim - 2))
    cells = jnp.pad(cells, extra + ((0, 0),) * (cells.ndim - 2))

    def score(start: jax.Array) -> jax.Array:
        query = jax.lax.dynamic_slice_in_dim(queries, start, rows, axis=1)
        window = jax.lax.dynamic_slice_in_dim(cells, start, rows + 2 * radius[0], axis=1)
        gathered = jnp.stack([neighbour(window, offset, radius) for offset in offsets], axis=3)
        return _dot("bhuwvgc,bhwngc->bhuwvgn", query, gathered)

    scores = jnp.moveaxis(jax.lax.map(score, jnp.arange(blocks) * rows), 0, 1)
    return scores.reshape(scores.shape[0], blocks * rows, *scores.shape[3:])[:, :height]


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def window_spread(weights: jax.Array, values: jax.Array, offsets: Offsets, radius: Pair) -> jax.Array:
    """The transpose of `window_average` in its cells: [B,h,U,w,V,G,N], [B,h,U,w,V,G,C] -> [B,h+2ry,w+2rx,G,C]."""
    dtype = accum_dtype(weights, values)
    columns, double = weights.shape[4], (2 * radius[0], 2 * radius[1])

    def add_phase(phase: jax.Array, total: jax.Array) -> jax.Array:
        maps = (_phase(x, phase // columns, phase % columns).astype(dtype) for x in (weights, values))
        # The barrier keeps the padded maps in memory: fused into the loop below, each would be made again per offset.
        weight, value = in_memory(tuple(pad_window(x, double) for x in maps))
        for n, (dy, dx) in enumerate(offsets):
            back = (-dy, -dx)
            total = total + neighbour(weight, back, radius)[..., n, None] * neighbour(value, back, radius)
        return total

    start = pad_window(jnp.zeros_like(values[:, :, 0, :, 0], dtype), radius)
    total: jax.Array = jax.lax.fori_loop(0, weights.shape[2] * columns, add_phase, start)
    return total


def _phase(x: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Phase (u, v) of a block: [B, h, U, w, V, ...] -> [B, h, w, ...]."""
    row = jax.lax.dynamic_index_in_dim(x, u, axis=2, keepdims=False)
    phase: jax.Array = jax.lax.dynamic_index_in_dim(row, v, axis=3, keepdims=False)
    return phase


def _dot(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Einsum in full precision also where the hardware would round float32 inputs."""
    return jnp.einsum(subscripts, x, y, precision=jax.lax.Precision.HIGHEST)


Sum = Callable[[jax.Array, jax.Array, Offsets, Pair], jax.Array]


def _rule(f: Sum, of_first: Sum, of_second: Sum) -> Callable[..., Any]:
    def rule(offsets: Offsets, radius: Pair, primals: Any, tangents: Any) -> Any:
        def over(g: Sum) -> Callable[[jax.Array, jax.Array], jax.Array]:
            return lambda a, b: g(a, b, offsets, radius)

        return bilinear(over(f), over(of_first), over(of_second), primals, tangents)

    return rule


def _swapped(f: Sum) -> Sum:
    return lambda a, b, offsets, radius: f(b, a, offsets, radius)


window_average.defjvp(_rule(window_average, window_scores, window_spread), symbolic_zeros=True)
window_scores.defjvp(_rule(window_scores, window_average, _swapped(window_spread)), symbolic_zeros=True)
window_spread.defjvp(_rule(window_spread, _swapped(window_scores), window_average), symbolic_zeros=True)
