"""VGG with batch normalisation (Simonyan and Zisserman, ICLR 2015)."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int
from jaxup.models.backbones.layers import ConvNorm, max_pool, through


class VGG(nnx.Module):
    """The convolutions of VGG-16 with batch normalisation: the maps of its five stages, each before its pooling.

        per stage: relu(norm(conv3x3(...))) a few times; between stages 2x2 max pooling, without odd rows

    Networks that pool between the stages in their own way, with indices or index networks, call `module.stages[i]`.

    Parameters: 14,723,136. Convolutions have biases in spite of the norm. The classifier of three linear layers, which
    has 119,586,826 of the published network's parameters, is left out.

    Args:
        in_features: channels of the image.
        layers: of each stage.
        widths: channels of each stage.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> five maps at the strides 1, 2, 4, 8, 16 with 64, 128, 256, 512 and 512
        channels, [B, floor(H / stride), floor(W / stride), features], in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: VGG(layers=(1, 2), widths=(4, 6), rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 9, 8, 3)))]
        [(1, 9, 8, 4), (1, 4, 4, 6)]

    Reference:
        Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015,
        configuration D. Official weights: torchvision (BSD-3-Clause), `vgg16_bn`.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        layers: Sequence[int] = (2, 2, 3, 3, 3),
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.features = tuple(check_int("widths", width) for width in widths)
        self.strides = tuple(accumulate((1, *(2,) * (len(self.features) - 1)), lambda a, b: a * b))
        options: dict[str, Any] = dict(use_bias=True, dtype=dtype, rngs=rngs)
        self.stages = nnx.List(
            nnx.List(ConvNorm(outputs if i else inputs, outputs, 3, **options) for i in range(check_int("layers", n)))
            for inputs, outputs, n in zip((in_features, *self.features), self.features, layers, strict=False)
        )

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        maps: list[jax.Array] = []
        for stage in self.stages:
            maps.append(through(stage, max_pool(maps[-1], 2) if maps else x))
        return tuple(y.astype(x.dtype) for y in maps)
