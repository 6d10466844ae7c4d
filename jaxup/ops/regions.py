"""Convolutions with one window per region of sy x sx pixels: windows as large as the regions, or a multiple."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype
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
    return jax.lax.fori_loop(0, kernel.shape[1] * columns, pixel, start).astype(regions.dtype)


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
