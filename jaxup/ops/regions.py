"""Convolutions with one window per region of sy x sx pixels, as large as those or a multiple; and grouped ones."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype
from jaxup.ops.depthwise import depthwise_conv
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.windows import split_phases


def _padding(kernel: jax.Array, scale: Pair) -> list[Pair]:
    """Zeros around the image, so that windows at stride `scale` are centred on the regions."""
    extra = [size - s for size, s in zip(kernel.shape[:2], scale, strict=True)]
    return [(e // 2, e - e // 2) for e in extra]


def convolve_regions(x: jax.Array, kernel: jax.Array, scale: Pair) -> jax.Array:
    """One window per region: [B, H, W, C], [kh, kw, C, F] -> [B, h, w, F]."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, scale, _padding(kernel, scale), dimension_numbers=layout)


def convolve_channels(x: jax.Array, kernel: jax.Array, scale: Pair, maps: int) -> jax.Array:
    """Each channel by itself: [B, H, W, C], [kh, kw, 1, maps*C], or [kh, kw, 1, maps] for all -> [B, h, w, maps, C].

    Not by a grouped convolution, whose gradient XLA makes tens of times slower on CPUs.
    """
    regions = split_phases(jnp.pad(x, ((0, 0), *_padding(kernel, scale), (0, 0))), scale)
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
    if groups == 1 and kernel.shape[:2] == (1, 1):
        return pointwise_conv(x, kernel, strides, padding, **options)
    if kernel.shape[2] == 1 and groups > 1:
        maps = kernel.shape[3] // groups
        each = jnp.repeat(x, maps, axis=-1) if maps > 1 else x
        return depthwise_conv(each, kernel, strides, padding, rhs_dilation=rhs_dilation)
    outputs = [
        jax.lax.conv_general_dilated(part, taps, strides, padding, rhs_dilation=rhs_dilation, **options)
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


@jax.custom_vjp
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


_weigh.defvjp(
    lambda regions, kernel: (_weigh(regions, kernel), (regions, kernel)),
    lambda saved, ct: jax.vjp(_weigh_by_products, *saved)[1](ct),
)
