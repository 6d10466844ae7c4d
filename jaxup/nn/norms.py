"""Layer normalisation as the official modules have it: population variance, eps 1e-5, affine."""

from typing import Any

import jax
from flax import nnx

from jaxup._checks import accum_dtype


def layer_norm(features: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Statistics per pixel, over the channels."""
    return nnx.LayerNorm(features, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def group_norm(features: int, groups: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Statistics per image, over all pixels of each group of consecutive channels."""
    return nnx.GroupNorm(features, groups, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def normalise(norm: nnx.LayerNorm | nnx.GroupNorm, x: jax.Array, dtype: Any) -> jax.Array:
    """Apply a norm in float32 or more; Flax refuses 16-bit inputs under strict dtype promotion."""
    return norm(x.astype(accum_dtype(x))).astype(dtype)
