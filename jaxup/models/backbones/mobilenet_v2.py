"""MobileNetV2 (Sandler et al., CVPR 2018), and EfficientNet-Lite0, which is of the same blocks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int
from jaxup.models.backbones.layers import ConvNorm, classifier, dilated, mean_pixel, require
from jaxup.models.backbones.taps import collect, ends, tapped

# Expansion, channels, blocks, stride, kernel size of each stage.
Stage = tuple[int, int, int, int, int]
V2_STAGES: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
LITE0_STAGES: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
PADDINGS = ("symmetric", "same", "expanded")


class InvertedResidual(nnx.Module):
    """The block of V2: 1x1 expansion, depthwise, 1x1 projection without activation; and x, where the shapes agree.

    With padding "expanded" the zeros around x pass the expansion too, as in the official code of index networks.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        expansion: int,
        stride: int,
        dilation: int,
        padding: str,
        **options: Any,
    ):
        hidden = inputs * expansion
        self.expand = None if expansion == 1 else ConvNorm(inputs, hidden, 1, activation=nnx.relu6, **options)
        self.margin = dilation * (size // 2) if padding == "expanded" else 0
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            size,
            stride=stride,
            dilation=dilation,
            depthwise=True,
            padding="valid" if self.margin else padding,
            activation=nnx.relu6,
            **options,
        )
        self.project = ConvNorm(hidden, outputs, 1, activation=None, **options)
        self.shortcut = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, ceil(H / stride), ceil(W / stride), outputs]."""
        y = jnp.pad(x, ((0, 0), *((self.margin, self.margin),) * 2, (0, 0))) if self.margin else x
        y = y if self.expand is None else self.expand(y)
        y = self.project(self.depthwise(y))
        return x + y if self.shortcut else y


class MobileNetV2(nnx.Module):
    """MobileNetV2: inverted residuals, the maps of the last one at each resolution.

        conv3x3 at stride 2, then blocks of  x + norm(conv1x1(relu6(norm(depthwise(relu6(norm(conv1x1(x))))))))

    EfficientNet-Lite0 is the same with other stages, TensorFlow's padding and other constants of the norms:
    `make_backbone("efficientnet_lite0", ...)`.

    Parameters without a classifier, which has 412,160 and 1281 per class: 1,811,712; EfficientNet-Lite0: 2,958,848.

    With an output stride below 32, the strides beyond it become dilation, in all blocks but the first of the stage,
    which has that of the stage before.

    Args:
        in_features: channels of the image.
        multiplier: of all widths.
        divisor: widths are rounded to multiples of it, and not by more than a tenth down; None cuts them to integers.
        stages: (expansion, channels, blocks, stride, kernel size) of each.
        output_stride: of the last map: 8, 16 or 32.
        strided: False has stride 1 everywhere, for networks that pool between the blocks; dilation stays.
        padding: "symmetric", "same" (TensorFlow's, which is one-sided at even sizes), or "expanded": see
            `InvertedResidual`.
        momentum: of the running statistics, the part that is kept.
        epsilon: of the norms.
        taps: blocks whose outputs are returned, counted from 1, with 0 the first convolution; None is the last at each
            stride, 1, 3, 6, 13 and 17.
        num_classes: of a classifier for `classify`, or None.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> maps at the strides `module.strides` (2, 4, 8, 16, 32) with
        `module.features` (16, 24, 32, 96, 320) channels, [B, ceil(H / stride), ceil(W / stride), features], in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: MobileNetV2(stages=((1, 16, 1, 1, 3), (6, 24, 1, 2, 3)), rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))]
        [(1, 17, 32, 16), (1, 9, 16, 24)]

    Reference:
        Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018. Tan and Le, EfficientNet:
        Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019. Official weights: torchvision
        (BSD-3-Clause), timm (Apache-2.0), CSAILVision (BSD-3-Clause).
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        multiplier: float = 1.0,
        divisor: int | None = 8,
        stages: Sequence[Stage] = V2_STAGES,
        output_stride: int = 32,
        strided: bool = True,
        padding: str = "symmetric",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        taps: Sequence[int] | None = None,
        num_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_choice("padding", padding, PADDINGS)
        options: dict[str, Any] = dict(momentum=momentum, epsilon=epsilon, dtype=dtype, rngs=rngs)
        widths = [_width(32, multiplier, divisor)]
        around = "symmetric" if padding == "expanded" else padding
        nominal, strides = [2], [2 if strided else 1]
        self.blocks: nnx.List[Any] = nnx.List()
        self.stem = ConvNorm(
            in_features, widths[0], 3, stride=strides[0], padding=around, activation=nnx.relu6, **options
        )
        rates = dilated([stride for *_, stride, _ in stages], output_stride, start=2)
        for (expansion, channels, count, usual, size), (stride, first, rest) in zip(stages, rates, strict=True):
            for i in range(count):
                nominal.append(1 if i else usual)
                strides.append(stride if strided and not i else 1)
                outputs = _width(channels, multiplier, divisor)
                block = InvertedResidual(
                    widths[-1],
                    outputs,
                    size,
                    expansion=expansion,
                    stride=strides[-1],
                    dilation=rest if i else first,
                    padding=padding,
                    **options,
                )
                widths.append(outputs)
                self.blocks.append(block)
        self.taps, self.features, self.strides = tapped(taps, ends(nominal), widths, strides)
        hidden = _width(1280, max(1.0, multiplier), divisor)
        self.head = None if num_classes is None else ConvNorm(widths[-1], hidden, 1, activation=nnx.relu6, **options)
        self.classifier = None if num_classes is None else classifier(hidden, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        return collect([self.stem, *self.blocks], self.taps, x)

    def classify(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Logits [B, num_classes] from the maps that the network returned, the last one of its last block."""
        hidden = require(self.head)(maps[-1])
        logits: jax.Array = require(self.classifier)(mean_pixel(hidden)).astype(maps[-1].dtype)
        return logits


def _width(width: int, multiplier: float, divisor: int | None) -> int:
    scaled = width * multiplier
    if divisor is None:
        return int(scaled)
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded
