"""A2U matting (Dai et al., CVPR 2021): a ResNet whose every change of size is by affinity-aware kernels."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int, check_odd, fail
from jaxup.models.resampling import RESAMPLINGS, Memory, Resampling
from jaxup.nn import initializers
from jaxup.nn.aspp import ASPP, DILATIONS, conv_block, through
from jaxup.nn.functions import by_name
from jaxup.nn.norms import InPlaceABN, normalise
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.depthwise import depthwise_conv
from jaxup.ops.windows import pad_window

_SLOPE = 0.01
# As the official code does, of every convolution: Xavier's, with the gain of the leaky ReLU.
_init = initializers.variance_scaling(2 / (1 + _SLOPE**2), "fan_avg", "normal")
_STRIDE = 16  # of the coarsest map
_WIDTHS = (1, 1, 2, 4)  # of the maps that are made smaller, in units of the first
DECODERS = ("residual", "plain", "separable")


def leaky_relu(x: jax.Array) -> jax.Array:
    """With the slope of InPlaceABN."""
    return nnx.leaky_relu(x, _SLOPE)


def _conv(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, **options: Any) -> nnx.Conv:
    special: dict[str, Any] = {"conv_general_dilated": depthwise_conv if groups > 1 else convolve_layer}
    fixed: dict[str, Any] = dict(feature_group_count=groups, use_bias=False, kernel_init=_init)
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, **fixed, **special, **options)


class _Layer(nnx.Module):
    """Convolution without bias, InPlaceABN, and leaky ReLU unless `active=False`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        depthwise: bool = False,
        active: bool = True,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(kernel_dilation=dilation, dtype=dtype, rngs=rngs)
        self.conv = _conv(inputs, outputs, size, stride=stride, groups=inputs if depthwise else 1, **options)
        self.norm, self.dtype = InPlaceABN(outputs, rngs=rngs), dtype
        self.activation = by_name(leaky_relu) if active else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of x."""
        y = normalise(self.norm, self.conv(x), self.dtype)
        return y if self.activation is None else self.activation(y)


class _Block(nnx.Module):
    """Two layers beside the input, which is projected where widths or sizes differ; a map may be halved in between."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, stride: int = 1, **options: Any):
        self.first = _Layer(inputs, outputs, size, **options)
        self.second = _Layer(outputs, outputs, size, active=False, **options)
        plain = inputs == outputs and stride == 1
        self.shortcut = None if plain else _Layer(inputs, outputs, 1, stride=stride, active=False, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of x at its own size."""
        return self.finish(self.first(x), x)

    def finish(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """What follows the first layer."""
        return leaky_relu(self.second(y) + (x if self.shortcut is None else self.shortcut(x)))


def _decoder(kind: str, inputs: int, outputs: int, size: int, **options: Any) -> nnx.List[Any]:
    """Two convolutional units."""
    if kind == "residual":
        return nnx.List([_Block(inputs, outputs, size, **options), _Block(outputs, outputs, size, **options)])
    build: Callable[..., Any] = partial(conv_block, separable=kind == "separable", layer=_Layer, **options)
    return nnx.List([*build(inputs, outputs, size), *build(outputs, outputs, size)])


class A2UMatting(nnx.Module):
    """A2U matting: three stages of ResNet-34, all of whose downsampling is by kernels, which also upsample.

        l0 = conv7x7(x), p0 = D0(l0), l1 = 3 blocks(D1(p0))
        l2 = 4 blocks, the first: conv3x3, D2, conv3x3, beside a projection;  l3 likewise with D3;  y = ASPP(l3)
        for (U, skip) in (U3, l2), (U2, l1), (U1, p0), (U0, x):    y = two residual blocks(U(y) + conv3x3(skip))
        alpha = conv(conv(y))

    of w, 2w and 4w channels, and 2w, w, w, w/2 in the decoder. Every convolution but the last is followed by
    `InPlaceABN` and a leaky ReLU of slope 0.01 (in residual blocks behind the sum). D_i averages by kernels predicted
    from the map that it makes smaller, U_i by those for making it larger, see `jaxup.nn.A2UKernels`.

    Parameters: 8,089,235, of which the kernels' are 40,232; 8,269,451 with a filter for each channel.

    Args:
        in_features: channels of the input, colour and trimap.
        features: w, even.
        upsampler: a key of `jaxup.models.resampling.RESAMPLINGS` that keeps the channels, in the place of D and U.
        kernel_size: of "a2u": K of upsampling, odd; 2K is that of downsampling.
        encoder_kernel_size: of "a2u", see `A2UKernels`.
        groups: of "a2u".
        shared: of "a2u": one filter for all channels, instead of one for each.
        interleaved: of "a2u".
        aspp: whether there is atrous spatial pyramid pooling.
        dilations: of its convolutions; (6, 12, 18) at the stride of 16 that the network has.
        decoder: the units of the decoder: "residual" blocks, or "plain" or "separable" convolutions.
        decoder_kernel_size: of its convolutions, and of the last two, odd.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: normalised RGB and trimap [B, H, W, 4] -> alpha [B, H, W, 1] in the dtype of x, not
        clipped. Sizes that are no multiples of 16 are mirrored at the bottom and right, and cut again, as the official
        code does. In training mode the dropout of ASPP needs a source, `rngs`; without one, nothing is dropped.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, 4].

    Example:
        >>> run = lambda x: A2UMatting(features=8, upsampler="max-unpool", rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 37, 50, 4))).shape
        (1, 37, 50, 1)

    Reference:
        Dai, Lu, Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021; dongdong93/a2u_matting
        (MIT), which calls its encoder ResNet-34. InPlaceABN: mapillary/inplace_abn (BSD-3-Clause).
    """

    def __init__(
        self,
        in_features: int = 4,
        *,
        features: int = 64,
        upsampler: str = "a2u",
        kernel_size: int = 3,
        encoder_kernel_size: int = 6,
        groups: int = 1,
        shared: bool = True,
        interleaved: bool = False,
        aspp: bool = True,
        dilations: tuple[int, ...] = DILATIONS[_STRIDE],
        decoder: str = "residual",
        decoder_kernel_size: int = 3,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("decoder", decoder, DECODERS)
        if check_int("features", features) % 2:
            fail("features", "an even number", features)
        self.in_features, size = (
            check_int("in_features", in_features),
            check_odd("decoder_kernel_size", decoder_kernel_size),
        )
        of_kernels: dict[str, Any] = dict(kernel_size=kernel_size, encoder_kernel_size=encoder_kernel_size)
        of_kernels |= dict(groups=groups, shared=shared, interleaved=interleaved)
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        widths = [features * unit for unit in _WIDTHS]
        self.resampling = _resampling(upsampler, widths, of_kernels, options)
        self.stem = _Layer(in_features, features, 7, **options)
        self.stages = nnx.List(
            nnx.List(
                _Block(before if i == 0 else width, width, stride=2 if i == 0 and before < width else 1, **options)
                for i in range(count)
            )
            for before, width, count in zip(widths[:-1], widths[1:], (3, 4, 4), strict=True)
        )
        context: dict[str, Any] = dict(branch_features=widths[3], dilations=dilations, layer=_Layer)
        self.aspp = ASPP(widths[3], widths[3], **context, **options) if aspp else None
        skips = (in_features, features, *widths[1:3])
        self.skips = nnx.List(_Layer(inputs, width, 3, **options) for inputs, width in zip(skips, widths, strict=True))
        outputs = (features // 2, *widths[:3])
        self.decoder = nnx.List(
            _decoder(decoder, inputs, width, size, **options) for inputs, width in zip(widths, outputs, strict=True)
        )
        self.prediction = _Layer(outputs[0], 1, size, **options)
        self.alpha = _conv(1, 1, size, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The matte of x."""
        check_features("x", x, self.in_features)
        whole = _multiple(x)
        y, skips, memories = self._encode(whole)
        if self.aspp is not None:
            y = self.aspp(y, rngs=rngs)
        for i in reversed(range(len(skips))):
            y = through(self.decoder[i], self.resampling.up(i, y, memories[i]) + self.skips[i](skips[i]))
        y = self.alpha(self.prediction(y))
        return y[:, : x.shape[1], : x.shape[2]].astype(x.dtype)

    def _encode(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array], list[Memory]]:
        """The coarsest map, and of each upsampling stage, fine to coarse, the map that joins it and its memory."""
        down = self.resampling.down
        half, first = down(0, self.stem(x))
        y, second = down(1, half)
        y = through(self.stages[0], y)
        skips, memories = [x, half], [first, second]
        for i, (block, *rest) in enumerate(list(self.stages)[1:], start=2):
            skips.append(y)
            smaller, memory = down(i, block.first(y))
            y = through(rest, block.finish(smaller, y))
            memories.append(memory)
        return y, skips, memories


def _resampling(
    method: str, widths: list[int], of_kernels: Mapping[str, Any], options: Mapping[str, Any]
) -> Resampling:
    check_choice("upsampler", method, RESAMPLINGS)
    if RESAMPLINGS[method].packed > 1:
        fail("upsampler", "a pair of stages that keeps the channels", repr(method))
    layers = of_kernels if method == "a2u" else None
    return Resampling(method=method, features=widths, layer_options=layers, **options)


def _multiple(x: jax.Array) -> jax.Array:
    """Mirrored behind the last rows and columns, up to a multiple of the stride."""
    rows, columns = (-side % _STRIDE for side in x.shape[1:3])
    return pad_window(x, (rows, columns), "reflect")[:, rows:, columns:].astype(x.dtype) if rows or columns else x
