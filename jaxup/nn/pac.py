"""Pixel-adaptive transposed convolution, and the network for joint upsampling made of it (Su et al., CVPR 2019)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_features, check_int, check_odd, check_power_of_two, check_shape, fail, pair
from jaxup.nn import initializers
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.pac import pac_conv_transpose
from jaxup.ops.resize import resize


class PacConvTranspose(nnx.Module):
    """Transposed convolution that scales exactly by s, its taps modulated by likeness of the guide at both ends.

        out = pac_conv_transpose(x, guide, W) + b

    Where the guide is constant it is `Deconvolution`, with the same kernel.
    Parameters: K^2 Cin Cout + Cout, or K^2 + C for shared filters. Multiply-adds per output pixel: K^2 / s^2 times
    Cg + Cin Cout, or Cg + C for shared filters.

    Args:
        in_features: Cin.
        out_features: Cout; Cin where filters are shared.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd, on the HR grid; K >= 2s - 1 leaves no pixel without a sample.
        normalize_kernel: let the weights of likeness sum to one.
        shared_filters: one K x K filter for all channels, each of which is filtered by itself.
        use_bias: add a bias per output channel.
        dtype: the type in which the convolution computes; parameters and likeness are never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, any] -> HR map [B, sy*h, sx*w, Cout] in the
        dtype of x. `module.kernel` is [K, K, Cin, Cout], or [K, K, 1, 1]: a cross-correlation kernel.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = PacConvTranspose(8, 4, scale=2, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 8)), jnp.ones((1, 10, 12, 3))).shape
        (1, 10, 12, 4)

    Reference:
        Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, Sec. 4.1; `PacConvTranspose2d` of
        NVlabs/pacnet (CC BY-NC-SA 4.0), with the Gaussian kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 5,
        normalize_kernel: bool = False,
        shared_filters: bool = False,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.scale = check_int("in_features", in_features), pair("scale", scale)
        size = check_odd("kernel_size", kernel_size)
        if shared_filters and out_features != in_features:
            fail("out_features", f"in_features = {in_features} where filters are shared", out_features)
        self.normalize_kernel, self.dtype = normalize_kernel, dtype
        shape = (
            (size, size, 1, 1) if shared_filters else (size, size, in_features, check_int("out_features", out_features))
        )
        uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1 / sqrt(K^2 Cin)
        self.kernel = nnx.Param(uniform(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_features("x", x, self.in_features)
        out = pac_conv_transpose(
            x.astype(self.dtype), guide, self.kernel[...], scale=self.scale, normalize_kernel=self.normalize_kernel
        )
        if self.bias is not None:
            out = out + self.bias[...].astype(self.dtype)[None, None, None]
        return out.astype(x.dtype)


class PacJointUpsample(nnx.Module):
    """Joint upsampling network: pixel-adaptive transposed convolutions that double the map under a learned guide.

        t = conv3(x),    g = conv3(guide), cut into D channels per doubling
        t = relu(pac_n(t, bilinear(g_n to twice the size of t))) for each doubling n,    out = conv2(t)

    with relu between the convolutions of each branch. The last convolution of the guide has no bias: likeness is
    blind to it.
    Parameters: k^2 F (2 Cin + Cg + 4F + N D) + 6F + Cin, and N (K^2 F^2 + F). Multiply-adds per output pixel: the
    guide's k^2 F (Cg + F + N D), k^2 F (F + Cin) of the last convolutions, and about K^2 F^2 / 3.

    Args:
        in_features: channels of x and of the result.
        guide_features: channels of the guide.
        scale: 2^N.
        features: F, channels of all hidden layers, where no widths are given.
        key_features: D, channels in which likeness is measured.
        kernel_size: k of the convolutions, odd.
        pac_kernel_size: K of the transposed convolutions, odd.
        target_widths: channels after each convolution of the target, at least one; None is (F, F, F).
        guide_widths: channels after each convolution of the guide but the last; None is (F, F).
        final_widths: channels after each doubling and then after each final convolution but the last; None is F for
            all, with two final convolutions.
        dtype: the type in which convolutions compute; parameters and likeness are never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, scale*h, scale*w, Cg] -> HR map [B, scale*h, scale*w, Cin]
        in the dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = PacJointUpsample(1, 3, scale=4, features=8, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 3, 4, 1)), jnp.ones((1, 12, 16, 3))).shape
        (1, 12, 16, 1)

    Reference:
        Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, Sec. 4.1; `PacJointUpsample` of
        NVlabs/pacnet (CC BY-NC-SA 4.0).
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int,
        features: int = 32,
        key_features: int = 16,
        kernel_size: int = 5,
        pac_kernel_size: int = 5,
        target_widths: Sequence[int] | None = None,
        guide_widths: Sequence[int] | None = None,
        final_widths: Sequence[int] | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        doublings = check_power_of_two("scale", scale)
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.key_features = scale, check_int("key_features", key_features)
        check_int("features", features)
        size = check_odd("kernel_size", kernel_size)
        target = _widths("target_widths", target_widths, [features] * 3, 1)
        guide = _widths("guide_widths", guide_widths, [features] * 2, 0)
        final = [target[-1], *_widths("final_widths", final_widths, [features] * (doublings + 1), doublings)]

        def branch(*widths: int, last_bias: bool = True) -> nnx.List[nnx.Conv]:
            last, layer = len(widths) - 2, dict[str, Any](conv_general_dilated=convolve_layer, dtype=dtype, rngs=rngs)
            return nnx.List(
                nnx.Conv(a, b, (size, size), use_bias=last_bias or n < last, **layer)
                for n, (a, b) in enumerate(pairwise(widths))
            )

        self.target = branch(in_features, *target)
        self.guide = branch(guide_features, *guide, doublings * key_features, last_bias=False)
        self.doublings = nnx.List(
            PacConvTranspose(a, b, scale=2, kernel_size=pac_kernel_size, dtype=dtype, rngs=rngs)
            for a, b in pairwise(final[: doublings + 1])
        )
        self.final = branch(*final[doublings:], in_features)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], self.scale * x.shape[1], self.scale * x.shape[2], None))
        target, keys = _branch(self.target, x), _branch(self.guide, guide)
        for n, double in enumerate(self.doublings):
            key = keys[..., n * self.key_features : (n + 1) * self.key_features]
            size = (2 * target.shape[1], 2 * target.shape[2])
            target = nnx.relu(double(target, resize(key, size=size, method="bilinear")))
        return _branch(self.final, target).astype(x.dtype)


def _widths(name: str, given: Sequence[int] | None, default: list[int], minimum: int) -> list[int]:
    if given is None:
        return default
    if len(given) < minimum:
        fail(name, f"at least {minimum} widths", repr(given))
    return [check_int(name, width) for width in given]


def _branch(convs: nnx.List[nnx.Conv], x: jax.Array) -> jax.Array:
    """Convolutions with relu between them."""
    for n, conv in enumerate(convs):
        x = conv(nnx.relu(x) if n else x)
    return x
