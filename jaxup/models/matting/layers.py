"""What the matting networks on MobileNetV2 share: the encoder by its stages, and the layers that predict alpha."""

from functools import partial
from itertools import accumulate
from typing import Any

import jax
from flax import nnx

from jaxup._checks import check_choice, check_odd
from jaxup.models.backbones import MobileNetV2
from jaxup.models.backbones.mobilenet_v2 import LITE0_STAGES, V2_STAGES
from jaxup.nn.aspp import ASPP, DILATIONS, ConvNorm, conv_block, through
from jaxup.nn.indexnet import OFFICIAL_INIT
from jaxup.ops.convolve import convolve_layer

# Stages, padding and epsilon of the norms. Widths are cut to integers, as in the official code.
ENCODERS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": dict(stages=V2_STAGES, padding="expanded"),
    "efficientnet_lite0": dict(stages=LITE0_STAGES, padding="same", momentum=0.99, epsilon=1e-3),
}

_layer = partial(ConvNorm, kernel_init=OFFICIAL_INIT)


def make_encoder(in_features: int, *, backbone: str = "mobilenet_v2", **options: Any) -> MobileNetV2:
    """An encoder that returns its eight layers: the first convolution, and the seven stages."""
    check_choice("backbone", backbone, ENCODERS)
    given = ENCODERS[backbone]
    ends = tuple(accumulate((0, *(count for _, _, count, _, _ in given["stages"]))))
    return MobileNetV2(in_features, **given, divisor=None, taps=ends, **options)


def context_block(inputs: int, outputs: int, *, output_stride: int, multiplier: float, **options: Any) -> ASPP:
    """The spatial pyramid of an output stride."""
    branches = int(256 * multiplier)
    dilations = DILATIONS[output_stride]
    return ASPP(inputs, outputs, branch_features=branches, dilations=dilations, layer=_layer, **options)


def pointwise(inputs: int, outputs: int, **options: Any) -> nnx.List[Any]:
    """1x1 convolution, norm, ReLU6."""
    return conv_block(inputs, outputs, 1, separable=False, kernel_init=OFFICIAL_INIT, **options)


class Prediction(nnx.Module):
    """A block to one channel, and a convolution of it; alpha is not cut to [0, 1]."""

    def __init__(self, inputs: int, kernel_size: int, *, separable: bool, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(kernel_init=OFFICIAL_INIT, dtype=dtype, rngs=rngs)
        size = check_odd("kernel_size", kernel_size)
        self.blocks = conv_block(inputs, 1, size, separable=separable, **options)
        self.conv = nnx.Conv(1, 1, (size, size), use_bias=False, conv_general_dilated=convolve_layer, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H, W, 1]."""
        alpha: jax.Array = self.conv(through(self.blocks, x))
        return alpha
