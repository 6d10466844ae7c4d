"""Layers of vision encoders: attention with rotated positions, gated MLPs, scaled branches, pooling by attention."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import known
from jaxup.models.backbones.layers import NARROW, Attention, attend, linear
from jaxup.nn.norms import layer_norm, normalise
from jaxup.ops.rotary import Rotation, rotate

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nnx.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nnx.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * nnx.sigmoid(1.702 * x),
}
BIASES: dict[str, tuple[bool, bool, bool]] = {
    "query, key, value": (True, True, True),
    "query, value": (True, False, True),
    "none": (False, False, False),
}
_SCORE_BYTES = 128 << 20  # of one part of the queries


def attend_in_parts(query: jax.Array, key: jax.Array, value: jax.Array, *, heads: int) -> jax.Array:
    """`attend` for a bounded number of queries at a time, anew in the backward pass; [B, T, C] each."""
    batch, count, width = query.shape
    row = 4 * max(1, known(batch)) * heads * key.shape[1]
    if row * count <= _SCORE_BYTES:
        return attend(query, key, value, heads=heads)
    size = max(1, _SCORE_BYTES // row)
    parts = jnp.pad(query, ((0, 0), (0, -count % size), (0, 0))).reshape(batch, -1, size, width)
    run = jax.checkpoint(lambda q: attend(q, key, value, heads=heads), prevent_cse=False)
    out = jax.lax.map(run, jnp.moveaxis(parts, 1, 0))
    return jnp.moveaxis(out, 0, 1).reshape(batch, -1, width)[:, :count]


class EncoderAttention(nnx.Module):
    """Multi-head attention of tokens to each other; those of patches are rotated by their positions."""

    def __init__(self, features: int, heads: int, *, bias: str, dtype: Any, rngs: nnx.Rngs):
        self.query, self.key, self.value = (
            linear(features, features, use_bias=use, dtype=dtype, rngs=rngs) for use in BIASES[bias]
        )
        self.project = linear(features, features, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """[B, T, C] -> the same."""
        query, key = self.query(x), self.key(x)
        if rotation is not None:
            query, key = (rotate(y, rotation, self.heads) for y in (query, key))
        return self.project(attend_in_parts(query, key, self.value(x), heads=self.heads))


class EncoderMLP(nnx.Module):
    """Linear, activation, linear; gated: reduce(silu(gate(x)) * expand(x))."""

    def __init__(self, features: int, hidden: int, *, gated: bool, activation: str, dtype: Any, rngs: nnx.Rngs):
        self.expand = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.gate = linear(features, hidden, dtype=dtype, rngs=rngs) if gated else None
        self.reduce = linear(hidden, features, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> the same."""
        if self.gate is not None:
            return self.reduce(nnx.silu(self.gate(x)) * self.expand(x))
        return self.reduce(ACTIVATIONS[self.activation](self.expand(x)))


class EncoderBlock(nnx.Module):
    """Attention and MLP, each after a norm, times a learned scale, and added to its input."""

    def __init__(
        self,
        features: int,
        heads: int,
        hidden: int,
        *,
        bias: str,
        gated: bool,
        activation: str,
        layer_scale: bool,
        epsilon: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.norm1, self.norm2 = (layer_norm(features, rngs, epsilon=epsilon) for _ in range(2))
        self.attention = EncoderAttention(features, heads, bias=bias, dtype=dtype, rngs=rngs)
        self.mlp = EncoderMLP(features, hidden, gated=gated, activation=activation, dtype=dtype, rngs=rngs)
        self.scale1, self.scale2 = (nnx.Param(jnp.ones(features)) if layer_scale else None for _ in range(2))
        self.dtype = dtype

    def __call__(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """[B, T, C] -> the same."""
        x = x + self._scaled(self.attention(normalise(self.norm1, x, self.dtype), rotation), self.scale1)
        return x + self._scaled(self.mlp(normalise(self.norm2, x, self.dtype)), self.scale2)

    def _scaled(self, x: jax.Array, scale: nnx.Param[jax.Array] | None) -> jax.Array:
        return x if scale is None else x * scale[...].astype(x.dtype)[None, None]


class AttentionPool(nnx.Module):
    """Attention of one learned query to all tokens, y, and y + mlp(norm(y)): SigLIP's head."""

    def __init__(
        self, features: int, heads: int, hidden: int, *, activation: str, epsilon: float, dtype: Any, rngs: nnx.Rngs
    ):
        self.probe = nnx.Param(NARROW(rngs.params(), (1, features)))
        self.attention = Attention(features, heads, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(features, rngs, epsilon=epsilon)
        self.mlp = EncoderMLP(features, hidden, gated=False, activation=activation, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, C]."""
        tokens = tokens.astype(self.dtype)
        probe = jnp.zeros_like(tokens[:, :1]) + self.probe[...].astype(self.dtype)[None]
        y = self.attention(probe, tokens)
        return (y + self.mlp(normalise(self.norm, y, self.dtype)))[:, 0]


def swiglu_width(hidden: int, multiple: int = 8) -> int:
    """Channels inside of a gated MLP that has as many parameters as one of `hidden`: 2/3, rounded up."""
    return math.ceil(int(hidden * 2 / 3) / multiple) * multiple
