"""Mix Transformer, the encoder of SegFormer (Xie et al., NeurIPS 2021)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_divides, check_features, check_int, fail
from jaxup.models.backbones.layers import Attention, Residual, conv, linear, rising
from jaxup.nn.norms import layer_norm, normalise


class _Reduction(nnx.Module):
    """A convolution of r x r pixels to one, and its norm; the last rows and columns may fill no window."""

    def __init__(self, features: int, size: int, *, epsilon: float, dtype: Any, rngs: nnx.Rngs):
        self.conv = conv(features, features, size, stride=size, padding="valid", dtype=dtype, rngs=rngs)
        self.norm, self.size, self.dtype = layer_norm(features, rngs, epsilon=epsilon), size, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        if min(x.shape[1:3]) < self.size:
            fail("x", f"an image whose map has sides of at least {self.size} here", f"a map of shape {x.shape}")
        return normalise(self.norm, self.conv(x), self.dtype)


class _Attention(nnx.Module):
    """Queries of every pixel; keys and values of a map that a strided convolution has reduced."""

    def __init__(self, features: int, heads: int, reduction: int, *, embed_epsilon: float, **options: Any):
        self.attend = Attention(features, heads, **options)
        self.reduce = _Reduction(features, reduction, epsilon=embed_epsilon, **options) if reduction > 1 else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        small = x if self.reduce is None else self.reduce(x)
        tokens, pixels = (y.reshape(y.shape[0], y.shape[1] * y.shape[2], y.shape[3]) for y in (x, small))
        return self.attend(tokens, pixels).reshape(x.shape)


class _MixMLP(nnx.Module):
    """Linear, depthwise 3x3 convolution, GELU, linear: the convolution tells positions."""

    def __init__(self, features: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.expand = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.mix = conv(hidden, hidden, 3, depthwise=True, dtype=dtype, rngs=rngs)
        self.reduce = linear(hidden, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.reduce(nnx.gelu(self.mix(self.expand(x)), approximate=False))


class _Block(nnx.Module):
    def __init__(
        self,
        features: int,
        *,
        heads: int,
        reduction: int,
        hidden: int,
        epsilon: float,
        embed_epsilon: float,
        drop_path: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        attention = _Attention(features, heads, reduction, embed_epsilon=embed_epsilon, **options)
        options |= dict(epsilon=epsilon, drop_path=drop_path)
        self.attention = Residual(features, attention, **options)
        self.mlp = Residual(features, _MixMLP(features, hidden, dtype=dtype, rngs=rngs), **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        return self.mlp(self.attention(x, rngs), rngs)


class _Stage(nnx.Module):
    """Overlapping patches, blocks, layer normalisation."""

    def __init__(self, inputs: int, features: int, *, size: int, rates: Sequence[float], **options: Any):
        dtype, rngs = options["dtype"], options["rngs"]
        self.embed = conv(inputs, features, size, stride=(size + 1) // 2, dtype=dtype, rngs=rngs)
        self.embed_norm = layer_norm(features, rngs, epsilon=options["embed_epsilon"])
        self.blocks = nnx.List(_Block(features, drop_path=rate, **options) for rate in rates)
        self.norm, self.dtype = layer_norm(features, rngs, epsilon=options["epsilon"]), dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        y = normalise(self.embed_norm, self.embed(x), self.dtype)
        for block in self.blocks:
            y = block(y, rngs)
        return normalise(self.norm, y, self.dtype)


class MiT(nnx.Module):
    """Mix Transformer: four stages of overlapping patches and blocks whose attention reads a reduced map.

        y = norm(conv(x));  per block:  y + attention(norm(y), norm(conv_r(norm(y)))),  y + mlp(norm(y));  norm

    with the stage's last map as x of the next. Nothing is padded: maps have sides ceil(H / stride), and the reducing
    convolution leaves out the rows and columns that do not fill a window.

    The three codes differ in the epsilon of the norms: (epsilon, embed_epsilon) is (1e-6, 1e-5) in NVlabs', the
    default, (1e-6, 1e-6) in mmsegmentation 1.x, (1e-5, 1e-5) in Hugging Face's.

    Parameters: B0 3,319,392; B1 13,151,424; B2 24,196,288; B3 44,072,128; B4 60,842,688; B5 81,443,008.

    Args:
        in_features: channels of the image.
        widths: channels of the stages.
        depths: blocks of the stages.
        num_heads: of the stages, divisors of the widths.
        reductions: strides of the convolutions before keys and values.
        mlp_ratio: channels inside the MLP over the width.
        epsilon: of the norms in front of attention and MLP and at the end of a stage.
        embed_epsilon: of the norms after the patches and after the reducing convolution.
        drop_path: the probability with which training drops the branches of the last block, of the others less.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> four maps at the strides 4, 8, 16, 32 with `module.features` channels,
        [B, ceil(H / stride), ceil(W / stride), features], in the dtype of x. Training drops paths if it gives a source,
        `module(x, rngs=rngs)`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin] or smaller than 29 pixels.

    Example:
        >>> run = lambda x: MiT(widths=(4, 6, 8, 8), depths=(1,) * 4, num_heads=(1, 2, 2, 2), rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))]
        [(1, 9, 16, 4), (1, 5, 8, 6), (1, 3, 4, 8), (1, 2, 2, 8)]

    Reference:
        Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021,
        Sec. 3.1. Official code: NVlabs/SegFormer (non-commercial).
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: int = 4,
        epsilon: float = 1e-6,
        embed_epsilon: float = 1e-5,
        drop_path: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        for width, heads in zip(widths, num_heads, strict=True):
            check_divides("num_heads", heads, "widths", width)
        self.features, self.strides = tuple(widths), tuple(4 * 2**i for i in range(len(widths)))
        rates, inputs = rising(drop_path, sum(depths)), (in_features, *widths)
        self.stages = nnx.List(
            _Stage(
                inputs[i],
                widths[i],
                size=3 if i else 7,
                rates=rates[sum(depths[:i]) :][: depths[i]],
                heads=num_heads[i],
                reduction=reductions[i],
                hidden=mlp_ratio * widths[i],
                epsilon=epsilon,
                embed_epsilon=embed_epsilon,
                dtype=dtype,
                rngs=rngs,
            )
            for i in range(len(widths))
        )

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        maps: list[jax.Array] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else x, rngs))
        return tuple(y.astype(x.dtype) for y in maps)
