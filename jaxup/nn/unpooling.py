"""Unpooling as a guided upsampler: values return to where the encoder's map has its maxima."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_image, check_shape, pair
from jaxup.ops.index import indexed_upsample
from jaxup.ops.unpooling import max_index


class MaxUnpool(nnx.Module):
    """Max unpooling: each value goes to the pixel of its region where the guide is largest, the others are zero.

        out[i, j, c] = x[floor(i / sy), floor(j / sx), c] * 1(guide[i, j, c] is the first maximum of its region)

    The guide is the encoder's map that was max-pooled, and has the channels of x. Holistic, one position is shared by
    all channels: that of the maximum of the guide's largest channel (holistic max index, HMI); the guide may then
    have other channels than x. No parameters, no gradient for the guide.

    Args:
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        holistic: one position for all channels.

    Returns:
        `module(x, guide)`: LR map [B, h, w, C], guide [B, sy*h, sx*w, C] -> HR map [B, sy*h, sx*w, C] in the dtype
        of x.

    Raises:
        ValueError: a wrong scale, or maps whose shapes do not fit.

    Example:
        >>> guide = jnp.array([[1.0, 2.0], [4.0, 3.0]]).reshape(1, 2, 2, 1)
        >>> MaxUnpool(scale=2)(jnp.full((1, 1, 1, 1), 9.0), guide)[0, :, :, 0]
        Array([[0., 0.],
               [9., 0.]], dtype=float32)

    Reference:
        Badrinarayanan et al., SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
        TPAMI 2017; Lu et al., Index Networks, TPAMI 2020, Eq. 1, and Sec. 6.1.2 for HMI.
    """

    def __init__(self, *, scale: int | Pair = 2, holistic: bool = False):
        self.scale, self.holistic = pair("scale", scale), bool(holistic)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_image("x", x)
        check_image("guide", guide)
        (sy, sx), (batch, height, width, channels) = self.scale, x.shape
        check_shape("guide", guide, (batch, sy * height, sx * width, None if self.holistic else channels))
        of = jnp.max(guide, axis=3, keepdims=True) if self.holistic else guide
        return indexed_upsample(x, max_index(of, scale=self.scale), scale=self.scale)
