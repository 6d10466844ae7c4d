"""CARAFE, content-aware reassembly of features (Wang et al., ICCV 2019)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_divides, check_features, check_int, check_odd, pair
from jaxup.nn import initializers
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle
from jaxup.ops.softmax import softmax


class CARAFE(nnx.Module):
    """Content-aware reassembly: every HR pixel averages the K x K window of its source cell, by predicted weights.

        y = conv1x1(x),  l = pixel_shuffle(conv_ExE(y)),  k[i, j, g] = softmax over the K^2 entries of l[i, j, g],
        out = reassemble(x, k)

    x is zero outside the image, and weights that fall there are lost. Channel (g*K^2 + n)*sy*sx + u*sx + v of the
    encoder is the score of window position n, group g, at phase (u, v) of the cell.
    Parameters: C*m + m + (E^2*m + 1) * G*K^2*sy*sx. Multiply-adds per output pixel: C*m / s^2 + E^2*m*G*K^2 for the
    kernels and K^2*C for the average.

    Args:
        in_features: C, channels of x.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd: the window that is averaged.
        groups: G, a divisor of C: consecutive channels that share a kernel.
        encoder_kernel_size: E, odd: the kernel of the convolution that predicts the weights.
        encoder_dilation: its dilation.
        compressed_features: m, channels that the encoder sees.
        dtype: the type in which the convolutions compute; parameters are float32, the softmax is never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: LR map [B, h, w, C] -> HR map [B, sy*h, sx*w, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, C].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> CARAFE(8, scale=2, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 6, 8))).shape
        (1, 10, 12, 8)

    Reference:
        Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019, Eqs. 1 and 2; `CARAFEPack` of
        open-mmlab/mmcv.
    """

    def __init__(
        self,
        in_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 5,
        groups: int = 1,
        encoder_kernel_size: int = 3,
        encoder_dilation: int = 1,
        compressed_features: int = 64,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.scale, self.kernel_size = pair("scale", scale), check_odd("kernel_size", kernel_size)
        self.groups = check_int("groups", groups)
        check_divides("groups", groups, "in_features", in_features)
        size = check_odd("encoder_kernel_size", encoder_kernel_size)
        self.compressor = nnx.Conv(
            in_features,
            check_int("compressed_features", compressed_features),
            (1, 1),
            dtype=dtype,
            kernel_init=initializers.xavier_uniform(),
            conv_general_dilated=pointwise_conv,
            rngs=rngs,
        )
        self.encoder = nnx.Conv(
            compressed_features,
            groups * kernel_size**2 * self.scale[0] * self.scale[1],
            (size, size),
            kernel_dilation=check_int("encoder_dilation", encoder_dilation),
            dtype=dtype,
            kernel_init=initializers.normal(0.001),
            conv_general_dilated=convolve_layer,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        kernels = self.kernels(x)
        return reassemble(x, kernels, scale=self.scale, kernel_size=self.kernel_size, groups=self.groups)

    def kernels(self, x: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, G, K*K] with the sum 1, as `ops.reassemble` takes them."""
        check_features("x", x, self.in_features)
        scores = pixel_shuffle(self.encoder(self.compressor(x)), scale=self.scale)
        scores = scores.reshape(*scores.shape[:3], self.groups, self.kernel_size**2)
        return softmax(scores.astype(accum_dtype(scores)))
