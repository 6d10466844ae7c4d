"""DySample, upsampling by learned point sampling (Liu et al., ICCV 2023)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_features, check_int, pair
from jaxup.nn import initializers
from jaxup.ops.pointwise import pointwise_dot
from jaxup.ops.resize import pixel_shuffle
from jaxup.ops.sample import sample

STYLES = ("lp", "pl")


class DySample(nnx.Module):
    """Upsampling by learned point sampling: each HR pixel reads x bilinearly, at its own place moved by an offset.

        o = 0.25 * linear(x)                          or, with `dynamic_scope`,  0.5 * sigmoid(scope(x)) * linear(x)
        out[i, j, group g] = x[(i + 1/2) / sy - 1/2 + oy[i, j, g], (j + 1/2) / sx - 1/2 + ox[i, j, g]]

    Style "lp" predicts all offsets of a cell by one linear layer and shuffles them to HR; "pl" shuffles x first, and
    predicts each HR pixel's offsets from its C / (sy*sx) channels. Positions are clamped to the image. With zero
    offsets, as nearly at the start, this is bilinear upsampling.
    Output channel ((axis*g + group)*sy + u)*sx + v of "lp", and axis*g + group of "pl", is the offset at phase (u, v);
    axis 0 is horizontal.
    Parameters: "lp" 2*g*s^2*(C + 1), "pl" 2*g*(C/s^2 + 1); the scope has as many without bias. Multiply-adds per
    output pixel: 2*g*C ("lp") or 2*g*C/s^2 ("pl"), twice with the scope, and 4*C for the samples.

    Args:
        in_features: C, channels of x.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        style: "lp" (linear, then pixel shuffle) or "pl", for which sy*sx divides C.
        groups: g, a divisor of C: consecutive channels that share their offsets.
        dynamic_scope: predict the range of the offsets, too.
        dtype: the type in which the linear layers compute; parameters are float32, positions never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: LR map [B, h, w, C] -> HR map [B, sy*h, sx*w, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, h, w, C].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> DySample(8, scale=2, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 6, 8))).shape
        (1, 10, 12, 8)

    Reference:
        Liu et al., Learning to Upsample by Learning to Sample, ICCV 2023, Eqs. 1 to 5; tiny-smart/dysample.
    """

    def __init__(
        self,
        in_features: int,
        *,
        scale: int | Pair,
        style: str = "lp",
        groups: int = 4,
        dynamic_scope: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.scale = check_int("in_features", in_features), pair("scale", scale)
        self.style, self.groups = style, check_int("groups", groups)
        check_choice("style", style, STYLES)
        check_divides("groups", groups, "in_features", in_features)
        features, outputs, phases = in_features, 2 * groups, self.scale[0] * self.scale[1]
        if style == "pl":
            check_divides("scale[0] * scale[1]", phases, "in_features", in_features)
            features = features // phases
        else:
            outputs = outputs * phases
        init = initializers.normal(0.001)
        layer: Callable[..., nnx.Linear] = partial(
            nnx.Linear, features, outputs, dot_general=pointwise_dot, dtype=dtype, rngs=rngs
        )
        self.offset = layer(kernel_init=init)
        self.scope = layer(use_bias=False, kernel_init=nnx.initializers.zeros) if dynamic_scope else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Enlarge x."""
        check_features("x", x, self.in_features)
        offsets = self._offsets(x)
        rows, cols = (_centres(n, s, offsets.dtype) for n, s in zip(x.shape[1:3], self.scale, strict=True))
        points = jnp.stack(
            [offsets[..., 1, :] + rows[None, :, None, None], offsets[..., 0, :] + cols[None, None, :, None]], axis=-1
        )
        return sample(x, points, padding="border")

    def _offsets(self, x: jax.Array) -> jax.Array:
        """Offsets in LR pixels, [B, H, W, (x, y), g]."""
        seen = pixel_shuffle(x, scale=self.scale) if self.style == "pl" else x
        offsets = self.offset(seen)
        offsets = offsets.astype(accum_dtype(offsets))
        if self.scope is None:
            offsets = 0.25 * offsets
        else:
            offsets = 0.5 * jax.nn.sigmoid(self.scope(seen).astype(offsets.dtype)) * offsets
        if self.style == "lp":
            offsets = pixel_shuffle(offsets, scale=self.scale)
        return offsets.reshape(*offsets.shape[:3], 2, self.groups)


def _centres(n: int, scale: int, dtype: Any) -> jax.Array:
    """Where the HR pixels of one axis lie between LR pixels: (i + 1/2) / s - 1/2."""
    return (jnp.arange(scale * n, dtype=dtype) + 0.5) / scale - 0.5
