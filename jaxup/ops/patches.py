"""Gradients of the kernels of convolutions as products with patches of pixels."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, known

# Pixels whose patches are formed at a time.
_BLOCK = 1024

Padding = tuple[Pair, Pair]


def by_patches(x: jax.Array, ct: jax.Array, *, size: Pair, padding: Padding, precision: Any) -> jax.Array:
    """[B, H, W, C], [B, h, w, F] -> [rows, columns, C, F], a few rows of pixels at a time.

    Patches are of what has fewer channels: of x, or of ct, which gives the kernel turned round.
    """
    if ct.shape[3] < x.shape[3]:
        turned = by_patches(ct, x, size=size, padding=turned_padding(size, padding), precision=precision)
        return jnp.swapaxes(turned[::-1, ::-1], 2, 3).astype(ct.dtype)
    (rows, columns), (batch, height, width, features), channels = size, ct.shape, x.shape[3]
    wide = accum_dtype(x)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)))
    block = max(1, min(known(height), rows_of_block(batch, width)))
    count = height // block

    def add(n: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seen = jax.lax.dynamic_slice_in_dim(x, n * block, block + rows - 1, axis=1)
        part = jax.lax.dynamic_slice_in_dim(ct, n * block, block, axis=1)
        patches, more = products(seen, part, state[0], size, precision)
        return patches, state[1] + more

    def empty(rows_of_patches: Any) -> jax.Array:
        return jnp.zeros((batch, rows_of_patches, width, rows * columns * channels), wide)

    _, rest = products(x[:, count * block :], ct[:, count * block :], empty(height - count * block), size, precision)
    total: jax.Array = jax.lax.fori_loop(0, count, add, (empty(block), rest))[1]
    total = upright(total, rows * columns * channels, features)
    return total.reshape(rows, columns, channels, features).astype(ct.dtype)


def turned_padding(size: Pair, padding: Padding) -> Padding:
    """Of the cotangents, with which a kernel turned round gives pixels."""
    rows, columns = [(n - 1 - before, n - 1 - after) for n, (before, after) in zip(size, padding, strict=True)]
    return rows, columns


def rows_of_block(batch: Any, width: Any) -> int:
    """How many rows of the images are taken at a time."""
    return max(1, _BLOCK // max(1, known(batch) * known(width)))


def products(
    seen: jax.Array, ct: jax.Array, patches: jax.Array, size: Pair, precision: Any
) -> tuple[jax.Array, jax.Array]:
    """The patches of `seen`, which are written where those before them were, and their products with ct.

    The narrower factor comes first, for the other order takes twice as long: `upright` has the patches first.
    """
    (rows, columns), channels, (taps, features) = size, seen.shape[3], (patches.shape[3], ct.shape[3])
    for i in range(rows):
        for j in range(columns):
            tap = seen[:, i : i + ct.shape[1], j : j + ct.shape[2]].astype(patches.dtype)
            patches = jax.lax.dynamic_update_slice_in_dim(patches, tap, (i * columns + j) * channels, axis=3)
    a, b = patches.reshape(-1, taps), ct.astype(patches.dtype).reshape(-1, features)
    over = (((0,), (0,)), ((), ()))
    if taps < features:
        return patches, jax.lax.dot_general(a, b, over, precision=precision)
    return patches, jax.lax.dot_general(b, a, over, precision=precision)


def upright(products: jax.Array, taps: int, features: int) -> jax.Array:
    """[..., taps, features]."""
    return products if taps < features else jnp.swapaxes(products, -1, -2)
