"""Upsampling of features by neighbourhood attention between an image and its own reduction (NAF)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_divides,
    check_features,
    check_image,
    check_int,
    check_odd,
    check_shape,
    fail,
    pair,
)
from jaxup.nn import initializers
from jaxup.nn.naf_strips import strip_rows, upsample
from jaxup.nn.norms import group_norm, normalise
from jaxup.nn.upsampler import output_size
from jaxup.ops.neighbourhood import neighbourhood_attend
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize
from jaxup.ops.rotary import rotary_angles, rotary_periods, rotate
from jaxup.ops.windows import pad_window

_GROUPS = 8
_LARGEST = 4  # times the output's side an image may have; larger ones are reduced first
_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Branch(nnx.Module):
    """A K x K convolution, and blocks of norm, SiLU, convolution, twice; the image is mirrored at its borders."""

    def __init__(self, in_features: int, features: int, *, kernel_size: int, depth: int, dtype: Any, rngs: nnx.Rngs):
        special: dict[str, Any] = {"conv_general_dilated": pointwise_conv} if kernel_size == 1 else {}
        conv: Callable[..., nnx.Conv] = partial(
            nnx.Conv, kernel_size=(kernel_size,) * 2, padding="VALID", kernel_init=_uniform, **special
        )
        count = 2 * depth
        self.first = conv(in_features, features, dtype=dtype, rngs=rngs)
        self.norms = nnx.List(group_norm(features, _GROUPS, rngs) for _ in range(count))
        self.convs = nnx.List(conv(features, features, dtype=dtype, rngs=rngs) for _ in range(count))
        self.radius, self.dtype = kernel_size // 2, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in_features] -> [B, H, W, features]."""
        around = partial(pad_window, radius=(self.radius,) * 2, border="reflect")
        y = self.first(around(x))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(around(nnx.silu(normalise(norm, y, self.dtype))))
        return y


class NAF(nnx.Module):
    """Each pixel averages the K x K features around it by how alike the image is there.

        g = rope(area([pointwise(image), around(image)], size)),   out = neighbourhood_attend(g, area(g, (h, w)), x)

    with two branches of convolutions, 1 x 1 and 3 x 3, and `rope` a rotation of channels by the position. Nothing is
    learned of the features: one trained module serves any number of channels and any encoder. An image of more than
    four times the output's height or width is reduced to that first. Images of more than half a megapixel, at their own
    size, are computed by strips of rows, with 3.5 times the multiply-adds per image pixel.
    Parameters at the defaults: 662,528. Multiply-adds per image pixel: 10 (D/2)^2 times 4; per output pixel
    K^2 (D + C).

    Args:
        guide_features: channels of the image.
        scale: the factor of the default output size, an integer or a pair (vertical, horizontal); None: that of the
            image.
        features: D, channels of the guide, a multiple of 16 and of both numbers of heads.
        num_heads: of the attention; they divide the features, too.
        rotary_heads: blocks of channels that are rotated alike.
        kernel_size: K, odd.
        depth: blocks of a branch.
        rotary_base: of the periods of the rotation.
        dtype: the type in which norms and convolutions compute; parameters are float32, softmax never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide, size=None)`: features [B, h, w, C], image [B, H, W, guide_features], normalised by ImageNet's
        constants -> [B, *size, C] in the dtype of x; the default size is `scale` times that of x, or the image's.
        `module.encode(guide, size)` is g.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> up = NAF(features=32, kernel_size=3, rngs=nnx.Rngs(0))
        >>> nnx.jit(lambda *maps: up(*maps, size=(16, 12)))(jnp.ones((1, 4, 3, 8)), jnp.ones((1, 32, 24, 3))).shape
        (1, 16, 12, 8)

    Reference:
        Chambon et al., NAF: Zero-Shot Feature Upsampling via Neighborhood Attention Filtering, 2025. Official code:
        valeoai/NAF (Apache-2.0).
    """

    def __init__(
        self,
        guide_features: int = 3,
        *,
        scale: int | Pair | None = None,
        features: int = 256,
        num_heads: int = 4,
        rotary_heads: int = 4,
        kernel_size: int = 9,
        depth: int = 2,
        rotary_base: float = 100.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.dtype = None if scale is None else pair("scale", scale), dtype
        self.features, self.kernel_size = features, check_odd("kernel_size", kernel_size)
        self.num_heads, self.rotary_heads = check_int("num_heads", num_heads), check_int("rotary_heads", rotary_heads)
        if check_int("features", features) % (2 * _GROUPS):
            fail("features", f"a multiple of {2 * _GROUPS}", features)
        check_divides("num_heads", num_heads, "features", features)
        if features % (4 * rotary_heads):
            fail("features", f"a multiple of 4 * rotary_heads = {4 * rotary_heads}", features)
        layer: dict[str, Any] = dict(depth=check_int("depth", depth), dtype=dtype, rngs=rngs)
        self.pointwise = Branch(guide_features, features // 2, kernel_size=1, **layer)
        self.around = Branch(guide_features, features // 2, kernel_size=3, **layer)
        self.periods = nnx.Variable(jnp.asarray(rotary_periods(rotary_base, features // rotary_heads)))

    def __call__(self, x: jax.Array, guide: jax.Array, *, size: int | Pair | None = None) -> jax.Array:
        """Enlarge the features x under an image."""
        check_image("x", x)
        check_divides("num_heads", self.num_heads, "the channels of x", x.shape[3])
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        output = output_size(x, guide, self.scale, size)
        rows = strip_rows(guide, self.features) if output == guide.shape[1:3] else 0
        if rows:
            return upsample(self, x, guide, rows)
        query = self.encode(guide, size=output)
        key = resize(query, size=x.shape[1:3], method="area")
        return neighbourhood_attend(query, key, x, kernel_size=self.kernel_size, num_heads=self.num_heads)

    def encode(self, guide: jax.Array, *, size: Pair) -> jax.Array:
        """What pixels and cells are compared by, [B, *size, D]."""
        (height, width), (rows, cols) = guide.shape[1:3], size
        if height > _LARGEST * rows or width > _LARGEST * cols:
            reduced = min(height, _LARGEST * rows, _LARGEST * cols), min(width, _LARGEST * cols, _LARGEST * rows)
            guide = resize(guide, size=(reduced[0], reduced[1]), method="bilinear")
        image = guide.astype(self.dtype)
        maps = (resize(branch(image), size=size, method="area") for branch in (self.pointwise, self.around))
        y = jnp.concatenate(list(maps), axis=-1)
        return self.rotated(y, size)

    def rotated(self, y: jax.Array, size: Pair, first: jax.Array | None = None) -> jax.Array:
        """The guide's channels turned by their places; y may be the rows from `first` on."""
        dtype = accum_dtype(y)
        periods = self.periods[...].astype(dtype)
        rotation = rotary_angles(size, periods, dtype, first=first, count=y.shape[1])
        return rotate(y.reshape(y.shape[0], -1, y.shape[3]), rotation, self.rotary_heads).reshape(y.shape)
