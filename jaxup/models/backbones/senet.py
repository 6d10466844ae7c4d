"""SENet-154 (Hu, Shen and Sun, CVPR 2018), an encoder of Hu et al.'s depth network."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int
from jaxup.models.backbones.layers import (
    ConvNorm,
    classifier,
    linear,
    max_pool,
    mean_pixel,
    require,
    through,
)


class _Excitation(nnx.Module):
    """x times a number from 0 to 1 for each channel, from the means over the image."""

    def __init__(self, features: int, reduction: int, *, dtype: Any, rngs: nnx.Rngs):
        self.squeeze = linear(features, features // reduction, dtype=dtype, rngs=rngs)
        self.expand = linear(features // reduction, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        scale = nnx.sigmoid(self.expand(nnx.relu(self.squeeze(mean_pixel(x)))))
        return x * scale[:, None, None].astype(x.dtype)


class _Block(nnx.Module):
    """1x1, 3x3 in groups with the stride, 1x1, excitation; and the shortcut."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        groups: int,
        reduction: int,
        shortcut: int | None,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.convs = nnx.List(
            [
                ConvNorm(inputs, outputs // 2, 1, **options),
                ConvNorm(outputs // 2, outputs, 3, stride=stride, groups=groups, **options),
                ConvNorm(outputs, outputs, 1, activation=None, **options),
            ]
        )
        self.excitation = _Excitation(outputs, reduction, **options)
        of_shortcut: dict[str, Any] = dict(stride=stride, activation=None, **options)
        self.shortcut = None if shortcut is None else ConvNorm(inputs, outputs, shortcut, **of_shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.excitation(through(self.convs, x))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class SENet(nnx.Module):
    """SENet-154: bottlenecks of grouped convolutions whose channels are weighted by the whole image.

        three 3x3 convolutions, the first at stride 2; max pooling; then per stage blocks of
        relu(s y + shortcut(x)),   y = conv1x1(relu(conv3x3 in groups(relu(conv1x1(x))))),
        s = sigmoid(W2 relu(W1 mean of y over the image + b1) + b2)

    Every convolution is followed by BatchNorm and has no bias. The shortcut of a stage's first block is 1x1 in the
    first stage and 3x3 in the others. The pooling has windows of 3x3 and no margin, and its last window may stand over
    the border: n pixels become floor(n / 2), so that maps of images whose sides are no multiples of 4 are a little
    smaller than those of other backbones.

    Parameters without a classifier, which has 2049 per class: 113,039,984.

    Args:
        in_features: channels of the image.
        blocks: of the four stages.
        widths: channels of the four stages.
        stem_features: channels of the stem; its first two convolutions have half.
        groups: of the 3x3 convolutions.
        reduction: channels of y for one of W1.
        num_classes: of a classifier for `classify`, or None.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> five maps at the strides `module.strides` (2, 4, 8, 16, 32) with
        `module.features` (128, 256, 512, 1024, 2048) channels, in the dtype of x. The first is the stem's before
        pooling.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> sizes = dict(blocks=(1, 1, 1, 1), widths=(8, 8, 16, 16), stem_features=4, groups=4, reduction=4)
        >>> run = lambda x: SENet(**sizes, rngs=nnx.Rngs(0))(x)
        >>> [y.shape[1:] for y in nnx.eval_shape(run, jnp.ones((1, 32, 64, 3)))]
        [(16, 32, 4), (8, 16, 8), (4, 8, 8), (2, 4, 16), (1, 2, 16)]

    Reference:
        Hu, Shen and Sun, Squeeze-and-Excitation Networks, CVPR 2018. Official weights: Cadene/pretrained-models.pytorch
        (BSD-3-Clause), converted from the authors'.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        blocks: Sequence[int] = (3, 8, 36, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        stem_features: int = 128,
        groups: int = 64,
        reduction: int = 16,
        num_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.in_features = check_int("in_features", in_features)
        half = check_int("stem_features", stem_features, 2) // 2
        self.stem = nnx.List(
            [
                ConvNorm(in_features, half, 3, stride=2, **options),
                ConvNorm(half, half, 3, **options),
                ConvNorm(half, stem_features, 3, **options),
            ]
        )
        self.features = (stem_features, *(check_int("widths", width) for width in widths))
        self.strides = (2, 4, 8, 16, 32)
        of_blocks: dict[str, Any] = dict(
            groups=check_int("groups", groups), reduction=check_int("reduction", reduction)
        )
        self.stages: nnx.List[Any] = nnx.List()
        for i, count in enumerate(blocks):
            inputs, outputs = self.features[i : i + 2]
            first = _Block(inputs, outputs, stride=min(2, i + 1), shortcut=3 if i else 1, **of_blocks, **options)
            rest = (
                _Block(outputs, outputs, stride=1, shortcut=None, **of_blocks, **options)
                for _ in range(check_int("blocks", count) - 1)
            )
            self.stages.append(nnx.List([first, *rest]))
        self.classifier = None if num_classes is None else classifier(self.features[-1], num_classes, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        y = through(self.stem, x)
        maps = [y]
        y = max_pool(y, 3, padding=[(0, _margin(n)) for n in y.shape[1:3]])
        for stage in self.stages:
            y = through(stage, y)
            maps.append(y)
        return tuple(y.astype(x.dtype) for y in maps)

    def classify(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Logits [B, num_classes] from the maps that the network returned."""
        logits: jax.Array = require(self.classifier)(mean_pixel(maps[-1])).astype(maps[-1].dtype)
        return logits


def _margin(pixels: int) -> int:
    """What the last window of 3 pixels at stride 2 has beyond the border."""
    windows = max(1, pixels // 2)
    return 2 * windows + 1 - pixels
