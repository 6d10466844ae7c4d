"""ResNet (He et al., CVPR 2016), with its own stem or the deep one, and with dilation in the place of strides."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int, fail
from jaxup.models.backbones.layers import ConvNorm, classifier, dilated, max_pool, mean_pixel, require, through

# Blocks of each stage, and whether they are bottlenecks.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
STEMS = ("plain", "deep")
STYLES = ("pytorch", "caffe")
_STRIDES = (1, 2, 2, 2)


class _Block(nnx.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with a quarter of the channels between; and the shortcut.

    The stride is in the first 3x3 convolution, and so is the dilation: the second one of a basic block has none. Of
    Caffe's style the stride is in the first convolution of all.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bottleneck: bool,
        stride: int,
        dilation: int,
        style: str,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        inner = outputs // 4 if bottleneck else outputs
        first, later = (stride, 1) if bottleneck and style == "caffe" else (1, stride)
        convs = [ConvNorm(inputs, inner, 1, stride=first, **options)] if bottleneck else []
        convs.append(ConvNorm(inner if bottleneck else inputs, inner, 3, stride=later, dilation=dilation, **options))
        convs.append(ConvNorm(inner, outputs, 1 if bottleneck else 3, activation=None, **options))
        self.convs = nnx.List(convs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride, activation=None, **options) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(through(self.convs, x) + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """ResNet: the maps of its stem and of its four stages.

        stem at stride 2, max pooling, then per stage blocks of  relu(conv(relu(conv(...))) + shortcut(x))

    Every convolution is followed by BatchNorm and has no bias; the stride of a bottleneck is in its 3x3 one. The plain
    stem is one 7x7 convolution to 64 channels, the deep one (ResNet v1c) three of 3x3 to 32, 32 and 64.

    Parameters without a classifier, which has 2049 (512 + 1 up to depth 34) per class, with the plain stem: depth 18:
    11,176,512; 34: 21,284,672; 50: 23,508,032; 101: 42,500,160; 152: 58,143,808. The deep stem adds 19,232.

    With an output stride below 32, the strides beyond it become dilation: of 16 the last stage has dilation 2, of 8 the
    last two have 2 and 4. The first block of such a stage has half of it, as in torchvision and in mmsegmentation's
    PSPNet; `contract_dilation=False` gives it the whole, as mmsegmentation's class does by itself.

    Of Caffe's style, the stride of a bottleneck is in its first 1x1 convolution, and max pooling has a further window
    where the stem's map has an even height or width, so that maps are one larger: (n + 1) // 2 after the stem, then
    (n + 2) // 2, then (n + 1) // 2 at each further stride.

    Args:
        in_features: channels of the image.
        depth: 18, 34, 50, 101 or 152; or the numbers of blocks of the four stages, with `bottleneck` given.
        bottleneck: whether the blocks are bottlenecks; None is what belongs to the depth.
        widths: channels of the four stages; None is 64, 128, 256, 512, or four times as many with bottlenecks.
        stem_features: channels of the stem.
        stem: "plain" or "deep".
        output_stride: of the last map: 8, 16 or 32.
        contract_dilation: see above.
        style: "pytorch", or "caffe", see above.
        num_classes: of a classifier for `classify`, or None.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> five maps at the strides `module.strides` with `module.features` channels,
        [B, ceil(H / stride), ceil(W / stride), features] (in Caffe's style: see above), in the dtype of x. The first is
        the stem's before pooling.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: ResNet(depth=18, output_stride=8, rngs=nnx.Rngs(0))(x)
        >>> [y.shape[1:] for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))]
        [(17, 32, 64), (9, 16, 64), (5, 8, 128), (5, 8, 256), (5, 8, 512)]

    Reference:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016. The deep stem: He et al., Bag of Tricks for
        Image Classification with Convolutional Neural Networks, CVPR 2019, ResNet-C. Official weights: torchvision
        (BSD-3-Clause), mmsegmentation (Apache-2.0).
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        depth: int | Sequence[int] = 50,
        bottleneck: bool | None = None,
        widths: Sequence[int] | None = None,
        stem_features: int = 64,
        stem: str = "plain",
        output_stride: int = 32,
        contract_dilation: bool = True,
        style: str = "pytorch",
        num_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.in_features = check_int("in_features", in_features)
        check_choice("stem", stem, STEMS)
        check_choice("output_stride", output_stride, (8, 16, 32))
        check_choice("style", style, STYLES)
        self.style = style
        blocks, bottleneck = _blocks(depth, bottleneck)
        widths = [w * (4 if bottleneck else 1) for w in (64, 128, 256, 512)] if widths is None else widths
        stages = dilated(_STRIDES, output_stride, start=4)
        self.stem = _stem(in_features, check_int("stem_features", stem_features), stem, options)
        self.features = (stem_features, *(check_int("widths", width) for width in widths))
        self.strides = (2, *(min(stride, output_stride) for stride in (4, 8, 16, 32)))
        self.stages: nnx.List[Any] = nnx.List()
        for inputs, outputs, count, (stride, first, rest) in zip(
            self.features, self.features[1:], blocks, stages, strict=False
        ):
            dilations = [first if contract_dilation else rest] + [rest] * (check_int("depth", count) - 1)
            self.stages.append(
                nnx.List(
                    _Block(
                        outputs if i else inputs,
                        outputs,
                        bottleneck=bottleneck,
                        stride=1 if i else stride,
                        dilation=dilation,
                        style=style,
                        **options,
                    )
                    for i, dilation in enumerate(dilations)
                )
            )
        self.classifier = None if num_classes is None else classifier(self.features[-1], num_classes, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        y = through(self.stem, x)
        maps = [y]
        y = max_pool(y, 3, padding=[(1, 2 - n % 2 if self.style == "caffe" else 1) for n in y.shape[1:3]])
        for stage in self.stages:
            y = through(stage, y)
            maps.append(y)
        return tuple(y.astype(x.dtype) for y in maps)

    def classify(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Logits [B, num_classes] from the maps that the network returned."""
        logits: jax.Array = require(self.classifier)(mean_pixel(maps[-1])).astype(maps[-1].dtype)
        return logits


def _blocks(depth: int | Sequence[int], bottleneck: bool | None) -> tuple[Sequence[int], bool]:
    if isinstance(depth, int):
        check_choice("depth", depth, DEPTHS)
        blocks, usual = DEPTHS[depth]
        return blocks, usual if bottleneck is None else bottleneck
    if len(depth) != 4 or bottleneck is None:
        fail("depth", "one of 18, 34, 50, 101, 152, or four numbers of blocks with `bottleneck`", depth)
    return depth, bottleneck


def _stem(inputs: int, outputs: int, kind: str, options: dict[str, Any]) -> nnx.List[Any]:
    if kind == "plain":
        return nnx.List([ConvNorm(inputs, outputs, 7, stride=2, **options)])
    half = outputs // 2
    return nnx.List(
        [
            ConvNorm(inputs, half, 3, stride=2, **options),
            ConvNorm(half, half, 3, **options),
            ConvNorm(half, outputs, 3, **options),
        ]
    )
