"""Decoders of Index Networks (Lu et al., TPAMI 2020): upsampling with learned indices, and fusion with the skip."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_features, check_image, check_int, check_odd, check_shape, fail, pair
from jaxup.nn.aspp import conv_block, through
from jaxup.nn.indexnet import IndexNetwork
from jaxup.ops.index import indexed_upsample


class IndexNetUpsample(nnx.Module):
    """Indexed upsampling, with the indices that an index network reads from the guide.

        out = decoder * nearest(x),    (encoder, decoder) = IndexNetwork(guide)

    In the paper's encoder-decoder the guide is the encoder's map before pooling, and the network's encoder map pools
    it: there, call `IndexNetwork` once and `ops.indexed_pool` and `ops.indexed_upsample` with its two maps.
    Parameters and multiply-adds: those of `IndexNetwork`, and one multiplication per output entry.

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide; Cin for all families but the holistic one.
        scale: integer upsampling factor, or a pair (vertical, horizontal). The paper has 2.
        family: "holistic", "modelwise_o2o", "shared_o2o", "unshared_o2o" or "m2o", see `IndexNetwork`.
        nonlinear: two layers.
        context: windows of twice the height and width.
        dtype: the type in which the layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> HR map [B, sy*h, sx*w, Cin] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> up = IndexNetUpsample(8, 4, scale=2, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 3, 5, 8)), jnp.ones((1, 6, 10, 4))).shape
        (1, 6, 10, 8)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 4.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int | Pair = 2,
        family: str = "holistic",
        nonlinear: bool = True,
        context: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        if family != "holistic" and guide_features != in_features:
            fail("guide_features", f"in_features = {in_features} for one map per channel", guide_features)
        self.index = IndexNetwork(
            guide_features, family=family, scale=scale, nonlinear=nonlinear, context=context, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        sy, sx = scale = self.index.scale
        check_features("x", x, self.in_features)
        check_image("guide", guide)
        check_shape("guide", guide, (x.shape[0], sy * x.shape[1], sx * x.shape[2], self.guide_features))
        return indexed_upsample(x, self.index(guide).decoder, scale=scale)


class IndexedUpsample(nnx.Module):
    """Decoder block: indexed upsampling of the decoder's map, fused with the skip from the encoder.

        out = block([index * nearest(x), skip]),    block = conv, BatchNorm, ReLU6

    A separable block is a depthwise convolution and a pointwise one, BatchNorm and ReLU6 after each. Without an index
    map, x is fused at its own size.
    Parameters: (K^2*Cin + 2)*Cout; separable (K^2 + 2)*Cin + (Cin + 2)*Cout. Multiply-adds per output pixel:
    K^2*Cin*Cout; separable (K^2 + Cout)*Cin.

    Args:
        in_features: Cin, channels of x and of the skip together.
        out_features: Cout.
        scale: s, an integer or a pair (vertical, horizontal). The paper has 2.
        kernel_size: K, odd.
        separable: depthwise and pointwise convolution ("dep_sep_conv" of the official code).
        dtype: the type in which the convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, skip, index)`: LR map [B, h, w, Cx], skip [B, sy*h, sx*w, Cin - Cx], index map [B, sy*h, sx*w, Cx]
        or of 1 channel -> [B, sy*h, sx*w, Cout] in the dtype of x. `module(x, skip)`: both of one size.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> block = IndexedUpsample(8, 4, rngs=nnx.Rngs(0))
        >>> block(jnp.ones((1, 3, 5, 6)), jnp.ones((1, 6, 10, 2)), jnp.ones((1, 6, 10, 1))).shape
        (1, 6, 10, 4)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 6.1. Official code: poppinace/indexnet_matting (non-commercial),
        `IndexedUpsamlping` of hldecoder.py. The skip is there the indexed map, encoder index * features.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair = 2,
        kernel_size: int = 5,
        separable: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.scale = check_int("in_features", in_features), pair("scale", scale)
        outputs, size = check_int("out_features", out_features), check_odd("kernel_size", kernel_size)
        self.blocks = conv_block(in_features, outputs, size, separable=separable, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, skip: jax.Array, index: jax.Array | None = None) -> jax.Array:
        """Enlarge x where there are indices, and fuse it with the skip."""
        check_image("x", x)
        check_image("skip", skip)
        up = x if index is None else indexed_upsample(x, index, scale=self.scale)
        check_shape("skip", skip, (*up.shape[:3], self.in_features - x.shape[3]))
        return through(self.blocks, jnp.concatenate([up, skip.astype(up.dtype)], axis=3)).astype(x.dtype)
