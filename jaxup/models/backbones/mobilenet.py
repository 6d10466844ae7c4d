"""MobileNet (Howard et al., 2017), the encoder of FastDepth."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int
from jaxup.models.backbones.layers import ConvNorm, through
from jaxup.models.backbones.taps import collect, ends, tapped

# Channels and stride.
_V1_UNITS = ((32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nnx.Module):
    """MobileNet: depthwise separable convolutions, the maps of the last one at each resolution.

        conv3x3 at stride 2, then 13 units of  relu6(norm(conv1x1(relu6(norm(depthwise3x3(x))))))

    Parameters: 3,206,976 without a classifier, which the published network has behind the mean of the last map.

    Args:
        in_features: channels of the image.
        multiplier: of all widths, cut to integers.
        strided: False has stride 1 everywhere, for networks that pool between the units.
        taps: units whose outputs are returned, counted from 0, the first convolution; None is the last at each stride,
            1, 3, 5, 11 and 13.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] -> maps at the strides `module.strides` (2, 4, 8, 16, 32) with
        `module.features` (64, 128, 256, 512, 1024) channels, [B, ceil(H / stride), ceil(W / stride), features], in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: MobileNetV1(multiplier=0.125, rngs=nnx.Rngs(0))(x)
        >>> [y.shape for y in nnx.eval_shape(run, jnp.ones((1, 33, 64, 3)))][2:]
        [(1, 5, 8, 32), (1, 3, 4, 64), (1, 2, 2, 128)]

    Reference:
        Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017, with
        ReLU6 as in Wofk et al., FastDepth, ICRA 2019.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        multiplier: float = 1.0,
        strided: bool = True,
        taps: Sequence[int] | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        options: dict[str, Any] = dict(activation=nnx.relu6, dtype=dtype, rngs=rngs)
        widths, nominal = [int(width * multiplier) for width, _ in _V1_UNITS], [stride for _, stride in _V1_UNITS]
        strides = nominal if strided else [1] * len(nominal)
        self.units = nnx.List([nnx.List([ConvNorm(in_features, widths[0], 3, stride=strides[0], **options)])])
        for inputs, outputs, stride in zip(widths, widths[1:], strides[1:], strict=False):
            depthwise = ConvNorm(inputs, inputs, 3, stride=stride, depthwise=True, **options)
            self.units.append(nnx.List([depthwise, ConvNorm(inputs, outputs, 1, **options)]))
        self.taps, self.features, self.strides = tapped(taps, ends(nominal), widths, strides)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The maps of x, fine to coarse."""
        check_features("x", x, self.in_features)
        return collect([partial(through, unit) for unit in self.units], self.taps, x)
