"""DenseNet (Huang et al., CVPR 2017), an encoder of Hu et al.'s depth network."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int
from jaxup.models.backbones.layers import ConvNorm, classifier, conv, max_pool, mean_pixel, require, through
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.resize import resize


class _NormConv(nnx.Module):
    """Normalisation and ReLU before the convolution."""

    def __init__(self, inputs: int, outputs: int, size: int, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = BatchNorm(inputs, rngs=rngs)
        self.conv = conv(inputs, outputs, size, use_bias=False, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(nnx.relu(normalise(self.norm, x, self.dtype)))


class _Layer(nnx.Module):
    """A few more channels beside those of x."""

    def __init__(self, inputs: int, growth: int, *, dtype: Any, rngs: nnx.Rngs):
        self.reduce = _NormConv(inputs, 4 * growth, 1, dtype=dtype, rngs=rngs)
        self.grow = _NormConv(4 * growth, growth, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x, self.grow(self.reduce(x)).astype(x.dtype)], axis=3)


class DenseNet(nnx.Module):
    """DenseNet: every layer of a stage sees the outputs of all layers before it.

        conv7x7 at stride 2, max pooling, then per stage layers of  [x, f3x3(f1x1(x))],   f(x) = conv(relu(norm(x)))
        and between stages  mean over 2x2 pixels of f1x1(x),  which has half of the channels

    No convolution has a bias, and the means leave odd rows and columns out. The maps of the stages but the last are
    those before the means, behind f1x1, as Hu et al.'s depth network has them; the last is relu(norm(x)).

    Parameters without a classifier, which has 2209 per class: 26,472,000, those of DenseNet-161.

    Args:
        in_features: channels of the image.
        blocks: layers of each stage.
        growth: channels that a layer adds.
        stem_features: channels of the stem.
        num_classes: of a classifier for `classify`, or None.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> five maps at the strides `module.strides` (2, 4, 8, 16, 32) with
        `module.features` (96, 192, 384, 1056, 2208) channels, in the dtype of x. The first is the stem's before
        pooling. Sides are ceil(H / 2), ceil(H / 4), and from there floor(n / 2).

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: DenseNet(blocks=(1, 2, 1, 1), growth=4, stem_features=8, rngs=nnx.Rngs(0))(x)
        >>> [y.shape[1:] for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))]
        [(17, 32, 8), (9, 16, 6), (4, 8, 7), (2, 4, 5), (1, 2, 9)]

    Reference:
        Huang et al., Densely Connected Convolutional Networks, CVPR 2017. Official weights: torchvision (BSD-3-Clause),
        `densenet161`.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        blocks: Sequence[int] = (6, 12, 36, 24),
        growth: int = 48,
        stem_features: int = 96,
        num_classes: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.in_features = check_int("in_features", in_features)
        self.stem = ConvNorm(in_features, check_int("stem_features", stem_features), 7, stride=2, **options)
        self.stages: nnx.List[Any] = nnx.List()
        self.transitions: nnx.List[Any] = nnx.List()
        width, features = stem_features, [stem_features]
        for i, count in enumerate(blocks):
            layers = (_Layer(width + j * growth, growth, **options) for j in range(check_int("blocks", count)))
            self.stages.append(nnx.List(layers))
            width += count * check_int("growth", growth)
            if i < len(blocks) - 1:
                self.transitions.append(_NormConv(width, width // 2, 1, **options))
                width //= 2
            features.append(width)
        self.norm, self.dtype = BatchNorm(width, rngs=rngs), dtype
        self.features = tuple(features)
        self.strides = tuple(2 ** (i + 1) for i in range(len(features)))
        self.classifier = None if num_classes is None else classifier(width, num_classes, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        maps = [self.stem(x)]
        y = max_pool(maps[0], 3, padding=1)
        for stage, transition in zip(self.stages, self.transitions, strict=False):
            y = transition(through(stage, y))
            maps.append(y)
            y = _halve(y)
        y = through(self.stages[-1], y)
        maps.append(nnx.relu(normalise(self.norm, y, self.dtype)))
        return tuple(y.astype(x.dtype) for y in maps)

    def classify(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Logits [B, num_classes] from the maps that the network returned."""
        logits: jax.Array = require(self.classifier)(mean_pixel(maps[-1])).astype(maps[-1].dtype)
        return logits


def _halve(x: jax.Array) -> jax.Array:
    """Means over 2x2 pixels; a side of one pixel stays."""
    height, width = (max(1, n // 2) for n in x.shape[1:3])
    return resize(x[:, : 2 * height, : 2 * width], size=(height, width), method="area")
