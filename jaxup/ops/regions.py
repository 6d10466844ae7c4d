"""Convolutions with one window per region of sy x sx pixels, or per pixel of the enlarged grid; and grouped ones."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype
from jaxup.ops.convolve import convolve, convolve_layer, to_kernel
from jaxup.ops.depthwise import depthwise_conv
from jaxup.ops.linear import bilinear
from jaxup.ops.windows import join_blocks, merge_phases, occupied_offsets, split_phases

_struct: Callable[..., Any] = jax.ShapeDtypeStruct  # typed: JAX's own has no annotations

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# Channels from which on a convolution for each kind of phase is faster than one with zeros for all.
_FEW = 32

# Phases of an axis that see the same cells, the offsets of those, and the kernel's entries [phases, cells].
_Alike = tuple[range, np.ndarray]


def _padding(size: Sequence[int], scale: Pair) -> list[Pair]:
    """Zeros around the image, so that windows of that size at stride `scale` are centred on the regions."""
    extra = [n - s for n, s in zip(size, scale, strict=False)]
    return [(e // 2, e - e // 2) for e in extra]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def convolve_regions(x: jax.Array, kernel: jax.Array, scale: Pair) -> jax.Array:
    """One window per region: [B, H, W, C], [kh, kw, C, F] -> [B, h, w, F]."""
    return _strided(x, kernel, scale)


def _strided(x: jax.Array, kernel: jax.Array, scale: Pair) -> jax.Array:
    padding = _padding(kernel.shape[:2], scale)
    return jax.lax.conv_general_dilated(x, kernel, scale, padding, dimension_numbers=_LAYOUT)


@partial(convolve_regions.defjvp, symbolic_zeros=True)
def _convolve_regions_jvp(scale: Pair, primals: Any, tangents: Any) -> Any:
    """On CPUs XLA's gradient of the kernel is slow where the convolution is strided."""
    image, size = _struct(primals[0].shape, primals[0].dtype), primals[1].shape[:2]
    return bilinear(
        lambda x, kernel: convolve_regions(x, kernel, scale),
        lambda ct, kernel: jax.linear_transpose(lambda x: _strided(x, kernel, scale), image)(ct)[0],
        lambda x, ct: _to_kernel(x, ct, size, scale),
        primals,
        tangents,
    )


def _to_kernel(x: jax.Array, ct: jax.Array, size: Pair, scale: Pair) -> jax.Array:
    """The pixels of a region as channels of one, and back to entries."""
    (sy, sx), channels, features = scale, x.shape[3], ct.shape[3]
    rows, cols = (n // s for n, s in zip(size, scale, strict=True))
    regions = split_phases(jnp.pad(x, ((0, 0), *_padding(size, scale), (0, 0))), scale)
    regions = jnp.swapaxes(regions, 2, 3).reshape(x.shape[0], *regions.shape[1:4:2], sy * sx * channels)
    taps = to_kernel(regions, ct, (rows, cols), ((0, 0), (0, 0)))
    taps = taps.reshape(rows, cols, sy, sx, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return taps.reshape(*size, channels, features)


def convolve_enlarged(x: jax.Array, kernel: jax.Array, scale: Pair, groups: int) -> jax.Array:
    """A convolution of the zero-upsampled map without its zeros: [B, h, w, C], [K, L, C/g, F] -> [B, sy h, sx w, F].

    The phases that see the same cells are made by one convolution; there are at most three kinds along an axis. With
    few channels, where a convolution costs more than its products, one makes all, with zeros for what a phase lacks.
    """
    together = kernel.shape[2] < _FEW
    rows, cols = (_alike(size, s, together) for size, s in zip(kernel.shape[:2], scale, strict=True))
    if together:
        kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))  # the entries that are not there
    return merge_phases(join_blocks([[_phases(x, kernel, row, col, groups) for col in cols] for row in rows]))


def _alike(size: int, scale: int, together: bool) -> list[_Alike]:
    """Cells and entries of each kind of phases, or of all; an entry that is not there is number `size`."""
    every = [dict(taps) for taps in occupied_offsets(size, scale)]
    found = []
    for phases in [every] if together else [list(kind) for _, kind in itertools.groupby(every, tuple)]:
        seen = sorted(set().union(*phases))
        cells = range(seen[0], seen[-1] + 1) if seen else range(0)
        found.append((cells, np.array([[taps.get(cell, size) for cell in cells] for taps in phases], int)))
    return found


def _phases(x: jax.Array, kernel: jax.Array, row: _Alike, col: _Alike, groups: int) -> jax.Array:
    """The phases of one kind, [B, h, U, w, V, F]."""
    (cells_y, entries_y), (cells_x, entries_x) = row, col
    features = kernel.shape[3]
    if not cells_y or not cells_x:
        empty = jnp.zeros_like(x[:, :, None, :, None, :1])  # sharded like x
        shape = (x.shape[0], x.shape[1], len(entries_y), x.shape[2], len(entries_x), features)
        return jnp.broadcast_to(empty, shape)
    taps = kernel[entries_y[:, :, None, None], entries_x]  # [U, m, V, n, C/g, F]
    taps = taps.reshape(*taps.shape[:5], groups, features // groups).transpose(1, 3, 4, 5, 0, 2, 6)
    packed = taps.reshape(*taps.shape[:3], -1)
    ahead = [max(0, cells[0]) for cells in (cells_y, cells_x)]  # a pixel that is not seen itself, but the next one
    x = x[:, ahead[0] :, ahead[1] :]
    padding = [(more - cells[0], cells[-1]) for cells, more in zip((cells_y, cells_x), ahead, strict=True)]
    # For one group of several channels, the form whose gradients are fast.
    fast = groups == 1 and x.shape[3] > 4 and packed.shape[:2] != (1, 1)
    how = convolve if fast else partial(convolve_groups, feature_group_count=groups)
    y = how(x, packed, (1, 1), padding, dimension_numbers=_LAYOUT)
    y = y.reshape(*y.shape[:3], *taps.shape[3:])
    y = y.transpose(0, 1, 4, 2, 5, 3, 6)
    return y.reshape(*y.shape[:5], features)


def convolve_channels(x: jax.Array, kernel: jax.Array, scale: Pair, maps: int) -> jax.Array:
    """Each channel by itself: [B, H, W, C], [kh, kw, 1, maps*C], or [kh, kw, 1, maps] for all -> [B, h, w, maps, C].

    Not by a grouped convolution, whose gradient XLA makes tens of times slower on CPUs.
    """
    regions = split_phases(jnp.pad(x, ((0, 0), *_padding(kernel.shape[:2], scale), (0, 0))), scale)
    reach = kernel.shape[0] // scale[0]
    kernel = kernel.reshape(reach, scale[0], reach, scale[1], maps, -1)
    return _weigh(regions, jnp.broadcast_to(kernel, (*kernel.shape[:5], x.shape[3])))


def convolve_groups(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    *,
    feature_group_count: int,
    rhs_dilation: Sequence[int] = (1, 1),
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of NHWC and HWIO that leaves a sharded batch where it is: one group at a time.

    XLA gathers the whole batch on every device for a grouped convolution. Modules pass this to `nnx.Conv`.
    """
    groups = feature_group_count
    if kernel.shape[2] == 1 and groups > 1:
        maps = kernel.shape[3] // groups
        each = jnp.repeat(x, maps, axis=-1) if maps > 1 else x
        return depthwise_conv(each, kernel, strides, padding, rhs_dilation=rhs_dilation)
    outputs = [
        convolve_layer(part, taps, strides, padding, rhs_dilation=rhs_dilation, **options)
        for part, taps in zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    ]
    return jnp.concatenate(outputs, axis=-1)


def convolve_many_groups(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[Pair],
    *,
    feature_group_count: int,
    rhs_dilation: Sequence[int] = (1, 1),
    **_: Any,
) -> jax.Array:
    """The same for many groups of a few channels: one product of matrices per group, with all pixels of the windows.

    On CPUs XLA's grouped convolution takes a hundred times as long with gradients.
    """
    rows, columns, inputs, outputs = kernel.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    spans = [
        (n - d * (k - 1) - 1) // s * s + 1
        for n, k, s, d in zip(padded.shape[1:3], (rows, columns), strides, rhs_dilation, strict=True)
    ]
    grouped = padded.reshape(*padded.shape[:3], feature_group_count, inputs)
    windows = [
        grouped[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(0, rows * rhs_dilation[0], rhs_dilation[0])
        for j in range(0, columns * rhs_dilation[1], rhs_dilation[1])
    ]
    taps = kernel.reshape(rows * columns * inputs, feature_group_count, outputs // feature_group_count)
    y = jnp.einsum("bhwgi,igo->bhwgo", jnp.concatenate(windows, axis=4), taps)
    return y.reshape(*y.shape[:3], outputs)


def _neighbours(regions: jax.Array, reach: int) -> dict[Pair, jax.Array]:
    """The regions of each window by their place (a, b) in it: reach x reach shifted maps."""
    rows, cols = regions.shape[1] - reach + 1, regions.shape[3] - reach + 1
    return {(a, b): regions[:, a : a + rows, :, b : b + cols] for a, b in np.ndindex(reach, reach)}


@jax.custom_jvp
def _weigh(regions: jax.Array, kernel: jax.Array) -> jax.Array:
    """Sums over windows, as one loop: [B, h+, sy, w+, sx, C], [r, sy, r, sx, m, C] -> [B, h, w, m, C]."""
    parts, columns, dtype = _neighbours(regions, kernel.shape[0]), kernel.shape[3], accum_dtype(regions)

    def pixel(n: jax.Array, total: jax.Array) -> jax.Array:
        u, v = n // columns, n % columns
        for (a, b), part in parts.items():
            row = jax.lax.dynamic_index_in_dim(part, u, axis=2, keepdims=False)
            seen = jax.lax.dynamic_index_in_dim(row, v, axis=3, keepdims=False)
            total = total + seen[..., None, :].astype(dtype) * kernel[a, u, b, v][None, None, None].astype(dtype)
        return total

    # Zeros like a map, not new ones: those of a sharded batch are sharded.
    start = jnp.repeat(jnp.zeros_like(parts[0, 0][:, :, 0, :, 0, None], dtype), kernel.shape[4], axis=3)
    total: jax.Array = jax.lax.fori_loop(0, kernel.shape[1] * columns, pixel, start)
    return total.astype(regions.dtype)


def _weigh_by_products(regions: jax.Array, kernel: jax.Array) -> jax.Array:
    """`_weigh` as one product of matrices per channel, whose gradient is fast."""
    total = jnp.zeros((1,) * 5, regions.dtype)
    for (a, b), part in _neighbours(regions, kernel.shape[0]).items():
        total = total + jnp.einsum("bhuwvc,uvmc->bhwmc", part, kernel[a, :, b])
    return total


@partial(_weigh.defjvp, symbolic_zeros=True)
def _weigh_jvp(primals: Any, tangents: Any) -> Any:
    structs = [_struct(x.shape, x.dtype) for x in primals]

    def to_regions(ct: jax.Array, kernel: jax.Array) -> jax.Array:
        d_regions: jax.Array = jax.linear_transpose(lambda r: _weigh_by_products(r, kernel), structs[0])(ct)[0]
        return d_regions

    def to_kernel(regions: jax.Array, ct: jax.Array) -> jax.Array:
        d_kernel: jax.Array = jax.linear_transpose(lambda k: _weigh_by_products(regions, k), structs[1])(ct)[0]
        return d_kernel

    return bilinear(_weigh, to_regions, to_kernel, primals, tangents)
