"""Depth upsampling by deep multi-scale guidance: MSG-Net."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_image, check_power_of_two, check_shape
from jaxup.models.backbones.layers import max_pool
from jaxup.nn import initializers
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.filters import check_guide
from jaxup.ops.resize import resize
from jaxup.ops.windows import pad_window

_INIT = initializers.he_normal()
_SLOPE = 0.25  # of PReLU, at first
_WIDTH = 32
# Luma of RGB in 0 .. 1 in 16 .. 235 (ITU-R BT.601), as MATLAB has it.
_LUMA = (65.481, 128.553, 24.966)


class _Layer(nnx.Module):
    """A 5 x 5 convolution, or one of another size or transposed, with a slope for each channel where it is negative."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 5, *, enlarged: int | None = None, dtype: Any, rngs: nnx.Rngs
    ):
        options: dict[str, Any] = dict(kernel_init=_INIT, dtype=dtype, rngs=rngs)
        if enlarged is None:
            options["conv_general_dilated"] = convolve_layer
            self.conv: Any = nnx.Conv(inputs, outputs, (size, size), **options)
        else:  # stride 2 and this padding, in the terms of Caffe
            margin = size - 1 - enlarged
            around = ((margin, margin), (margin, margin))
            self.conv = nnx.ConvTranspose(inputs, outputs, (size, size), strides=(2, 2), padding=around, **options)
        self.slope = nnx.Param(jnp.full((outputs,), _SLOPE, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x)
        slope = self.slope[...].astype(y.dtype)
        rectified: jax.Array = jnp.maximum(y, 0) + slope[None, None, None] * jnp.minimum(y, 0)
        return rectified


class DMSG(nnx.Module):
    """Deep multi-scale guidance: the depth is doubled m times, each time beside features of the image of that size.

        Y_m = conv5(conv7(y)),  Y_i = pool(conv5(Y_{i+1})),   D = deconv(conv5(d)),  D = deconv(conv5(conv5([Y_i, D])))
        out = high(Y, D) + resize(box_3x3(x)),   d = x - box_3x3(x),  y = g - box_3x3(g) of the luma g, in 0 .. 1

    The network itself adds high frequencies to an enlargement of the low ones, and every layer but the last has PReLU.
    It computes s h - 1 rows and columns, which is what transposed convolutions make; the last of each is repeated. The
    authors' depth is scaled to 0 .. 1, and so is what the luma is without its means, by the least and the largest value
    of the whole image: parts of it are not what they are alone.

    Parameters for 2, 4, 8 and 16: 198,148, 326,404, 454,660 and 582,916.

    Args:
        scale: 2, 4, 8 or 16, or any power of two.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: x [B, h, w, 1], guide RGB [B, s*h, s*w, 3] in 0 .. 1 -> [B, s*h, s*w, 1] in the dtype of x.
        `module.high(y, d)`: [B, s*h - 1, s*w - 1, 1] and [B, h, w, 1] -> [B, s*h - 1, s*w - 1, 1].

    Raises:
        ValueError: a wrong scale, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> run = lambda x, guide: DMSG(scale=4, rngs=nnx.Rngs(0))(x, guide)
        >>> nnx.eval_shape(run, jnp.ones((1, 4, 5, 1)), jnp.ones((1, 16, 20, 3))).shape
        (1, 16, 20, 1)

    Reference:
        Hui, Loy and Tang, Depth Map Super-Resolution by Deep Multi-Scale Guidance, ECCV 2016. Official models:
        twhui/MSG-Net (non-commercial), in Caffe.
    """

    def __init__(self, *, scale: int, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        levels = check_power_of_two("scale", scale)
        self.scale = scale
        self.luma = nnx.List([_Layer(1, 49, 7, **options), _Layer(49, _WIDTH, **options)])
        self.coarser = nnx.List(_Layer(_WIDTH, _WIDTH, **options) for _ in range(levels - 1))
        self.depth = nnx.List([_Layer(1, 64, **options), _Layer(64, _WIDTH, enlarged=2, **options)])
        self.levels: nnx.List[Any] = nnx.List()
        for _ in range(levels - 1):
            joined = [_Layer(2 * _WIDTH, _WIDTH, **options), _Layer(_WIDTH, _WIDTH, **options)]
            self.levels.append(nnx.List([*joined, _Layer(_WIDTH, _WIDTH, enlarged=1, **options)]))
        finest = [_Layer(2 * _WIDTH if i == 0 else _WIDTH, _WIDTH, **options) for i in range(3)]
        self.levels.append(nnx.List(finest))
        self.last = nnx.Conv(_WIDTH, 1, (5, 5), kernel_init=_INIT, conv_general_dilated=convolve_layer, **options)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x to the size of the guide."""
        check_features("x", x, 1)
        rows, columns = (self.scale * n for n in x.shape[1:3])
        check_guide(guide, (x.shape[0], rows, columns))
        check_shape("guide", guide, (None, None, None, 3))
        weights = jnp.asarray([w / 255 for w in _LUMA], guide.dtype)
        luma = jnp.einsum("bhwc,c->bhw", guide, weights)[..., None] + 16 / 255
        high_luma = _unit(_unit(luma) - _box(_unit(luma)))
        smooth = _box(x)
        high = self.high(high_luma[:, :-1, :-1].astype(x.dtype), x - smooth)
        high = jnp.pad(high, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
        return high + resize(smooth, size=(rows, columns), method="bicubic", cubic_coefficient=-0.5)

    def high(self, y: jax.Array, d: jax.Array) -> jax.Array:
        """The high frequencies of depth from those of luma and of low-resolution depth."""
        check_features("d", d, 1)
        check_image("y", y)
        check_shape("y", y, (d.shape[0], *(self.scale * n - 1 for n in d.shape[1:3]), 1))
        guides = [self.luma[1](self.luma[0](y))]
        for layer in self.coarser:
            guides.append(max_pool(layer(guides[-1]), 3))
        z = self.depth[1](self.depth[0](d))
        for level, near in zip(self.levels, reversed(guides), strict=True):
            z = jnp.concatenate([near, z], axis=3)
            for layer in level:
                z = layer(z)
        out: jax.Array = self.last(z).astype(d.dtype)
        return out


def _unit(x: jax.Array) -> jax.Array:
    """Scaled to 0 .. 1, each image by itself."""
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    return (x - low) / jnp.where(high > low, high - low, 1)


def _box(x: jax.Array) -> jax.Array:
    """Means of 3 x 3 pixels, beyond the border those of the border."""
    padded = pad_window(x, (1, 1), "edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
