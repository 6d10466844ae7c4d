"""The encoder of TransUNet: a ResNet with group normalisation and standardised weights, and a transformer behind it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair
from jaxup.models.backbones.layers import MLP, NARROW, Attention, dropout, linear, max_pool, through
from jaxup.nn import initializers
from jaxup.nn.norms import group_norm, layer_norm, normalise
from jaxup.ops.resize import resize

_KERNEL = initializers.variance_scaling(2.0, "fan_out", "normal")
_EPSILON = 1e-6


class StandardConv(nnx.Module):
    """Convolution without bias, by weights whose mean over each output's inputs is zero and whose variance is one."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, dtype: Any, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_KERNEL(rngs.params(), (size, size, inputs, outputs)))
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, ceil(H / stride), ceil(W / stride), outputs]."""
        kernel = self.kernel[...]
        kernel = (kernel - kernel.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
            kernel.var((0, 1, 2), keepdims=True) + 1e-5
        )
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            ((kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class _ConvNorm(nnx.Module):
    """The convolution, and group normalisation in 32 groups; in a shortcut, each channel is a group of its own."""

    def __init__(self, inputs: int, outputs: int, size: int, *, shortcut: bool = False, rngs: nnx.Rngs, **options: Any):
        self.conv = StandardConv(inputs, outputs, size, rngs=rngs, **options)
        groups, epsilon = (outputs, 1e-5) if shortcut else (math.gcd(32, outputs), _EPSILON)
        self.norm, self.dtype = group_norm(outputs, groups, rngs, epsilon=epsilon), options["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalise(self.norm, self.conv(x), self.dtype)


class _Bottleneck(nnx.Module):
    """1x1, 3x3 with the stride, and 1x1; the rectifier is behind the sum, in spite of the official name."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        inner = outputs // 4
        self.convs = nnx.List(
            [
                _ConvNorm(inputs, inner, 1, **options),
                _ConvNorm(inner, inner, 3, stride=stride, **options),
                _ConvNorm(inner, outputs, 1, **options),
            ]
        )
        changes = stride > 1 or inputs != outputs
        self.shortcut = _ConvNorm(inputs, outputs, 1, stride=stride, shortcut=True, **options) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.convs[1](nnx.relu(self.convs[0](x))))
        return nnx.relu(self.convs[2](y) + (x if self.shortcut is None else self.shortcut(x)))


class HybridResNet(nnx.Module):
    """ResNet of three stages: maps at strides 2, 4, 8 and 16 with w, 4 w, 8 w and 16 w channels.

    The pooling behind the stem has no padding, so the map at stride 4 is one pixel short; whoever uses it beside others
    gets a copy with zeros at the bottom and on the right, while the network goes on with what there is.
    """

    def __init__(self, in_features: int, width: int, depths: Sequence[int], *, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.features = (width, *(4 * width * 2**i for i in range(len(depths))))
        self.stem = _ConvNorm(in_features, width, 7, stride=2, **options)
        self.stages = nnx.List(
            nnx.List(
                _Bottleneck(outputs if j else inputs, outputs, stride=1 if j or i == 0 else 2, **options)
                for j in range(depth)
            )
            for i, (inputs, outputs, depth) in enumerate(zip(self.features, self.features[1:], depths, strict=False))
        )

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Image [B, H, W, C], sides multiples of 16 -> maps [B, H / s, W / s, features]."""
        y = nnx.relu(self.stem(x))
        maps = [y]
        y = max_pool(y, 3)
        for i, stage in enumerate(self.stages):
            y = through(stage, y)
            missing = [(0, n // 4 // 2**i - have) for n, have in zip(x.shape[1:3], y.shape[1:3], strict=True)]
            maps.append(jnp.pad(y, ((0, 0), *missing, (0, 0))))
        return tuple(maps)


class _Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with dropout behind both layers of the MLP."""

    def __init__(self, features: int, heads: int, hidden: int, *, drop: float, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.norms = nnx.List(layer_norm(features, rngs, epsilon=_EPSILON) for _ in range(2))
        self.attention, self.mlp = Attention(features, heads, **options), MLP(features, hidden, **options)
        self.drop, self.dtype = drop, dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        x = x + self.attention(normalise(self.norms[0], x, self.dtype))
        y = nnx.gelu(self.mlp.expand(normalise(self.norms[1], x, self.dtype)), approximate=False)
        return x + dropout(self.mlp.reduce(dropout(y, self.drop, rngs)), self.drop, rngs)


class Transformer(nnx.Module):
    """The pixels of a map as tokens, with positions; blocks of attention and MLP; a norm.

    Positions belong to a grid. For maps of another size they are resized bilinearly, with the corners on each other, as
    the official code does where it reads a checkpoint.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        grid: Pair,
        depth: int,
        heads: int,
        hidden: int,
        drop: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.grid, self.drop, self.dtype = grid, drop, dtype
        self.embed = linear(in_features, features, **options)
        self.positions = nnx.Param(NARROW(rngs.params(), (1, math.prod(grid), features)))
        self.blocks = nnx.List(_Block(features, heads, hidden, drop=drop, **options) for _ in range(depth))
        self.norm = layer_norm(features, rngs, epsilon=_EPSILON)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, h, w, in_features] -> [B, h, w, features]."""
        y = self.embed(x)
        batch, height, width, features = y.shape
        positions = self.positions[...].reshape(1, *self.grid, features)
        if self.grid != (height, width):
            positions = resize(positions, size=(height, width), method="bilinear", align_corners=True)
        y = (y + positions.astype(y.dtype)).reshape(batch, height * width, features)
        y = dropout(y, self.drop, rngs)
        for block in self.blocks:
            y = block(y, rngs)
        return normalise(self.norm, y, self.dtype).reshape(batch, height, width, features)
