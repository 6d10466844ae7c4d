"""Swin Transformer (Liu et al., ICCV 2021), as MaskFormer has it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import check_choice, check_divides, check_features, check_int
from jaxup.models.backbones.layers import MLP, NARROW, Attention, Residual, linear, rising
from jaxup.nn import initializers
from jaxup.nn.norms import layer_norm, normalise

_APART = -100.0  # added to the score of two pixels that only the shift has brought into one window


@lru_cache
def _offsets(window: int) -> np.ndarray:
    """For each pair of pixels of a window the row of the bias table, [w*w, w*w]."""
    at = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), -1).reshape(-1, 2)
    rows, cols = np.moveaxis(at[:, None] - at[None] + window - 1, -1, 0)
    offsets: np.ndarray = rows * (2 * window - 1) + cols
    return offsets


@lru_cache
def _mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """`_APART` where two pixels of a shifted window come from two sides of the map, else 0: [windows, w*w, w*w]."""

    def region(n: int) -> np.ndarray:
        return (np.arange(n) >= n - window).astype(int) + (np.arange(n) >= n - shift)

    regions = 3 * region(height)[:, None] + region(width)
    blocks = regions.reshape(height // window, window, width // window, window)
    tokens = blocks.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(tokens[:, :, None] == tokens[:, None], 0.0, _APART).astype(np.float32)


def _windows(x: jax.Array, window: int) -> jax.Array:
    """[B, H, W, C] -> [B, windows, pixels, C]; one axis at a time, which explicit sharding asks for."""
    batch, height, width, features = x.shape
    rows, cols = height // window, width // window
    x = x.reshape(batch, rows, window, width, features).reshape(batch, rows, window, cols, window, features)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * cols, window, window, features)
    return x.reshape(batch, rows * cols, window * window, features)


def _image(x: jax.Array, rows: int, cols: int, window: int) -> jax.Array:
    """The inverse of `_windows`."""
    batch, features = x.shape[0], x.shape[3]
    x = x.reshape(batch, rows, cols, window * window, features).reshape(batch, rows, cols, window, window, features)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * window, cols, window, features)
    return x.reshape(batch, rows * window, cols * window, features)


class _WindowAttention(nnx.Module):
    """Attention inside windows, which every second block shifts by half a window; maps are extended by zeros."""

    def __init__(
        self, features: int, heads: int, window: int, *, shifted: bool, always: bool, dtype: Any, rngs: nnx.Rngs
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.attend = Attention(features, heads, **options)
        self.bias = nnx.Param(NARROW(rngs.params(), ((2 * window - 1) ** 2, heads)))
        self.window, self.shift, self.always = window, window // 2 if shifted else 0, always

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        height, width = x.shape[1:3]
        window, shift = self.window, self.shift if self.always or min(height, width) > self.window else 0
        x = jnp.pad(x, ((0, 0), (0, -height % window), (0, -width % window), (0, 0)))
        rows, cols = x.shape[1] // window, x.shape[2] // window
        x = jnp.roll(x, (-shift, -shift), (1, 2))
        tokens = _windows(x, window)
        bias = self.bias[...][_offsets(window)].transpose(2, 0, 1)[None]
        if shift:
            bias = bias + _mask(rows * window, cols * window, window, shift)[:, None]
        y = self.attend(tokens, bias=bias[None])
        y = _image(y, rows, cols, window)
        return jnp.roll(y, (shift, shift), (1, 2))[:, :height, :width]


class _Block(nnx.Module):
    def __init__(
        self, features: int, heads: int, window: int, *, shifted: bool, always: bool, rngs: nnx.Rngs, **options: Any
    ):
        dtype = options["dtype"]
        attention = _WindowAttention(features, heads, window, shifted=shifted, always=always, dtype=dtype, rngs=rngs)
        self.attention = Residual(features, attention, rngs=rngs, **options)
        self.mlp = Residual(features, MLP(features, 4 * features, dtype=dtype, rngs=rngs), rngs=rngs, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        return self.mlp(self.attention(x, rngs), rngs)


class _Merge(nnx.Module):
    """Four pixels to one of twice the channels; maps of odd sides are extended by zeros."""

    def __init__(self, features: int, *, epsilon: float, dtype: Any, rngs: nnx.Rngs):
        self.norm, self.dtype = layer_norm(4 * features, rngs, epsilon=epsilon), dtype
        self.reduce = linear(4 * features, 2 * features, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        pixels = [x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)]
        return self.reduce(normalise(self.norm, jnp.concatenate(pixels, axis=3), self.dtype))


class Swin(nnx.Module):
    """Swin Transformer: attention inside windows, shifted in every second block; the map of each stage, normalised.

        y = norm(conv4x4(x));  per block:  y + attention(norm(y)),  y + mlp(norm(y));  out = norm_i(y);  y = merge(y)

    Maps are extended by zeros to whole windows, after the norm in front of the attention, so these take part with
    nothing but the biases. On maps that are not larger than a window there is a shift as everywhere, as in Hugging
    Face's MaskFormer and in mmsegmentation; with `shift_one_window=False` there is none, as in the first official code.

    Parameters with the norms of the four maps: T (width 96, depths 2, 2, 6, 2, heads from 3) 27,520,698; S (depth 18 in
    the third stage) 48,838,602; with windows of 12: B (width 128, heads from 4) 86,880,376; L (192, 6) 195,201,204.

    Args:
        in_features: channels of the image.
        patch_size: side and stride of the first convolution.
        width: channels of the first stage; each further one has twice as many.
        depths: blocks of the stages.
        num_heads: of the stages, divisors of their widths.
        window_size: side of the windows.
        epsilon: of all layer normalisations.
        norms: "all" maps are normalised, or the "last" one only, as of a classifier.
        shift_one_window: whether to shift maps a side of which is at most the window's.
        drop_path: the probability with which training drops the branches of the last block, of the others less.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> a map per stage at the strides 4, 8, 16, 32 with `module.features`
        channels, [B, ceil(H / stride), ceil(W / stride), features], in the dtype of x. Training drops paths if it gives
        a source, `module(x, rngs=rngs)`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: Swin(width=4, depths=(1, 2), num_heads=(1, 2), window_size=3, rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))]
        [(1, 9, 16, 4), (1, 5, 8, 8)]

    Reference:
        Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021. Official weights
        of MaskFormer: Hugging Face transformers (Apache-2.0).
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        patch_size: int = 4,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        epsilon: float = 1e-5,
        norms: str = "all",
        shift_one_window: bool = True,
        drop_path: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.patch_size = check_int("in_features", in_features), check_int("patch_size", patch_size)
        check_int("window_size", window_size)
        check_choice("norms", norms, ("all", "last"))
        self.features = tuple(width * 2**i for i in range(len(depths)))
        self.strides = tuple(patch_size * 2**i for i in range(len(depths)))
        for channels, heads in zip(self.features, num_heads, strict=True):
            check_divides("num_heads", heads, "the width of its stage", channels)
        options: dict[str, Any] = dict(epsilon=epsilon, dtype=dtype, rngs=rngs)
        size = (patch_size, patch_size)
        layer: dict[str, Any] = dict(kernel_init=initializers.lecun_normal(), dtype=dtype, rngs=rngs)
        self.embed = nnx.Conv(in_features, width, size, strides=size, padding="VALID", **layer)
        self.embed_norm, self.dtype = layer_norm(width, rngs, epsilon=epsilon), dtype
        rates = iter(rising(drop_path, sum(depths)))
        self.stages = nnx.List(
            nnx.List(
                _Block(
                    features,
                    heads,
                    window_size,
                    shifted=i % 2 == 1,
                    always=shift_one_window,
                    drop_path=next(rates),
                    **options,
                )
                for i in range(depth)
            )
            for features, heads, depth in zip(self.features, num_heads, depths, strict=True)
        )
        self.merges = nnx.List(_Merge(features, **options) for features in self.features[:-1])
        self.norms = nnx.List(
            layer_norm(features, rngs, epsilon=epsilon) if norms == "all" or i == len(self.features) else None
            for i, features in enumerate(self.features, start=1)
        )

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        margins = [(0, -n % self.patch_size) for n in x.shape[1:3]]
        y = normalise(self.embed_norm, self.embed(jnp.pad(x, ((0, 0), *margins, (0, 0)))), self.dtype)
        maps = []
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            for block in stage:
                y = block(y, rngs)
            maps.append((y if norm is None else normalise(norm, y, self.dtype)).astype(x.dtype))
            y = self.merges[i](y) if i < len(self.merges) else y
        return tuple(maps)
