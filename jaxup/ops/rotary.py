"""Rotation of pairs of channels by angles that grow with the position of a patch, from border to border."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair

Rotation = tuple[jax.Array, jax.Array]


def rotary_periods(base: Any, depth: int) -> np.ndarray:
    """Periods [depth / 4] of a rotation of `depth` channels: base^(2 j / (depth / 2))."""
    return np.asarray(base ** (4 * np.arange(depth // 4) / depth))


def rotary_angles(
    grid: Pair, periods: jax.Array | np.ndarray, dtype: Any, *, first: jax.Array | None = None, count: int = 0
) -> Rotation:
    """Sines and cosines [h w, 2 len(periods)] of 2 pi y / period, and behind them of 2 pi x / period.

    Coordinates of the cells' centres are -1 .. 1 from border to border in both axes. With `first`, of `count` rows from
    there on alone.
    """
    rows, cols = (2 * np.pi * (2 * (np.arange(n) + 0.5) / n - 1) for n in grid)
    if first is None:
        places = jnp.asarray(np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1), dtype)
    else:
        some = jax.lax.dynamic_slice_in_dim(jnp.asarray(rows, dtype), first, count)
        places = jnp.stack(jnp.meshgrid(some, jnp.asarray(cols, dtype), indexing="ij"), axis=-1)
    angles = places.reshape(-1, 2, 1) / jnp.asarray(periods, dtype)[None, None]
    angles = angles.reshape(len(angles), -1)
    return jnp.sin(angles), jnp.cos(angles)


def rotate(x: jax.Array, rotation: Rotation, heads: int) -> jax.Array:
    """Turn the pairs (j, j + d/2) of the d channels of each head of the last tokens of [B, T, C], as many as angles.

    (a, b) -> (a cos - b sin, b cos + a sin)
    """
    sin, cos = (t.astype(x.dtype)[None, :, None] for t in rotation)
    first, rest = jnp.split(x, [x.shape[1] - sin.shape[1]], axis=1)
    a, b = jnp.split(rest.reshape(*rest.shape[:2], heads, -1), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(rest.shape)
    return jnp.concatenate([first, turned], axis=1)
