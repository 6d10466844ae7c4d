"""Light-weight RefineNet on MobileNetV2 for matting (Nekrasov et al., BMVC 2018): the baseline B2 of Index Networks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features
from jaxup.models.matting.deeplab import resize_to
from jaxup.models.matting.layers import Prediction, make_encoder, pointwise
from jaxup.nn.aspp import through

_FEATURES, _POOLINGS = 256, 4
# Layers of the encoder whose maps meet, coarse to fine.
MEETING = ((7, 6), (5, 4), (3,), (2,))


class ChainedPooling(nnx.Module):
    """Chained residual pooling: x + y_1 + .. + y_4, y = relu6(norm(conv1x1(largest of 5x5 pixels of the y before)))."""

    def __init__(self, features: int, **options: Any):
        self.layers = nnx.List(pointwise(features, features, **options) for _ in range(_POOLINGS))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        pool: Any = nnx.max_pool  # which has no types
        top = x
        for layer in self.layers:
            top = through(layer, pool(top, (5, 5), strides=(1, 1), padding=((2, 2), (2, 2))))
            x = x + top
        return x


class RefineNetMatting(nnx.Module):
    """Light-weight RefineNet for matting: maps of the encoder meet coarse to fine, with chained residual pooling.

        y_4 = crp(relu6(c_7 + c_6))
        y_3 = crp(relu6(c_5 + c_4 + resize(cbr(y_4))))
        y_2 = crp(relu6(c_3 + resize(cbr(y_3)))),    y_1 = crp(relu6(c_2 + resize(cbr(y_2))))
        alpha = resize(conv(block(y_1))),    c_i = cbr(l_i)

    cbr is a 1x1 convolution to 256 channels, norm and ReLU6, a block a larger one; l_i are the layers of MobileNetV2,
    with its strides. Sizes are interpolated bilinearly, corner on corner.

    Parameters: 3,254,587.

    Args:
        in_features: channels of the image and its trimap.
        output_stride: of the last map: 8, 16 or 32.
        multiplier: of the widths of the encoder.
        kernel_size: of the layers that predict alpha, odd.
        separable: a depthwise and a pointwise convolution in the last block.
        backbone: "mobilenet_v2" or "efficientnet_lite0".
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: normalised image and trimap [B, H, W, Cin] of any size -> alpha [B, H, W, 1], not cut to
        [0, 1], in the dtype of x; nothing is dropped by chance, and `rngs` has no effect.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> network = nnx.eval_shape(lambda: RefineNetMatting(multiplier=0.25, rngs=nnx.Rngs(0)))
        >>> network.encoder.strides
        (2, 2, 4, 8, 16, 16, 32, 32)

    Reference:
        Nekrasov et al., Light-Weight RefineNet for Real-Time Semantic Segmentation, BMVC 2018; Lu et al., Index
        Networks, TPAMI 2020, Table 4. Official code: poppinace/indexnet_matting (non-commercial).
    """

    def __init__(
        self,
        in_features: int = 4,
        *,
        output_stride: int = 32,
        multiplier: float = 1.0,
        kernel_size: int = 5,
        separable: bool = False,
        backbone: str = "mobilenet_v2",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        sizes: dict[str, Any] = dict(output_stride=output_stride, multiplier=multiplier)
        self.encoder = make_encoder(in_features, backbone=backbone, **sizes, **options)
        widths = self.encoder.features
        self.reduce = nnx.List(
            nnx.List(pointwise(widths[layer], _FEATURES, **options) for layer in layers) for layers in MEETING
        )
        self.adapt = nnx.List(pointwise(_FEATURES, _FEATURES, **options) for _ in MEETING[1:])
        self.pool = nnx.List(ChainedPooling(_FEATURES, **options) for _ in MEETING)
        self.predict = Prediction(_FEATURES, kernel_size, separable=separable, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Alpha of x."""
        check_features("x", x, self.encoder.in_features)
        y, maps = x, self.encoder(x)
        for stage, layers in enumerate(MEETING):
            total = sum(through(one, maps[i]) for one, i in zip(self.reduce[stage], layers, strict=True))
            if stage > 0:
                total = total + resize_to(through(self.adapt[stage - 1], y), maps[layers[0]])
            y = self.pool[stage](nnx.relu6(total))
        return resize_to(self.predict(y), x).astype(x.dtype)
