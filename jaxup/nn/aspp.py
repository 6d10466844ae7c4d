"""Atrous spatial pyramid pooling (Chen et al., ECCV 2018), and the convolution blocks of MobileNetV2 that it is of."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int
from jaxup.nn import initializers
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.regions import convolve_groups

DILATIONS = {32: (2, 4, 8), 16: (6, 12, 18), 8: (12, 24, 36)}
"""Of ASPP, by the output stride of the encoder."""
_INIT = initializers.variance_scaling(2.0, "fan_in", "normal")


class ConvNorm(nnx.Module):
    """Convolution without bias, BatchNorm, ReLU6; `depthwise` where every channel is convolved by itself."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        dilation: int = 1,
        depthwise: bool = False,
        kernel_init: nnx.Initializer = _INIT,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            kernel_dilation=dilation,
            feature_group_count=inputs if depthwise else 1,
            conv_general_dilated=convolve_groups,
            use_bias=False,
            dtype=dtype,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.norm, self.dtype = BatchNorm(outputs, rngs=rngs), dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of x."""
        return nnx.relu6(normalise(self.norm, self.conv(x), self.dtype))


Layer = Callable[..., Any]  # builds a layer from the arguments of `ConvNorm`


def conv_block(
    inputs: int,
    outputs: int,
    size: int,
    *,
    separable: bool,
    dilation: int = 1,
    layer: Layer = ConvNorm,
    **options: Any,
) -> nnx.List[Any]:
    """A convolution, or a depthwise one and a pointwise one."""
    if not separable:
        return nnx.List([layer(inputs, outputs, size, dilation=dilation, **options)])
    depthwise = layer(inputs, inputs, size, dilation=dilation, depthwise=True, **options)
    return nnx.List([depthwise, layer(inputs, outputs, 1, **options)])


def through(blocks: Iterable[Any], x: jax.Array) -> jax.Array:
    """One block after the other."""
    for block in blocks:
        x = block(x)
    return x


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling, with separable convolutions: context for the coarsest map of an encoder.

        out = dropout(bottleneck([conv1x1(x), separable_d(x) for each dilation d, conv1x1(mean(x))]))

    Every convolution is followed by BatchNorm and ReLU6; the mean over the image is repeated at every pixel.
    Parameters, with n dilations: 2*(Cin + 2)*w + n*((9 + 2)*Cin + (Cin + 2)*w) + ((n + 2)*w + 2)*Cout.

    Args:
        in_features: Cin.
        out_features: Cout.
        branch_features: w, channels of each branch.
        dilations: of the 3 x 3 convolutions: (2, 4, 8) at output stride 32, (6, 12, 18) at 16, (12, 24, 36) at 8.
        dropout: the part of the outputs that training drops.
        layer: what builds a convolution with norm and activation, called as the layers here are; None: these.
        dtype: the type in which the convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: [B, h, w, Cin] -> [B, h, w, Cout] in the dtype of x. In training mode dropout needs a source,
        `module(x, rngs=rngs)`; without one, nothing is dropped.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, Cin].

    Example:
        >>> aspp = ASPP(8, 4, branch_features=6, rngs=nnx.Rngs(0))
        >>> aspp.eval()
        >>> nnx.jit(aspp)(jnp.ones((1, 5, 6, 8))).shape
        (1, 5, 6, 4)

    Reference:
        Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018, as
        in Lu et al., Index Networks, TPAMI 2020. Official code: poppinace/indexnet_matting (non-commercial), hlaspp.py.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        branch_features: int = 256,
        dilations: Sequence[int] = (2, 4, 8),
        dropout: float = 0.5,
        layer: Layer | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, width = check_int("in_features", in_features), check_int("branch_features", branch_features)
        layer, options = layer or ConvNorm, dict[str, Any](dtype=dtype, rngs=rngs)
        dilated = (
            conv_block(
                in_features, width, 3, separable=True, dilation=check_int("dilations", d), layer=layer, **options
            )
            for d in dilations
        )
        self.branches = nnx.List([conv_block(in_features, width, 1, separable=False, layer=layer, **options), *dilated])
        self.mean = layer(in_features, width, 1, **options)
        joined = (len(self.branches) + 1) * width
        self.bottleneck = layer(joined, check_int("out_features", out_features), 1, **options)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Context of x at its own size."""
        check_features("x", x, self.in_features)
        branches = [through(blocks, x) for blocks in self.branches]
        mean = self.mean(jnp.mean(x, axis=(1, 2), keepdims=True))
        joined = jnp.concatenate([*branches, jnp.broadcast_to(mean, branches[0].shape)], axis=3)
        out = self.bottleneck(joined)
        return (out if rngs is None else self.dropout(out, rngs=rngs)).astype(x.dtype)
