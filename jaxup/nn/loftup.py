"""Upsampling of features by cross-attention of an image's Fourier features to the whole map (LoftUp)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_choice,
    check_divides,
    check_features,
    check_int,
    check_known_size,
    check_shape,
    known,
    pair,
)
from jaxup.nn import initializers
from jaxup.nn.norms import BatchNorm, layer_norm, normalise
from jaxup.nn.upsampler import output_size
from jaxup.ops.resize import resize
from jaxup.ops.softmax import softmax
from jaxup.ops.tiling import TILE_BYTES, cut, fill_tiles, map_tiles

_LOW_FREQUENCIES = 5  # of the low-resolution positions
_RANGE = (-2.0, 10.0)  # logarithms of the frequencies


class Fourier(nnx.Module):
    """[sin(f_i c_j + b), cos(f_i c_j + b')] of coordinates c [B, H, W, m], with n frequencies f and learned b, b'.

    They have the order of the frequencies first; row and column in -1 .. 1 are the first two coordinates.
    """

    def __init__(self, channels: int, count: int, *, rngs: nnx.Rngs):
        self.biases = nnx.Param(initializers.normal(1.0)(rngs.params(), (2, count * (channels + 2))))
        self.count = count

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, H, W, 2 n (2 + channels)], in float32 or more: angles are up to exp(10)."""
        dtype = accum_dtype(x)
        rows, cols = (jnp.asarray(np.linspace(-1, 1, n), dtype) for n in x.shape[1:3])
        grid = jnp.stack(jnp.meshgrid(rows, cols, indexing="ij"), axis=-1)[None]
        places = jnp.concatenate([jnp.zeros_like(x[..., :1], dtype) + grid, x.astype(dtype)], -1) if x.size else grid
        frequencies = jnp.asarray(np.exp(np.linspace(*_RANGE, self.count)), dtype)
        angles = (places[..., None, :] * frequencies[None, None, None, :, None]).reshape(*x.shape[:3], -1)
        sine, cosine = (b[None, None, None] for b in self.biases[...].astype(dtype))
        return jnp.concatenate([jnp.sin(angles + sine), jnp.cos(angles + cosine)], axis=-1)


class CrossBlock(nnx.Module):
    """x + attention(norm(x), norm'(f)), and with y: y + mlp(norm(y)); no token of x sees another."""

    def __init__(self, features: int, hidden: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, dtype=dtype, kernel_init=initializers.xavier_uniform(), rngs=rngs)
        self.norm_query, self.norm_key, self.norm = (layer_norm(features, rngs) for _ in range(3))
        self.query, self.key, self.value, self.project = (linear(features, features) for _ in range(4))
        self.expand, self.reduce = linear(features, hidden), linear(hidden, features)
        self.heads, self.dtype = heads, dtype

    def source(self, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Key and value of the map's tokens, [B, S, heads, d]."""
        f = normalise(self.norm_key, f, self.dtype)
        return self._split(self.key(f)), self._split(self.value(f))

    def __call__(self, x: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """[B, T, C] -> the same."""
        query = self._split(self.query(normalise(self.norm_query, x, self.dtype))).astype(accum_dtype(x))
        precise = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        scores = precise("bthd,bshd->bhts", query, key.astype(query.dtype)) / query.shape[3] ** 0.5
        y = precise("bhts,bshd->bthd", softmax(scores), value.astype(query.dtype))
        x = x + self.project(y.reshape(x.shape).astype(self.dtype))
        hidden = nnx.gelu(self.expand(normalise(self.norm, x, self.dtype)), approximate=False)
        return x + self.reduce(hidden)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)


class LoftUp(nnx.Module):
    """Pixels, described by place and colour, attend to all features, twice; the result is normalised.

        q = relu(bn(conv(relu(bn(conv(norm([fourier(place, colour), colour])))))))
        f = [norm(x), fourier(place)],   q <- q + attention(q, f),  q <- q + mlp(q),   out = norm(conv1x1(norm(q)))

    Colours are scaled to -1/2 .. 1/2 by the least and the largest of the batch. The frequencies reach exp(10), so that
    float32 blurs what is made of them by 1e-3. The attention, quadratic in the image's sides, holds a bounded number of
    pixels at a time. Parameters at 384 features: 4,303,894.

    Args:
        in_features: C.
        guide_features: channels of the image.
        scale: the factor of the default output size, an integer or a pair (vertical, horizontal); None: that of the
            image.
        num_frequencies: of the image's Fourier features.
        num_heads: of the attention, a divisor of C + 20, or of C with learned positions.
        depth: layers of attention.
        positions: "sine", Fourier features beside x, or "learned", a table that is added to it.
        low_size: side of the table.
        dtype: the type in which layers compute; parameters are float32, and so are norms, softmax and angles.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide, size=None)`: features [B, h, w, C], image [B, H, W, guide_features] -> [B, *size, C] in the
        dtype of x; the default size is `scale` times that of x, or the image's. For another size than its own the image
        is resized, with antialiasing.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> up = LoftUp(12, num_frequencies=4, rngs=nnx.Rngs(0))
        >>> nnx.jit(lambda up, *maps: up(*maps))(up, jnp.ones((1, 4, 3, 12)), jnp.ones((1, 16, 12, 3))).shape
        (1, 16, 12, 12)

    Reference:
        Huang et al., LoftUp: Learning a Coordinate-Based Feature Upsampler for Vision Foundation Models, ICCV 2025.
        Official code: andrehuang/loftup (MIT).
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int = 3,
        *,
        scale: int | Pair | None = None,
        num_frequencies: int = 20,
        num_heads: int = 4,
        depth: int = 2,
        positions: str = "sine",
        low_size: int = 16,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.dtype = None if scale is None else pair("scale", scale), dtype
        check_choice("positions", positions, ("sine", "learned"))
        sine, described = positions == "sine", 2 * (2 + guide_features) * check_int("num_frequencies", num_frequencies)
        width = in_features + (4 * _LOW_FREQUENCIES if sine else 0)
        check_divides("num_heads", check_int("num_heads", num_heads), "the width", width)
        self.norm_features = layer_norm(in_features, rngs)
        self.fourier = Fourier(guide_features, num_frequencies, rngs=rngs)
        self.low_fourier = Fourier(0, _LOW_FREQUENCIES, rngs=rngs) if sine else None
        table = initializers.normal(0.02)
        shape = (check_int("low_size", low_size), low_size, in_features)
        self.table = None if sine else nnx.Param(table(rngs.params(), shape))
        self.norm_described = layer_norm(described + guide_features, rngs)
        conv = partial(nnx.Conv, kernel_size=(3, 3), padding="SAME", dtype=dtype, rngs=rngs)
        self.convs = nnx.List([conv(described + guide_features, width), conv(width, width)])
        self.norms = nnx.List(BatchNorm(width, rngs=rngs) for _ in range(2))
        block: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(CrossBlock(width, in_features, num_heads, **block) for _ in range(depth))
        self.norm = layer_norm(width, rngs)
        self.last = nnx.Linear(width, in_features, dtype=dtype, rngs=rngs) if sine else None
        self.norm_out = layer_norm(in_features, rngs, epsilon=1e-6)

    def __call__(self, x: jax.Array, guide: jax.Array, *, size: int | Pair | None = None) -> jax.Array:
        """Enlarge the features x under an image."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        output = output_size(x, guide, self.scale, size)
        check_known_size("x", x)
        if output != guide.shape[1:3]:
            guide = resize(guide, size=output, method="bilinear", antialias=True)
        query = self._described(guide)
        sources = [block.source(self._tokens(x)) for block in self.blocks]
        pixels = max(
            1, TILE_BYTES // (4 * max(1, known(x.shape[0], 1)) * self.blocks[0].heads * x.shape[1] * x.shape[2])
        )
        tile = max(1, min(output[0], pixels // output[1])), min(output[1], pixels)
        queries = fill_tiles(query, tile)

        def attend(top: jax.Array, left: jax.Array) -> jax.Array:
            y = cut(queries, top, left, tile).reshape(x.shape[0], tile[0] * tile[1], -1)
            for block, source in zip(self.blocks, sources, strict=True):
                y = block(y, *source)
            y = normalise(self.norm, y, self.dtype)
            y = normalise(self.norm_out, y if self.last is None else self.last(y), self.dtype)
            return y.reshape(x.shape[0], *tile, -1).astype(x.dtype)

        return map_tiles(attend, output, tile)

    def describe(self, guide: jax.Array) -> jax.Array:
        """Fourier features of place and colour, and the scaled colours, [B, H, W, 2 n (2 + channels) + channels]."""
        image = guide.astype(accum_dtype(guide))
        least, largest = (f(image, axis=(0, 1, 2), keepdims=True) for f in (jnp.min, jnp.max))
        scaled = (image - least) / jnp.maximum(largest - least, 1e-4) - 0.5
        return jnp.concatenate([self.fourier(scaled), scaled], axis=-1)

    def _described(self, guide: jax.Array) -> jax.Array:
        y = normalise(self.norm_described, self.describe(guide), self.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = nnx.relu(normalise(norm, conv(y), self.dtype))
        return y

    def _tokens(self, x: jax.Array) -> jax.Array:
        """Normalised features with their positions, [B, h w, width]."""
        f = normalise(self.norm_features, x, self.dtype)
        if self.low_fourier is not None:
            places = self.low_fourier(jnp.zeros((1, *x.shape[1:3], 0), accum_dtype(x)))
            f = jnp.concatenate([f, jnp.zeros_like(f[..., :1]) + places.astype(self.dtype)], axis=-1)
        elif self.table is not None:
            table = self.table[...][None]
            if x.shape[1] * x.shape[2] != table.shape[1] * table.shape[2]:
                table = resize(table, size=x.shape[1:3], method="bicubic", cubic_coefficient=-0.75)
            f = f + table.reshape(1, *x.shape[1:]).astype(self.dtype)
        return f.reshape(f.shape[0], -1, f.shape[3])
