"""How ReSFU measures the similarity of a query and its neighbours among the keys (Zhou et al., ReSFU, 2024)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_int, check_odd, pair
from jaxup.nn import initializers
from jaxup.nn.norms import group_norm, normalise
from jaxup.ops.pcdc import paired_difference_conv
from jaxup.ops.regions import convolve_groups
from jaxup.ops.windows import neighbour, pad_window, sum_by_halves, window_offsets

FORMS = ("paper", "official")

_kaiming = initializers.variance_scaling(2.0, "fan_out", "normal")


class PCDCBlock(nnx.Module):
    """Similarity scores of queries and their K x K dilated neighbours among the keys, Sec. 4.2.2.

        v = paired_difference_conv(norm(key), norm(query)) + b,    scores = conv1x1(norm'(relu(conv1x1(v))))

    One group normalisation serves key and query; it has no bias, which would cancel in every difference. `form` is
    that of `ReSFU`: the difference convolution has 32 outputs, or "official" `compressor_features` that pass a ReLU.
    The first 1x1 convolution has the same groups; the last one has none, because the K^2 scores, an odd number, do not
    divide into the paper's 4.

    Not `paired`, the first layer is a plain convolution of the pair instead: of both maps' windows, each group seeing
    its own channels of query and key,

        v = conv([norm(query), norm(key)]) + b,    with a kernel [K, K, 2 D/G, L] and the borders of the other

    `module(key, query)`: twice [B, H, W, features] -> [B, H, W, K*K].
    """

    def __init__(
        self,
        features: int,
        *,
        dilation: int | Pair,
        kernel_size: int = 3,
        groups: int = 4,
        compressor_features: int = 128,
        norm_groups: int = 8,
        form: str = "paper",
        paired: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("form", form, FORMS)
        self.features, self.form, self.paired, self.dtype = check_int("features", features), form, paired, dtype
        self.dilation, self.groups = pair("dilation", dilation), check_int("groups", groups)
        size, middle = check_odd("kernel_size", kernel_size), check_int("compressor_features", compressor_features)
        outputs = middle if form == "official" else 32
        for name, total in (("embedding_features", features), ("compressor_features", middle)):
            check_divides("groups", groups, name, total)
            check_divides("norm_groups", check_int("norm_groups", norm_groups), name, total)
        check_divides("groups", groups, "the outputs of the difference convolution", outputs)
        conv = partial(nnx.Conv, kernel_init=initializers.normal(0.02), dtype=dtype, rngs=rngs)
        self.norm = group_norm(features, norm_groups, rngs, use_bias=False)
        inputs = (1 if paired else 2) * features // groups
        self.kernel = nnx.Param(_kaiming(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.compressor = conv(
            outputs, middle, (1, 1), feature_group_count=groups, conv_general_dilated=convolve_groups
        )
        self.compressor_norm = group_norm(middle, norm_groups, rngs)
        self.scores = conv(middle, size**2, (1, 1))

    def __call__(self, key: jax.Array, query: jax.Array) -> jax.Array:
        """Scores in `dtype`, row by row over the window."""
        key, query = (normalise(self.norm, x, self.dtype) for x in (key, query))
        kernel = self.kernel[...].astype(self.dtype)
        if not self.paired:  # no difference is left where the query of the joined maps is zero
            key = self._joined(query, key)
            query = jnp.zeros_like(key)
        v = paired_difference_conv(key, query, kernel, dilation=self.dilation, groups=self.groups)
        v = v + self.bias[...].astype(self.dtype)[None, None, None]
        v = self.compressor(nnx.relu(v) if self.form == "official" else v)
        return self.scores(normalise(self.compressor_norm, nnx.relu(v), self.dtype))

    def _joined(self, *maps: jax.Array) -> jax.Array:
        """The channels of all maps, those of the first group in front."""
        grouped = [y.reshape(*y.shape[:3], self.groups, -1) for y in maps]
        return jnp.concatenate(grouped, axis=-1).reshape(*maps[0].shape[:3], -1)


class InnerProducts(nnx.Module):
    """Similarity without parameters, Eq. 3: the query times each of its K x K dilated neighbours among the keys.

    `module(key, query)`: twice [B, H, W, D] -> [B, H, W, K*K], row by row over the window, not below float32. Beyond
    the border, keys are those of the nearest pixel.
    """

    def __init__(self, *, dilation: int | Pair, kernel_size: int = 3):
        self.dilation, self.kernel_size = pair("dilation", dilation), check_odd("kernel_size", kernel_size)

    def __call__(self, key: jax.Array, query: jax.Array) -> jax.Array:
        """Scores."""
        (sy, sx), reach, dtype = self.dilation, self.kernel_size // 2, accum_dtype(key, query)
        padded, query = pad_window(key, (sy * reach, sx * reach), "edge").astype(dtype), query.astype(dtype)
        offsets = window_offsets(self.kernel_size)
        keys = (neighbour(padded, (dy * sy, dx * sx), (sy * reach, sx * reach)) for dy, dx in offsets)
        return jnp.stack([sum_by_halves(query * y) for y in keys], axis=-1)
