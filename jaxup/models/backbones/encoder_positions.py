"""Position embeddings of a grid of patches for another grid: there are three ways."""

import jax

from jaxup._checks import Pair
from jaxup.models.backbones import vit
from jaxup.ops.resize import resize
from jaxup.ops.steps import resize_in_steps

_OFFSET = 0.1  # DINOv2 adds it to the size of the grid, and so shortens the steps
RESIZINGS = {"bicubic-offset", "bicubic-antialias", "bicubic"}


def resize_table(table: jax.Array, grid: Pair, method: str) -> jax.Array:
    """Position embeddings [1, n, n, C] for another grid, [1, *grid, C]."""
    if table.shape[1:3] == grid:
        return table
    if method == "bicubic-offset":
        steps = tuple(n / (m + _OFFSET) for n, m in zip(table.shape[1:3], grid, strict=True))
        return resize_in_steps(table, size=grid, steps=steps)
    return resize(table, size=grid, **vit.RESIZINGS[method])
