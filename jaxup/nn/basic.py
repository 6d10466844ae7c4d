"""The plain upsamplers: interpolation, transposed convolution and sub-pixel convolution."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_divides, check_features, check_int, check_odd, pair
from jaxup.nn import initializers
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.regions import convolve_enlarged
from jaxup.ops.resize import pixel_shuffle, resize


class Resize(nnx.Module):
    """Fixed interpolation by an integer factor, without parameters: `jaxup.ops.resize` as a module.

    Args:
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        method: "nearest", "nearest_exact", "bilinear", "bicubic" or "area".
        align_corners: put the corner pixels' centres on each other ("bilinear" and "bicubic").
        cubic_coefficient: Keys' coefficient, or None for that of `jaxup.ops.resize`.

    Returns:
        `module(x)`: LR map [B, h, w, C] -> HR map [B, sy*h, sx*w, C] in the dtype of x.

    Raises:
        ValueError: as `jaxup.ops.resize`.

    Example:
        >>> import jax.numpy as jnp
        >>> Resize(scale=2, method="bicubic")(jnp.ones((1, 3, 4, 2))).shape
        (1, 6, 8, 2)

    Reference:
        Keys, Cubic convolution interpolation for digital image processing, 1981, for "bicubic".
    """

    def __init__(
        self,
        *,
        scale: int | Pair,
        method: str = "bilinear",
        align_corners: bool = False,
        cubic_coefficient: float | None = None,
    ):
        self.scale = pair("scale", scale)
        self.method = method
        self.align_corners, self.cubic_coefficient = align_corners, cubic_coefficient

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        return resize(
            x,
            scale=self.scale,
            method=self.method,
            align_corners=self.align_corners,
            cubic_coefficient=self.cubic_coefficient,
        )


class PixelShuffle(nnx.Module):
    """Sub-pixel convolution: a K x K convolution to s^2 maps per output channel, then a pixel shuffle.

    Parameters: K^2 * Cin * s^2*Cout, and s^2*Cout for the bias; as many multiply-adds per LR cell.

    Args:
        in_features: Cin.
        out_features: Cout.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd.
        use_bias: add a bias per packed channel.
        dtype: the type in which the convolution computes; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: LR map [B, h, w, Cin] -> HR map [B, sy*h, sx*w, Cout] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, Cin].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> PixelShuffle(8, 3, scale=2, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 6, 8))).shape
        (1, 10, 12, 3)

    Reference:
        Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
        Neural Network, CVPR 2016, Eq. 4.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 3,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.scale = pair("scale", scale)
        self.in_features = check_int("in_features", in_features)
        size = check_odd("kernel_size", kernel_size)
        packed = check_int("out_features", out_features) * self.scale[0] * self.scale[1]
        options: Any = dict(kernel_init=initializers.lecun_normal(), conv_general_dilated=convolve_layer)
        self.conv = nnx.Conv(in_features, packed, (size, size), use_bias=use_bias, **options, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        check_features("x", x, self.in_features)
        return pixel_shuffle(self.conv(x), scale=self.scale).astype(x.dtype)


class Deconvolution(nnx.Module):
    """Strided transposed convolution that scales exactly by s: zero-upsample, then a K x K convolution.

        z = conv2d(zero_upsample(x; s), W, padding=(K - 1) / 2)

    It is computed without the zeros: each phase of the output is a small convolution of x with the entries of W
    that meet values; phases that see the same pixels share one.
    Parameters: K^2 * Cin*Cout (and Cout for the bias).

    Args:
        in_features: Cin.
        out_features: Cout.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd.
        groups: consecutive groups of channels that do not see each other; divides Cin and Cout.
        use_bias: add a bias per output channel.
        dtype: the type in which the convolution computes; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: LR map [B, h, w, Cin] -> HR map [B, sy*h, sx*w, Cout] in the dtype of x.
        `module.kernel` is [K, K, Cin / groups, Cout], a cross-correlation kernel: PyTorch's ConvTranspose2d weight
        flipped in both spatial axes, with in and out swapped.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, Cin].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> Deconvolution(8, 3, scale=2, kernel_size=5, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 6, 8))).shape
        (1, 10, 12, 3)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Eqs. 4 and 5.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 3,
        groups: int = 1,
        use_bias: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.scale = pair("scale", scale)
        self.in_features = check_int("in_features", in_features)
        self.groups = check_int("groups", groups)
        check_divides("groups", groups, "in_features", in_features)
        check_divides("groups", groups, "out_features", check_int("out_features", out_features))
        self.dtype = dtype
        size = check_odd("kernel_size", kernel_size)
        shape = (size, size, in_features // groups, out_features)
        # A pixel meets K^2 / s^2 of the kernel's entries, so the variance of the output is kept by that fan-in.
        init = initializers.variance_scaling(float(self.scale[0] * self.scale[1]), "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        check_features("x", x, self.in_features)
        kernel = self.kernel[...].astype(self.dtype)
        out = convolve_enlarged(x.astype(self.dtype), kernel, self.scale, self.groups)
        if self.bias is not None:
            out = out + self.bias[...].astype(self.dtype)[None, None, None]
        return out.astype(x.dtype)
