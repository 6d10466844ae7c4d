"""Normalisation as the official modules have it: population variance, eps 1e-5, affine."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from jaxup._checks import accum_dtype

_EPSILON = 1e-5

Norm = nnx.LayerNorm | nnx.GroupNorm | nnx.RMSNorm | nnx.BatchNorm


def layer_norm(features: int, rngs: nnx.Rngs, *, epsilon: float = 1e-5) -> nnx.LayerNorm:
    """Statistics per pixel, over the channels."""
    return nnx.LayerNorm(features, epsilon=epsilon, use_fast_variance=False, rngs=rngs)


def group_norm(
    features: int, groups: int, rngs: nnx.Rngs, *, epsilon: float = 1e-5, use_bias: bool = True
) -> nnx.GroupNorm:
    """Statistics per image, over all pixels and each group of consecutive channels."""
    return nnx.GroupNorm(
        features, num_groups=groups, epsilon=epsilon, use_bias=use_bias, use_fast_variance=False, rngs=rngs
    )


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation whose running statistics move as PyTorch's do.

    A training step on n values per feature, of mean m and population variance v, normalises with m and v and moves

        mean <- 0.9 mean + 0.1 m,    var <- 0.9 var + 0.1 v n / (n - 1)

    while `nnx.BatchNorm` moves its var towards v. With one value per feature, where PyTorch refuses, v = 0 is taken.
    """

    def __init__(self, features: int, *, axis: int = -1, momentum: float = 0.9, epsilon: float = 1e-5, rngs: nnx.Rngs):
        super().__init__(features, axis=axis, momentum=momentum, epsilon=epsilon, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:  # type: ignore[override]
        """Normalise x, and move the running statistics unless they are in use."""
        kept = self.momentum * self.var[...]
        y: jax.Array = super().__call__(x, use_running_average)
        if not (self.use_running_average if use_running_average is None else use_running_average):
            count = x.size // self.num_features
            self.var[...] = kept + (self.var[...] - kept) * (count / max(1, count - 1))
        return y


class InPlaceABN(BatchNorm):
    """Batch normalisation by the magnitude of its scale, as Mapillary's InPlaceABN computes it.

        y = (x - mean) / sqrt(var + eps) * (|scale| + eps) + bias

    The gradient of the scale carries its sign. The activation that follows is left to the caller.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        super().__init__(features, rngs=rngs)
        self.promote_dtype: Any = _with_magnitude  # what nnx.BatchNorm passes its arrays through


def _with_magnitude(arrays: Any, *, dtype: Any = None) -> Any:
    x, mean, var, scale, bias = promote_dtype(arrays, dtype=dtype)
    return x, mean, var, jnp.abs(scale) + _EPSILON, bias


def normalise(norm: Norm, x: jax.Array, dtype: Any) -> jax.Array:
    """Apply a norm in float32 or more; Flax refuses 16-bit inputs under strict dtype promotion."""
    y: jax.Array = norm(x.astype(accum_dtype(x)))
    return y.astype(dtype)
