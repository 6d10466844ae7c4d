"""The transformer decoder of MaskFormer: learned queries that look at a map (Carion et al., DETR, ECCV 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import accum_dtype, check_divides, check_int
from jaxup.models.backbones.layers import attend, dropout
from jaxup.nn import initializers
from jaxup.nn.norms import layer_norm, normalise
from jaxup.ops.pointwise import pointwise_dot

_XAVIER = initializers.xavier_uniform()


def linear(inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer as DETR starts."""
    return nnx.Linear(inputs, outputs, kernel_init=_XAVIER, dot_general=pointwise_dot, dtype=dtype, rngs=rngs)


def sine_positions(height: int, width: int, features: int) -> np.ndarray:
    """Sines and cosines of the pixels' places [h, w, features], in turn: the first half of the row, then of the column.

    sin(a / 10000^(4 k / features)), cos(the same)  with  a = 2 pi (i + 1) / n  and  k = 0, ..., features / 4 - 1
    """
    half = features // 2

    def axis(n: int) -> np.ndarray:
        angles = 2 * np.pi * np.arange(1, n + 1) / (n + 1e-6)
        angles = angles[:, None] / 10000 ** (2 * (np.arange(half) // 2) / half)
        return np.where(np.arange(half) % 2, np.cos(angles), np.sin(angles))

    rows, cols = axis(height)[:, None], axis(width)[None]
    return np.concatenate(np.broadcast_arrays(rows, cols), axis=-1)


class _Attention(nnx.Module):
    """Multi-head attention of queries to keys and values that are given apart."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.query, self.key, self.value, self.project = (
            linear(features, features, dtype=dtype, rngs=rngs) for _ in range(4)
        )
        self.heads = heads

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """[B, Q, C], twice [B, S, C] -> [B, Q, C]."""
        return self.project(attend(self.query(query), self.key(key), self.value(value), heads=self.heads))


class _Layer(nnx.Module):
    """Attention among the queries, attention to the map, MLP; each is added and normalised behind."""

    def __init__(self, features: int, heads: int, hidden: int, *, drop: float, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.to_queries, self.to_map = (_Attention(features, heads, **options) for _ in range(2))
        self.expand, self.reduce = linear(features, hidden, **options), linear(hidden, features, **options)
        self.norms = nnx.List(layer_norm(features, rngs) for _ in range(3))
        self.drop, self.dtype = drop, dtype

    def __call__(
        self, x: jax.Array, places: jax.Array, keys: jax.Array, values: jax.Array, rngs: nnx.Rngs | None
    ) -> jax.Array:
        def add(i: int, x: jax.Array, y: jax.Array) -> jax.Array:
            return normalise(self.norms[i], x + dropout(y, self.drop, rngs), self.dtype)

        placed = x + places
        x = add(0, x, self.to_queries(placed, placed, x))
        x = add(1, x, self.to_map(x + places, keys, values))
        return add(2, x, self.reduce(nnx.relu(self.expand(x))))


class QueryDecoder(nnx.Module):
    """Learned queries, refined by layers of attention to each other and to the pixels of a map.

    The map is brought to the width of the queries by a 1x1 convolution, unless it has it; `sine_positions` are added to
    its keys and learned ones to the queries, which start at zero. All layers are normalised behind (post-norm).

    `module(x, rngs=rngs)`: map [B, h, w, Cin] -> the queries after each layer, each time normalised once more,
    [B, queries, features].
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        queries: int,
        layers: int,
        heads: int,
        hidden: int,
        drop: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        check_divides("num_heads", heads, "features", features)
        check_divides("features", 4, "the positions' sines and cosines", features)
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        shape = (check_int("num_queries", queries), features)
        self.queries = nnx.Param(initializers.normal(1.0)(rngs.params(), shape))
        self.project = None if in_features == features else linear(in_features, features, **options)
        self.layers = nnx.List(
            _Layer(features, heads, hidden, drop=drop, **options) for _ in range(check_int("layers", layers))
        )
        self.norm, self.dtype = layer_norm(features, rngs), dtype

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> list[jax.Array]:
        """The queries after each layer."""
        x = x.astype(self.dtype) if self.project is None else self.project(x)
        batch, height, width, features = x.shape
        memory = x.reshape(batch, height * width, features)
        positions = sine_positions(height, width, features).reshape(1, height * width, features)
        keys = memory + jnp.asarray(positions, accum_dtype(memory)).astype(memory.dtype)
        y = jnp.zeros((batch, *self.queries.shape), self.dtype)
        places = self.queries[...].astype(self.dtype)[None]
        refined = []
        for layer in self.layers:
            y = layer(y, places, keys, memory, rngs)
            refined.append(normalise(self.norm, y, self.dtype))
        return refined
