"""Upsampling of any features to any size under an image (AnyUp)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from jaxup.nn.norms import group_norm, normalise
from jaxup.nn.upsampler import output_size
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize
from jaxup.ops.unify import unify_features
from jaxup.ops.window_attend import window_attend
from jaxup.ops.windows import pad_window, sum_by_halves

_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")

_NORM_GROUPS = 8


class ResBlock(nnx.Module):
    """x + conv1x1(silu(norm(conv1x1(silu(norm(x)))))), where x passes a 1x1 convolution if the widths differ."""

    def __init__(self, in_features: int, out_features: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        conv = partial(_conv, dtype=dtype, rngs=rngs)
        self.dtype = dtype
        self.norm1, self.conv1 = group_norm(in_features, _NORM_GROUPS, rngs), conv(in_features, out_features, 1)
        self.norm2, self.conv2 = group_norm(out_features, _NORM_GROUPS, rngs), conv(out_features, out_features, 1)
        self.shortcut = None if in_features == out_features else conv(in_features, out_features, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in_features] -> [B, H, W, out_features]."""
        y = self.conv1(nnx.silu(normalise(self.norm1, x, self.dtype)))
        y = self.conv2(nnx.silu(normalise(self.norm2, y, self.dtype)))
        return y + (x if self.shortcut is None else self.shortcut(x)).astype(self.dtype)


class Encoder(nnx.Module):
    """A K x K convolution without bias, the image mirrored at its borders, and two `ResBlock`s."""

    def __init__(
        self, in_features: int, out_features: int, *, kernel_size: int = 1, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        self.radius = check_odd("kernel_size", kernel_size) // 2
        self.conv = _conv(in_features, out_features, kernel_size, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([ResBlock(out_features, out_features, dtype=dtype, rngs=rngs) for _ in range(2)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in_features] -> [B, H, W, out_features]."""
        y = self.conv(pad_window(x, (self.radius, self.radius), "reflect"))
        for block in self.blocks:
            y = block(y)
        return y


class LearnedFeatureUnification(nnx.Module):
    """`ops.unify_features` with a learned basis: [B, h, w, C] of any C -> [B, h, w, features]."""

    def __init__(self, features: int, *, kernel_size: int = 5, rngs: nnx.Rngs):
        size = check_odd("kernel_size", kernel_size)
        # Features of unit length give small responses: with small filters, too, the softmax would hardly vary.
        self.basis = nnx.Param(jax.random.normal(rngs.params(), (size, size, check_int("features", features))))

    def __call__(self, x: jax.Array) -> jax.Array:
        """The features in the basis."""
        return unify_features(x, self.basis[...])


class RotaryPosition(nnx.Module):
    """Rotation of pairs of channels (d, d + D/2) by angles that grow with the position, [0, 1] in both axes.

    angle[i, j] = i/(H-1) freqs[0] + j/(W-1) freqs[1],   y = x cos(angle) + [-x'', x'] sin(angle),   x = [x', x'']
    """

    def __init__(self, features: int):
        half = np.tile(2 * np.pi * 100 ** -np.linspace(0, 1, features // 4), 2)
        none = np.zeros_like(half)
        self.freqs = nnx.Param(jnp.asarray(np.stack([np.append(half, none), np.append(none, half)]), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, D] -> the same, in the dtype of x."""
        dtype = accum_dtype(x)
        rows, cols = (jnp.linspace(0, 1, n, dtype=dtype)[:, None] for n in x.shape[1:3])
        of_rows, of_cols = self.freqs[...].astype(dtype)
        angle = ((rows * of_rows[None])[:, None] + (cols * of_cols[None])[None])[None]
        first, second = jnp.split(x.astype(dtype), 2, axis=-1)
        turned = jnp.concatenate([-second, first], axis=-1)
        return (x.astype(dtype) * jnp.cos(angle) + turned * jnp.sin(angle)).astype(x.dtype)


class AnyUp(nnx.Module):
    """Attention of image queries over a window of the LR features, whatever these features are.

        e = rope(encode(image)),  f = x / |x|
        q = conv3x3(area(encode_q(e), size)),  k = aggregate([area(encode_k(e), (h, w)), blocks(unify(f))])
        out = window_attend(Wq rms(q) + bq, Wk rms(k), x)

    with `Encoder`s, `LearnedFeatureUnification`, `RotaryPosition`, and "area" for adaptive average pooling. The
    values are the features themselves; the weights are means over heads of the attention inside a window of
    +-`window_ratio` times the image. One trained module serves any number of feature channels, image and output size.
    Unification and attention hold a bounded number of pixels at a time; what takes memory are the maps of D channels on
    the image's grid, about 8 at a time, or some 50 with gradients.
    Parameters at the defaults: 844 928. Multiply-adds: 14 D^2 per image pixel for the encoders; 10 D^2 for the query
    and (D + C) |N| for the attention over |N| cells per output pixel; 27 D^2 and, for the unification, 25 C D per cell.

    Args:
        guide_features: channels of the image.
        scale: the factor of the default output size, an integer or a pair (vertical, horizontal); None: that of the
            image.
        qk_features: D, channels of queries and keys, a multiple of 8 and of `num_heads`.
        kernel_size: of the image encoder's convolution, odd.
        unify_kernel_size: of the filters of the unification, odd.
        unify_features: the number of these filters, a multiple of 8; None is D.
        window_ratio: half the size of the window in units of the image; 0 is the whole map.
        num_heads: M.
        dtype: the type in which norms and convolutions compute; parameters are float32, softmax never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide, size=None)`: features [B, h, w, C] of any C, image [B, H, W, guide_features] ->
        [B, *size, C] in the dtype of x; the default size is `scale` times that of x, or that of the image.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = AnyUp(qk_features=16, rngs=nnx.Rngs(0))
        >>> nnx.jit(lambda *maps: up(*maps, size=(16, 12)))(jnp.ones((1, 4, 3, 7)), jnp.ones((1, 32, 24, 3))).shape
        (1, 16, 12, 7)

    Reference:
        Official code: wimmerth/anyup (CC BY 4.0), anyup/model.py, with the masked attention.
    """

    def __init__(
        self,
        guide_features: int = 3,
        *,
        scale: int | Pair | None = None,
        qk_features: int = 128,
        kernel_size: int = 1,
        unify_kernel_size: int = 5,
        unify_features: int | None = None,
        window_ratio: float = 0.1,
        num_heads: int = 4,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.guide_features = check_int("guide_features", guide_features)
        self.scale = None if scale is None else pair("scale", scale)
        self.window_ratio, self.num_heads, self.dtype = window_ratio, check_int("num_heads", num_heads), dtype
        if not window_ratio >= 0:
            fail("window_ratio", "a number >= 0", repr(window_ratio))
        depth = check_int("qk_features", qk_features)
        unified = depth if unify_features is None else check_int("unify_features", unify_features)
        check_divides("num_heads", num_heads, "qk_features", depth)
        for name, total in (("qk_features", depth), ("unify_features", unified)):
            if total % _NORM_GROUPS:
                fail(name, f"a multiple of {_NORM_GROUPS}", total)
        layer = dict(dtype=dtype, rngs=rngs)
        self.image_encoder = Encoder(guide_features, depth, kernel_size=kernel_size, **layer)
        self.rope = RotaryPosition(depth)
        self.query_encoder, self.key_encoder = (Encoder(depth, depth, **layer) for _ in range(2))
        self.unify = LearnedFeatureUnification(unified, kernel_size=unify_kernel_size, rngs=rngs)
        self.feature_blocks = nnx.List([ResBlock(unified, depth, **layer), ResBlock(depth, depth, **layer)])
        self.aggregation = Encoder(2 * depth, depth, kernel_size=3, **layer)
        self.mix_query = _conv(depth, depth, 3, padding="SAME", **layer)
        linear = partial(nnx.Linear, depth, depth, kernel_init=initializers.xavier_uniform(), **layer)
        # A bias of the key would add the same to all scores of a query.
        self.norm_query, self.norm_key = (nnx.RMSNorm(depth, epsilon=_EPS, rngs=rngs) for _ in range(2))
        self.query, self.key = linear(), linear(use_bias=False)

    def __call__(self, x: jax.Array, guide: jax.Array, *, size: int | Pair | None = None) -> jax.Array:
        """Enlarge the features x under an image."""
        check_image("x", x)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        output = output_size(x, guide, self.scale, size)
        image = self.rope(self.image_encoder(guide.astype(self.dtype)))
        query = self.mix_query(resize(self.query_encoder(image), size=output, method="area"))
        query = self.query(normalise(self.norm_query, query, self.dtype))
        key = self.key(normalise(self.norm_key, self._keys(x, image), self.dtype))
        return window_attend(query, key, x, window_ratio=self.window_ratio, num_heads=self.num_heads)

    def _keys(self, x: jax.Array, image: jax.Array) -> jax.Array:
        of_image = resize(self.key_encoder(image), size=x.shape[1:3], method="area")
        y = x.astype(accum_dtype(x))
        length2 = sum_by_halves(y * y)[..., None]
        y = y * jax.lax.rsqrt(jnp.maximum(length2, 1e-24))  # not shorter than 1e-12
        y = self.unify(y)  # in float32, or the small differences between its entries would be lost
        for block in self.feature_blocks:
            y = block(y)
        return self.aggregation(jnp.concatenate([of_image, y], axis=-1))


_EPS = float(np.finfo(np.float32).eps)


def _conv(inputs: int, outputs: int, size: int, padding: str = "VALID", **layer: Any) -> nnx.Conv:
    if size == 1:
        layer["conv_general_dilated"] = pointwise_conv
    return nnx.Conv(inputs, outputs, (size, size), padding=padding, use_bias=False, kernel_init=_uniform, **layer)
