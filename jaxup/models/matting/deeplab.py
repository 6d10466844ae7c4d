"""DeepLabv3+ on MobileNetV2 for matting (Chen et al., ECCV 2018): the baseline B1 of Index Networks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_odd
from jaxup.models.matting.layers import context_block, make_encoder, pointwise
from jaxup.nn.aspp import conv_block, through
from jaxup.nn.indexnet import OFFICIAL_INIT
from jaxup.ops.resize import resize

_FEATURES, _LOW = 256, 48


class DeepLabMatting(nnx.Module):
    """DeepLabv3+ for matting: spatial pyramid pooling of the last map, and one fusion with that at stride 4.

        y = block(block([resize(ASPP(l_7)), cbr(l_2)]))
        alpha = resize(conv1x1(relu6(norm(conv1x1(y)))))

    A block is a convolution, norm and ReLU6, cbr one of 1x1 to 48 channels; l_i are the layers of MobileNetV2, with its
    strides. Sizes are interpolated bilinearly, corner on corner, so that an image with sides of a multiple of the
    output stride and 1 has its pixels met exactly.

    Parameters: 6,149,443.

    Args:
        in_features: channels of the image and its trimap.
        output_stride: of the last map: 8, 16 or 32.
        multiplier: of the widths of the encoder.
        kernel_size: of the two blocks, odd.
        separable: depthwise and pointwise convolutions in the two blocks.
        backbone: "mobilenet_v2" or "efficientnet_lite0".
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: normalised image and trimap [B, H, W, Cin] of any size -> alpha [B, H, W, 1], not cut to
        [0, 1], in the dtype of x; in training mode ASPP drops half of its outputs, with a source `rngs`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> network = nnx.eval_shape(lambda: DeepLabMatting(multiplier=0.25, rngs=nnx.Rngs(0)))
        >>> network.encoder.strides
        (2, 2, 4, 8, 16, 16, 16, 16)

    Reference:
        Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018; Lu et
        al., Index Networks, TPAMI 2020, Table 4. Official code: poppinace/indexnet_matting (non-commercial).
    """

    def __init__(
        self,
        in_features: int = 4,
        *,
        output_stride: int = 16,
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
        self.context = context_block(self.encoder.features[7], _FEATURES, **sizes, **options)
        self.low = pointwise(self.encoder.features[2], _LOW, **options)
        block: dict[str, Any] = dict(separable=separable, kernel_init=OFFICIAL_INIT, **options)
        size = check_odd("kernel_size", kernel_size)
        self.fuse = nnx.List(conv_block(width, _FEATURES, size, **block) for width in (_FEATURES + _LOW, _FEATURES))
        self.predict = pointwise(_FEATURES, 1, **options)
        self.last = nnx.Conv(1, 1, (1, 1), use_bias=False, kernel_init=OFFICIAL_INIT, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Alpha of x."""
        check_features("x", x, self.encoder.in_features)
        maps = self.encoder(x)
        low = through(self.low, maps[2])
        y = resize_to(self.context(maps[7], rngs=rngs), low).astype(low.dtype)
        y = jnp.concatenate([y, low], axis=3)
        for block in self.fuse:
            y = through(block, y)
        return resize_to(self.last(through(self.predict, y)), x).astype(x.dtype)


def resize_to(y: jax.Array, x: jax.Array) -> jax.Array:
    """Bilinearly to the size of another map, corner on corner."""
    return resize(y, size=x.shape[1:3], method="bilinear", align_corners=True)
