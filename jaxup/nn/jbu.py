"""Learned joint bilateral upsampling (Fu et al., FeatUp, ICLR 2024)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_features, check_int, check_power_of_two, check_shape, pair
from jaxup.nn import initializers
from jaxup.nn.doubling import doubled
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import resize
from jaxup.ops.similarity import similarity_scores
from jaxup.ops.softmax import softmax

# The correction of the official code is added with this weight, to kernels and to the features of the stack.
FIXUP = 0.1


def _conv(inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    init = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    options: Any = dict(kernel_init=init, conv_general_dilated=pointwise_conv, dtype=dtype, rngs=rngs)
    return nnx.Conv(inputs, outputs, (1, 1), **options)


def _dropout(rate: float, rngs: nnx.Rngs) -> nnx.Dropout:
    """Without a rate it asks for no stream of random numbers, which a Linen caller may not have."""
    return nnx.Dropout(rate, rngs=rngs if rate else None)


class _Projection(nnx.Module):
    """1x1 convolution, GELU, dropout, 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, dropout: float, dtype: Any, rngs: nnx.Rngs):
        self.first = _conv(inputs, outputs, dtype, rngs)
        self.dropout = _dropout(dropout, rngs)
        self.second = _conv(outputs, outputs, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.dropout(nnx.gelu(self.first(x), approximate=False)))


class JBU(nnx.Module):
    r"""Joint bilateral upsampling by a learned likeness: a mean over a window, weighted by nearness and likeness.

    With y the source resized to the size of the guide (bicubic, a = -0.75) and the (2r + 1)^2 window N(p) of pixel p:

        out_p = \sum_{q in N(p)} w_pq y_q / \sum_q w_pq,
        w_pq = exp(-|(p - q) / r|^2 / (2 sigma^2)) softmax_q(t P(I)_p . P(I)_q),
        P = conv1x1 . dropout . gelu . conv1x1,    t = clip(exp(temperature), 1e-4, 1e4)

    All maps are mirrored at their borders. The output may have any size: it is that of the guide.
    `fixup` adds 0.1 F(kernel, I) to the normalised kernel, where F is another such P, and normalises no more.
    Parameters: D Cg + D^2 + 2D + 2; with `fixup`, n (n + Cg) + n^2 + 2n more, n = (2r + 1)^2. Multiply-adds per output
    pixel: D Cg + D^2 + n (D + C), and n (2n + Cg) for the fix-up.

    Args:
        in_features: C, channels of x.
        guide_features: Cg, channels of the guide I.
        scale: the factor, an integer or a pair (vertical, horizontal), if guides of other sizes shall be errors.
        key_features: D, channels in which likeness is measured.
        radius: r of the window, in pixels of the guide.
        fixup: correct the kernels, as the official code does.
        dropout: rate, in training mode.
        dtype: the type in which the convolutions compute; parameters are float32, kernels are never below float32.
        rngs: source of the initial parameters and of dropout.

    Returns:
        `module(x, guide)`: map [B, h, w, C], guide [B, H, W, Cg] -> [B, H, W, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> JBU(8, 3, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 5, 8)), jnp.ones((1, 10, 9, 3))).shape
        (1, 10, 9, 8)

    Reference:
        Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024; `JBULearnedRange` of
        mhamilton723/FeatUp (MIT). The formula of joint bilateral upsampling knows nothing of bicubic resizing, of the
        limits of t, and of the fix-up: they are the official code's.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int | Pair | None = None,
        key_features: int = 32,
        radius: int = 3,
        fixup: bool = False,
        dropout: float = 0.1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale = None if scale is None else pair("scale", scale)
        self.kernel_size = size = 2 * check_int("radius", radius) + 1
        self.range = _Projection(guide_features, check_int("key_features", key_features), dropout, dtype, rngs)
        self.temperature = nnx.Param(jnp.zeros(()))
        self.sigma = nnx.Param(jnp.ones(()))
        self.fixup = _Projection(size**2 + guide_features, size**2, dropout, dtype, rngs) if fixup else None

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x to the size of the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        size = (None, None) if self.scale is None else (self.scale[0] * x.shape[1], self.scale[1] * x.shape[2])
        check_shape("guide", guide, (x.shape[0], *size, None))
        source = resize(x, size=guide.shape[1:3], method="bicubic", cubic_coefficient=-0.75)
        return reassemble(source, self.kernels(guide), scale=1, kernel_size=self.kernel_size, border="reflect")

    def kernels(self, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, H, W, n], row by row over the window."""
        keys = self.range(guide)
        dtype = accum_dtype(keys)
        limits = float(np.log(1e-4)), float(np.log(1e4))
        temperature = jnp.exp(jnp.clip(self.temperature[...], *limits)).astype(dtype)
        scores = temperature * similarity_scores(keys, keys, (1, 1), self.kernel_size, "reflect")
        position = np.linspace(-1, 1, self.kernel_size)
        distance = jnp.asarray((position[:, None] ** 2 + position**2).ravel(), dtype)
        near = jnp.exp(-distance / (2 * self.sigma[...].astype(dtype) ** 2))
        kernels = softmax(scores) * near[None, None, None]
        kernels = kernels / jnp.maximum(kernels.sum(-1, keepdims=True), 1e-7)
        if self.fixup is None:
            return kernels
        both = jnp.concatenate([kernels, guide.astype(dtype)], axis=-1)
        return kernels + FIXUP * self.fixup(both).astype(dtype)


class StackJBU(nnx.Module):
    """Joint bilateral upsampling in stages, each of which doubles the map under the guide made as small.

        y_0 = x,    y_n = JBU_n(y_{n-1}, area(guide to twice the size of y_{n-1})),    out = y_N

    `fixup` corrects the kernels of the stages, and adds 0.1 conv1x1(dropout(y_N)) to the result.
    Parameters: N times those of `JBU`, and C^2 + C with `fixup`.

    Args:
        in_features: C, channels of x.
        guide_features: Cg, channels of the guide.
        scale: 2^N.
        key_features: of each stage, see `JBU`.
        radius: of the window, in pixels of each stage's result.
        fixup: the corrections of the official code.
        dropout: rate in the stages, in training mode.
        fixup_dropout: rate in front of the last correction.
        dtype: the type in which the convolutions compute; parameters are float32, kernels are never below float32.
        rngs: source of the initial parameters and of dropout.

    Returns:
        `module(x, guide)`: LR map [B, h, w, C], guide [B, H, W, Cg] of any size -> [B, scale*h, scale*w, C] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = StackJBU(8, 3, scale=4, radius=1, rngs=nnx.Rngs(0))
        >>> up.eval()
        >>> nnx.jit(up)(jnp.ones((1, 3, 2, 8)), jnp.ones((1, 20, 15, 3))).shape
        (1, 12, 8, 8)

    Reference:
        Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution, ICLR 2024; `JBUStack` of
        mhamilton723/FeatUp (MIT), which has four stages.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int = 16,
        key_features: int = 32,
        radius: int = 3,
        fixup: bool = False,
        dropout: float = 0.1,
        fixup_dropout: float = 0.2,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stages = check_power_of_two("scale", scale)
        self.stages = nnx.List(
            JBU(
                in_features,
                guide_features,
                key_features=key_features,
                radius=radius,
                fixup=fixup,
                dropout=dropout,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(stages)
        )
        self.dropout = _dropout(fixup_dropout, rngs)
        self.fixup = _conv(in_features, in_features, dtype, rngs) if fixup else None

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        x = doubled(self.stages, x, guide)
        if self.fixup is None:
            return x
        return x + FIXUP * self.fixup(self.dropout(x)).astype(x.dtype)
