"""Attention-based upsampling layers (Kundu et al., Attention-based Image Upsampling, 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_divides, check_features, check_int, check_odd, check_shape, fail, pair
from jaxup.nn import initializers
from jaxup.ops.attend import attention_kernels, attention_upsample
from jaxup.ops.pointwise import pointwise_dot
from jaxup.ops.resize import resize


def _projection(in_features: int, out_features: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1 convolution without bias."""
    init = initializers.lecun_normal()
    options: Any = dict(kernel_init=init, dot_general=pointwise_dot, dtype=dtype, rngs=rngs)
    return nnx.Linear(in_features, out_features, use_bias=False, **options)


def _positions(kernel_size: int, features: int, rngs: nnx.Rngs) -> nnx.Param[jax.Array]:
    """Learned relative positions along one axis, [K, features / 2]."""
    init = initializers.normal(features**-0.5)
    return nnx.Param(init(rngs.params(), (check_odd("kernel_size", kernel_size), features // 2), jnp.float32))


def _check_out_features(out_features: int, num_heads: int) -> None:
    if check_int("out_features", out_features) % 2:
        fail("out_features", "an even number, half for row and half for column positions", out_features)
    check_divides("num_heads", check_int("num_heads", num_heads), "out_features", out_features)


class _Attention(nnx.Module):
    """The parameters of both forms: projections of what is compared and of what is averaged, and positions."""

    def __init__(
        self,
        compared_features: int,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int,
        num_heads: int,
        scaled: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        _check_out_features(out_features, num_heads)
        self.scale, self.kernel_size = pair("scale", scale), kernel_size
        self.num_heads, self.scaled = num_heads, scaled
        self.query = _projection(compared_features, out_features, dtype, rngs)
        self.key = _projection(compared_features, out_features, dtype, rngs)
        self.value = _projection(in_features, out_features, dtype, rngs)
        self.px = _positions(kernel_size, out_features, rngs)
        self.py = _positions(kernel_size, out_features, rngs)

    @property
    def _options(self) -> dict[str, Any]:
        return dict(
            scale=self.scale,
            kernel_size=self.kernel_size,
            positions=(self.px[...], self.py[...]),
            num_heads=self.num_heads,
            scaled=self.scaled,
        )


class AttentionUpsample(_Attention):
    """Attention-based upsampling of one feature map: a drop-in for a strided transposed convolution.

    Query, key and value are 1x1 convolutions of x; the query is enlarged bilinearly, key and value are thought of as
    zero-upsampled, and every HR pixel attends to the cells inside its K x K window (`ops.attention_upsample`).
    Parameters: 3*Cin*Cout + K*Cout, against K^2*Cin*Cout. Multiply-adds per output pixel: 3*Cin*Cout / s^2 for the
    projections and 3*K^2*Cout / s^2 for scores, positions and averages.

    Args:
        in_features: Cin.
        out_features: Cout, even.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd, on the HR grid; K >= 2*scale - 1 leaves no window empty.
        num_heads: heads, a divisor of Cout (the paper has one).
        scaled: divide the scores by sqrt(Cout / num_heads), as Eqs. 1 to 3 do and Eqs. 7 and 12 do not.
        dtype: the type in which the projections compute; parameters are float32, scores are never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: LR map [B, h, w, Cin] -> HR map [B, sy*h, sx*w, Cout] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, Cin].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = AttentionUpsample(16, 8, scale=2, kernel_size=3, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 16))).shape
        (1, 10, 12, 8)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Eqs. 6 to 12.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 3,
        num_heads: int = 1,
        scaled: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(scale=scale, kernel_size=kernel_size, num_heads=num_heads, scaled=scaled)
        super().__init__(in_features, in_features, out_features, **options, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        return attention_upsample(*self._compared(x), self.value(x), **self._options).astype(x.dtype)

    def kernels(self, x: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, num_heads, n*n], see `ops.attention_kernels`."""
        return attention_kernels(*self._compared(x), **self._options)

    def _compared(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Query and key."""
        check_features("x", x, self.in_features)
        return resize(self.query(x), scale=self.scale, method="bilinear"), self.key(x)


class JointAttentionUpsample(_Attention):
    """Attention-based upsampling of a feature map under a high-resolution guide.

    Query and key are 1x1 convolutions of the guide, the value is one of x: each HR pixel averages the cells inside
    its K x K window that are most alike in the guide (`ops.attention_upsample`).
    Parameters: (2*Cg + Cin)*Cout + K*Cout.

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide.
        out_features: Cout, even.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd, on the HR grid; K >= 2*scale - 1 leaves no window empty.
        num_heads: heads, a divisor of Cout (the paper has one).
        scaled: divide the scores by sqrt(Cout / num_heads), as Eqs. 1 to 3 do and Eqs. 7 and 12 do not.
        dtype: the type in which the projections compute; parameters are float32, scores are never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> HR map [B, sy*h, sx*w, Cout] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = JointAttentionUpsample(4, 3, 8, scale=2, kernel_size=5, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 4)), jnp.ones((1, 10, 12, 3))).shape
        (1, 10, 12, 8)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Eqs. 13 to 15.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        out_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 3,
        num_heads: int = 1,
        scaled: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.guide_features = check_int("guide_features", guide_features)
        options: dict[str, Any] = dict(scale=scale, kernel_size=kernel_size, num_heads=num_heads, scaled=scaled)
        super().__init__(guide_features, in_features, out_features, **options, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_features("x", x, self.in_features)
        check_shape("guide", guide, (x.shape[0], self.scale[0] * x.shape[1], self.scale[1] * x.shape[2], None))
        return attention_upsample(*self._compared(guide), self.value(x), **self._options).astype(x.dtype)

    def kernels(self, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, num_heads, n*n], see `ops.attention_kernels`."""
        return attention_kernels(*self._compared(guide), **self._options)

    def _compared(self, guide: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Query and key, the latter at the allowed positions only."""
        check_features("guide", guide, self.guide_features)
        return self.query(guide), self.key(guide[:, :: self.scale[0], :: self.scale[1]])
