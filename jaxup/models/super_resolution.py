"""Super-resolution by blocks that double the size: attention-based upsampling and its twins (Kundu et al., 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int, check_power_of_two, fail
from jaxup.nn import initializers
from jaxup.nn.basic import Resize
from jaxup.nn.factory import UPSAMPLERS, make_upsampler
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.resize import resize

_INIT = initializers.he_normal()  # keeps the signal through layers with ReLU
_SIZED = ("attention", "deconvolution")  # the upsamplers that the paper compares, whose windows have the same K


class UpsamplingBlock(nnx.Module):
    """Two 3x3 convolutions with a ReLU between them and a skip over them, then an upsampler by 2.

        out = up(x + conv(relu(conv(x))))

    Args:
        features: C, channels of x and of the result.
        upsampler: an unguided name of `jaxup.nn.UPSAMPLERS`.
        kernel_size: K of "attention" and "deconvolution"; the other upsamplers keep their papers' defaults.
        scaled: of "attention": divide scores by the root of the channels, see `jaxup.nn.AttentionUpsample`.
        dtype: the type in which convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: [B, h, w, C] -> [B, 2*h, 2*w, C].

    Raises:
        ValueError: an upsampler that is unknown or needs a guide, or another wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> block = UpsamplingBlock(8, upsampler="carafe", rngs=nnx.Rngs(0))
        >>> nnx.jit(block)(jnp.ones((1, 4, 5, 8))).shape
        (1, 8, 10, 8)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Fig. 6.
    """

    def __init__(
        self,
        features: int,
        *,
        upsampler: str = "attention",
        kernel_size: int = 5,
        scaled: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if upsampler in UPSAMPLERS and UPSAMPLERS[upsampler].guided:
            unguided = ", ".join(name for name, entry in UPSAMPLERS.items() if not entry.guided)
            fail("upsampler", f"one without a guide: {unguided}", repr(upsampler))
        options: dict[str, Any] = {"kernel_size": kernel_size} if upsampler in _SIZED else {}
        if scaled:
            options["scaled"] = True
        if upsampler in UPSAMPLERS and UPSAMPLERS[upsampler].module is not Resize:  # which computes in the type of x
            options["dtype"] = dtype
        if upsampler in UPSAMPLERS and features % UPSAMPLERS[upsampler].multiple:
            fail("features", f"a multiple of {UPSAMPLERS[upsampler].multiple} for {upsampler}", features)
        self.convs = nnx.List(_conv(features, features, 3, dtype, rngs) for _ in range(2))
        self.up: Any = make_upsampler(upsampler, in_features=features, scale=2, **options, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Double the size of x."""
        y: jax.Array = self.up(self.refine(x))
        return y

    def refine(self, x: jax.Array) -> jax.Array:
        """What the upsampler enlarges, [B, h, w, C]."""
        first, second = self.convs
        return x + second(nnx.relu(first(x))).astype(x.dtype)


class SuperResolutionNetwork(nnx.Module):
    """Super-resolution by 2^k: a convolution with PReLU, k blocks that double the size, and a convolution.

        y = prelu(conv(x));  k times  y = up(y + conv(relu(conv(y))));  out = conv(y)

    The upsampler is attention-based, or a strided transposed convolution, the paper's baseline, or any other one.

    Parameters for 2, 4 and 8: with attention 349,569, 694,529 and 1,039,489; with deconvolution 709,377, 1,414,145 and
    2,118,913. (Table III: 0.35, 0.69 and 1.04 M; 0.71, 1.41 and 2.12 M.) Multiply-adds per LR pixel at 2x: about 0.37 M
    and 0.71 M; each further block costs four times the block before it.

    The paper leaves open, and chosen here: F = 128, K = 5 and the 3x3 residual convolutions, which give the counts of
    Table III; a 5x5 convolution first (as in FSRCNN) and a 3x3 one last, which also give its ratios, cut to 2.02, 2.03
    and 2.03; a slope of PReLU per channel; and one channel, the luminance.

    Args:
        scale: 2^k.
        features: F, width of all layers; even for attention.
        upsampler: an unguided name of `jaxup.nn.UPSAMPLERS`.
        kernel_size: K of "attention" and "deconvolution"; the other upsamplers keep their papers' defaults.
        scaled: of "attention": divide scores by the root of the channels, see `jaxup.nn.AttentionUpsample`.
        in_features: channels of the image.
        residual: add x, enlarged by bicubic interpolation, to the output, with which the untrained network then starts
            (its last layer is zero). Not in the paper.
        dtype: the type in which convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, h, w, Cin] -> [B, scale*h, scale*w, Cin] in the dtype of x. Trained on values 0 to 1.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, Cin].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = SuperResolutionNetwork(scale=4, features=8, rngs=nnx.Rngs(0))
        >>> nnx.jit(network)(jnp.ones((1, 5, 6, 1))).shape
        (1, 20, 24, 1)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Sec. IV-B, Fig. 6 and Table III.
    """

    def __init__(
        self,
        *,
        scale: int,
        features: int = 128,
        upsampler: str = "attention",
        kernel_size: int = 5,
        scaled: bool = False,
        in_features: int = 1,
        residual: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        doublings = check_power_of_two("scale", scale)
        self.scale, self.residual = scale, residual
        self.in_features = check_int("in_features", in_features)
        check_int("features", features)
        self.first = _conv(in_features, features, 5, dtype, rngs)
        self.slope = nnx.Param(jnp.full(features, 0.25, jnp.float32))
        options: dict[str, Any] = dict(upsampler=upsampler, kernel_size=kernel_size, scaled=scaled, dtype=dtype)
        self.blocks = nnx.List(UpsamplingBlock(features, **options, rngs=rngs) for _ in range(doublings))
        self.last = _conv(features, in_features, 3, dtype, rngs)
        if residual:
            self.last.kernel[...] = jnp.zeros_like(self.last.kernel[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        y = self.embed(x)
        for block in self.blocks:
            y = block(y)
        out = self.last(y).astype(x.dtype)
        if not self.residual:
            return out
        return out + resize(x, scale=self.scale, method="bicubic", cubic_coefficient=-0.5)

    def kernels(self, x: jax.Array) -> jax.Array:
        """The weights of the averages of the last block's upsampler, to look at them.

        Args:
            x: image [B, h, w, Cin].

        Returns:
            [B, scale*h, scale*w, G, n], see the `kernels` of `jaxup.nn.AttentionUpsample` and `jaxup.nn.CARAFE`.

        Raises:
            ValueError: the upsampler does not average by kernels, or an x that does not fit.

        Example:
            >>> import jax.numpy as jnp
            >>> from flax import nnx
            >>> network = SuperResolutionNetwork(scale=2, features=8, upsampler="carafe", rngs=nnx.Rngs(0))
            >>> network.kernels(jnp.ones((1, 5, 6, 1))).shape
            (1, 10, 12, 1, 25)
        """
        *blocks, last = self.blocks
        if not hasattr(last.up, "kernels"):
            fail("upsampler", "one that averages by kernels, attention or carafe", type(last.up).__name__)
        y = self.embed(x)
        for block in blocks:
            y = block(y)
        kernels: jax.Array = last.up.kernels(last.refine(y))
        return kernels

    def embed(self, x: jax.Array) -> jax.Array:
        """The features that the first block gets, [B, h, w, F]."""
        check_features("x", x, self.in_features)
        y = self.first(x)
        return jnp.where(y >= 0, y, y * self.slope[...].astype(y.dtype)[None, None, None])


def _conv(inputs: int, outputs: int, size: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    options: Any = dict(kernel_init=_INIT, conv_general_dilated=convolve_layer, dtype=dtype, rngs=rngs)
    return nnx.Conv(inputs, outputs, (size, size), **options)
