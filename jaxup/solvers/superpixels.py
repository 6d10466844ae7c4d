"""Parts of an image that are of one colour and compact: a few rounds of k-means from a grid of cells."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup.ops.filters import Number

_ROUNDS = 5


def superpixels(colours: jax.Array, cell: int, sigma: Number) -> jax.Array:
    """Labels, int32 [H, W], of an image [H, W, G]: of the means that began in the 3 x 3 cells around, the nearest.

    The squared distance is that of colours, in units of sigma, plus that of positions, in units of a cell.
    """
    height, width = colours.shape[:2]
    rows, columns = -(-height // cell), -(-width // cell)
    y, x = jnp.indices((height, width), colours.dtype)
    features = jnp.concatenate([colours / sigma, y[..., None] / cell, x[..., None] / cell], axis=2)
    own_row, own_column = np.indices((height, width)) // cell
    labels = jnp.asarray(own_row * columns + own_column, jnp.int32)
    padded = jnp.concatenate([features, jnp.ones_like(features[..., :1])], axis=2).reshape(height * width, -1)

    def refine(_: int, labels: jax.Array) -> jax.Array:
        sums = jnp.zeros((rows * columns, padded.shape[1]), padded.dtype).at[labels.ravel()].add(padded)
        empty = sums[:, -1:] == 0
        means = jnp.where(empty, jnp.inf, sums[:, :-1] / jnp.where(empty, 1, sums[:, -1:]))
        least = jnp.full((height, width), jnp.inf, padded.dtype)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                row, column = np.clip(own_row + dy, 0, rows - 1), np.clip(own_column + dx, 0, columns - 1)
                there = jnp.asarray(row * columns + column, jnp.int32)
                distance = jnp.sum((features - means[there]) ** 2, axis=2)
                labels = jnp.where(distance < least, there, labels)
                least = jnp.minimum(least, distance)
        return labels

    refined: jax.Array = jax.lax.fori_loop(0, _ROUNDS, refine, labels)
    return refined
