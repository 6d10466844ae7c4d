"""Upsampling of features by attention of image queries to the whole low-resolution map (JAFAR)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_divides, check_features, check_int, check_shape, fail, pair
from jaxup.nn import initializers
from jaxup.nn.anyup import Encoder, RotaryPosition
from jaxup.nn.norms import normalise
from jaxup.nn.upsampler import output_size
from jaxup.ops.pointwise import pointwise_conv, pointwise_dot
from jaxup.ops.resize import resize
from jaxup.ops.window_attend import window_attend
from jaxup.ops.windows import sum_by_halves

_EPS = float(np.finfo(np.float32).eps)
_GROUPS = 8
_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class JAFAR(nnx.Module):
    """Each pixel of an image averages all features, by how its query fits keys that image and features make together.

        e = rope(encode(image)),  q = conv3x3(norm(area(encode_q(e), size)))
        k = gamma(z) norm(area(encode_k(e), (h, w))) + beta(z),  z = encode_f(x / |x|)
        out = mean over heads of softmax(Wq rms(q) . (Wk rms(k)) / sqrt(D / M)) x

    with encoders of a convolution and two residual blocks, and norms over 8 groups of channels. The weights of a pixel
    are over all cells; a bounded number of pixels is processed at a time.
    Parameters at 384 features: 562,176 with an effect. Multiply-adds: 15 D^2 per image pixel for the encoders; 10 D^2
    for the query and (D + C) h w per output pixel.

    Args:
        in_features: C.
        guide_features: channels of the image.
        scale: the factor of the default output size, an integer or a pair (vertical, horizontal); None: that of the
            image.
        qk_features: D, channels of queries and keys, a multiple of 8 and of `num_heads`.
        kernel_size: of the image encoder's first convolution, odd.
        num_heads: M.
        dtype: the type in which norms and convolutions compute; parameters are float32, softmax never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide, size=None)`: features [B, h, w, C], image [B, H, W, guide_features], normalised as the
        encoder's -> [B, *size, C] in the dtype of x; the default size is `scale` times that of x, or the image's.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> up = JAFAR(7, qk_features=16, rngs=nnx.Rngs(0))
        >>> nnx.jit(lambda *maps: up(*maps, size=(16, 12)))(jnp.ones((1, 4, 3, 7)), jnp.ones((1, 32, 24, 3))).shape
        (1, 16, 12, 7)

    Reference:
        Couairon et al., JAFAR: Jack up Any Feature at Any Resolution, 2025. Official code: PaulCouairon/JAFAR
        (Apache-2.0).
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int = 3,
        *,
        scale: int | Pair | None = None,
        qk_features: int = 128,
        kernel_size: int = 1,
        num_heads: int = 4,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.dtype = None if scale is None else pair("scale", scale), dtype
        self.num_heads, depth = check_int("num_heads", num_heads), check_int("qk_features", qk_features)
        check_divides("num_heads", num_heads, "qk_features", depth)
        if depth % _GROUPS:
            fail("qk_features", f"a multiple of {_GROUPS}", depth)
        layer = dict(dtype=dtype, rngs=rngs)
        self.image_encoder = Encoder(guide_features, depth, kernel_size=kernel_size, **layer)
        self.rope = RotaryPosition(depth)
        self.query_encoder, self.key_encoder = (Encoder(depth, depth, **layer) for _ in range(2))
        self.feature_encoder = Encoder(in_features, depth, **layer)
        plain = partial(nnx.GroupNorm, depth, num_groups=_GROUPS, epsilon=1e-5, use_bias=False, use_scale=False)
        self.group_norm = plain(use_fast_variance=False, rngs=rngs)
        conv: Any = partial(nnx.Conv, depth, depth, use_bias=False, kernel_init=_uniform, **layer)
        self.gamma, self.beta = (conv((1, 1), conv_general_dilated=pointwise_conv) for _ in range(2))
        self.mix_query = conv((3, 3), padding="SAME")
        self.norm_query, self.norm_key = (nnx.RMSNorm(depth, epsilon=_EPS, rngs=rngs) for _ in range(2))
        xavier = initializers.xavier_uniform()
        linear: Any = partial(nnx.Linear, depth, depth, kernel_init=xavier, dot_general=pointwise_dot, **layer)
        # A bias of the key would add the same to all scores of a query.
        self.query, self.key = linear(), linear(use_bias=False)

    def __call__(self, x: jax.Array, guide: jax.Array, *, size: int | Pair | None = None) -> jax.Array:
        """Enlarge the features x under an image."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        output = output_size(x, guide, self.scale, size)
        image = self.rope(self.image_encoder(guide.astype(self.dtype)))
        query = self._norm(resize(self.query_encoder(image), size=output, method="area"))
        query = self.query(normalise(self.norm_query, self.mix_query(query), self.dtype))
        key = self.key(normalise(self.norm_key, self._keys(x, image), self.dtype))
        return window_attend(query, key, x, window_ratio=0, num_heads=self.num_heads)

    def _norm(self, x: jax.Array) -> jax.Array:
        return normalise(self.group_norm, x, self.dtype)

    def _keys(self, x: jax.Array, image: jax.Array) -> jax.Array:
        y = x.astype(accum_dtype(x))
        length2 = sum_by_halves(y * y)[..., None]
        y = self.feature_encoder(y * jax.lax.rsqrt(jnp.maximum(length2, 1e-24)))  # not shorter than 1e-12
        of_image = resize(self.key_encoder(image), size=x.shape[1:3], method="area")
        gamma, beta = self.gamma(y), self.beta(y)
        keys: jax.Array = gamma * self._norm(of_image) + beta
        return keys
