"""The refreshed similarity-based upsampler (Zhou et al., ReSFU, 2024)."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_choice,
    check_divides,
    check_features,
    check_int,
    check_odd,
    check_shape,
    fail,
    pair,
)
from jaxup.nn.norms import group_norm, normalise
from jaxup.ops.filters import gaussian_filter, guided_filter
from jaxup.ops.fine import fine_neighbour_attention
from jaxup.ops.pcdc import paired_difference_conv
from jaxup.ops.regions import convolve_groups
from jaxup.ops.resize import resize
from jaxup.ops.windows import inside, window_offsets

FORMS = ("paper", "official")

_kaiming = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class GuidedFilter(nnx.Module):
    """`ops.guided_filter` as a module: each channel of x filtered under its own channel of the guide, Eqs. 4 to 6."""

    def __init__(self, *, radius: int, eps: float, subsample: int = 1):
        self.radius, self.eps = check_int("radius", radius, minimum=0), eps
        self.subsample = check_int("subsample", subsample)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """The guide, brought as close to x as a linear function per window does."""
        return guided_filter(x, guide, radius=self.radius, eps=self.eps, per_channel=True, subsample=self.subsample)


class PCDCBlock(nnx.Module):
    """Similarity scores of queries and their K x K dilated neighbours among the keys, Sec. 4.2.2.

        v = paired_difference_conv(norm(key), norm(query)) + b,    scores = conv1x1(norm'(relu(conv1x1(v))))

    One group normalisation serves key and query; it has no bias, which would cancel in every difference. `form` is
    that of `ReSFU`: the difference convolution has 32 outputs, or "official" `compressor_features` that pass a ReLU.
    The first 1x1 convolution has the same groups; the last one has none, because the K^2 scores, an odd number, do not
    divide into the paper's 4.

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
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("form", form, FORMS)
        self.features, self.form, self.dtype = check_int("features", features), form, dtype
        self.dilation, self.groups = pair("dilation", dilation), check_int("groups", groups)
        size, middle = check_odd("kernel_size", kernel_size), check_int("compressor_features", compressor_features)
        outputs = middle if form == "official" else 32
        for name, total in (("embedding_features", features), ("compressor_features", middle)):
            check_divides("groups", groups, name, total)
            check_divides("norm_groups", check_int("norm_groups", norm_groups), name, total)
        check_divides("groups", groups, "the outputs of the difference convolution", outputs)
        conv = partial(nnx.Conv, kernel_init=nnx.initializers.normal(0.02), dtype=dtype, rngs=rngs)
        self.norm = group_norm(features, norm_groups, rngs, use_bias=False)
        self.kernel = nnx.Param(_kaiming(rngs.params(), (size, size, features // groups, outputs)))
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
        v = paired_difference_conv(key, query, kernel, dilation=self.dilation, groups=self.groups)
        v = v + self.bias[...].astype(self.dtype)[None, None, None]
        v = self.compressor(nnx.relu(v) if self.form == "official" else v)
        return self.scores(normalise(self.compressor_norm, nnx.relu(v), self.dtype))


class ReSFU(nnx.Module):
    """Similarity-based upsampling with aligned queries and keys, learned similarity and fine-grained neighbours.

        q = conv1x1(norm(guide)),  k = bilinear(conv1x1(norm(x)))
        scores = PCDC_s(k, guided_filter(k | q)) + PCDC_d(gaussian(q), q)
        out = fine_neighbour_attention(x, softmax(scores))

    with the guided filter per channel (the query, linearly transformed to be like the key) and a Gaussian of 3 x 3
    taps and unit deviation. PCDC (`PCDCBlock`) scores K x K neighbours on the HR grid, as far apart as the scale; the
    values are those neighbours in the bilinearly upsampled x. Both inputs are group-normalised, in 32 groups (fewer
    where 32 does not divide the channels), or per channel below 32 channels.

    `form="official"` is what the published code computes where that differs from the paper: 128 outputs (not 32) of
    the difference convolutions, a ReLU behind them, and neighbours whose positions leave the image get no weight
    (the paper's text has none of the three). The code also subsamples the guided filter by 2. How the parameters in the
    paper's Table VIII grow with K and fall with G fits the official form.
    Parameters: (D + 2) (Cin + Cg) + 2 D + 2 P with P = (K^2 D/G + 1) L + D + (L/G + 3) M + (M + 1) K^2 in each PCDC
    block, L = 32 (official: M) and M = 128. Multiply-adds per output pixel: Cg D + Cin D / s^2 + (K + 2)^2 Cin, and
    (K^2 + 1) L D/G + L M/G + M K^2 in each block.

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd.
        groups: G of the difference convolutions and of the first 1x1 convolutions behind them.
        embedding_features: D, channels of query and key.
        norm_groups: groups of the normalisations in both PCDC blocks.
        radius: of the guided filter, in HR pixels.
        eps: of the guided filter.
        subsample: of the guided filter; the published code has 2.
        norm_x: normalise x for the key.
        norm_guide: normalise the guide.
        project_guide: without, the normalised guide is the query, and Cg = D.
        use_bias: add biases to query and key.
        form: "paper" or "official".
        dtype: the type in which norms and convolutions compute; parameters are float32, softmax never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> HR map [B, sy*h, sx*w, Cin] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = ReSFU(16, 8, scale=4, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 3, 2, 16)), jnp.ones((1, 12, 8, 8))).shape
        (1, 12, 8, 16)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler for Direct High-Ratio Feature Upsampling, 2024, Eqs. 2 to
        12. Official code: zmhhmz/ReSFU (no licence file), demo/resfu.py.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int | Pair,
        kernel_size: int = 3,
        groups: int = 4,
        embedding_features: int = 32,
        norm_groups: int = 8,
        radius: int = 8,
        eps: float = 1e-3,
        subsample: int = 1,
        norm_x: bool = True,
        norm_guide: bool = True,
        project_guide: bool = True,
        use_bias: bool = True,
        form: str = "paper",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.kernel_size = pair("scale", scale), check_odd("kernel_size", kernel_size)
        depth = check_int("embedding_features", embedding_features)
        if not project_guide and guide_features != depth:
            fail("guide_features", f"embedding_features = {depth} without a projection", guide_features)
        self.form, self.dtype = form, dtype
        init = nnx.initializers.normal(0.02)
        linear = partial(nnx.Linear, use_bias=use_bias, kernel_init=init, dtype=dtype, rngs=rngs)
        self.norm_x = _input_norm(in_features, rngs) if norm_x else None
        self.norm_guide = _input_norm(guide_features, rngs) if norm_guide else None
        self.query = linear(guide_features, depth) if project_guide else None
        self.key = linear(in_features, depth)
        self.align = GuidedFilter(radius=radius, eps=eps, subsample=subsample)
        block = partial(PCDCBlock, depth, dilation=self.scale, kernel_size=kernel_size, groups=groups)
        self.semantic_scores, self.detail_scores = (
            block(norm_groups=norm_groups, form=form, dtype=dtype, rngs=rngs) for _ in range(2)
        )

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], self.scale[0] * x.shape[1], self.scale[1] * x.shape[2], None))
        query, key = self.query_and_key(x, guide)
        scores = self.semantic_scores(key, self.align(key, query)) + self.detail_scores(_smooth(query), query)
        scores = scores.astype(accum_dtype(scores))
        if self.form == "official":
            scores = scores - self._penalty((guide.shape[1], guide.shape[2]), scores.dtype)
        weights = jax.nn.softmax(scores, axis=-1)
        return fine_neighbour_attention(x, weights, scale=self.scale, kernel_size=self.kernel_size)

    def query_and_key(self, x: jax.Array, guide: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The query, and the key on the query's grid, before they are aligned."""
        query, source = (
            y.astype(self.dtype) if norm is None else normalise(norm, y, self.dtype)
            for y, norm in ((guide, self.norm_guide), (x, self.norm_x))
        )
        query = query if self.query is None else self.query(query)
        return query, resize(self.key(source), scale=self.scale, method="bilinear")

    def _penalty(self, size: Pair, dtype: Any) -> jax.Array:
        """1e7 for neighbours outside the HR image, [1, H, W, K*K]."""
        offsets = window_offsets(self.kernel_size)
        open_ = [inside(size, (dy * self.scale[0], dx * self.scale[1])) for dy, dx in offsets]
        return jnp.where(jnp.stack(open_, axis=-1), 0, 1e7).astype(dtype)[None]


def _input_norm(features: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """In 32 groups, or as many as divide the channels, or per channel."""
    return group_norm(features, features if features < 32 else math.gcd(32, features), rngs)


def _smooth(query: jax.Array) -> jax.Array:
    return gaussian_filter(query, sigma=1.0, radius=1)
