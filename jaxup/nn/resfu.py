"""The refreshed similarity-based upsampler (Zhou et al., ReSFU, 2024); its similarity is in `pcdc`."""

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
    check_features,
    check_int,
    check_odd,
    check_shape,
    fail,
    pair,
)
from jaxup.nn import initializers
from jaxup.nn.norms import group_norm, normalise
from jaxup.nn.pcdc import InnerProducts, PCDCBlock
from jaxup.ops.filters import gaussian_filter, guided_filter
from jaxup.ops.fine import fine_neighbour_attention
from jaxup.ops.pointwise import pointwise_dot
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import resize
from jaxup.ops.softmax import softmax
from jaxup.ops.windows import inside, window_offsets

SIMILARITIES = ("pcdc", "inner", "conv")


class GuidedFilter(nnx.Module):
    """`ops.guided_filter` as a module: each channel of x filtered under its own channel of the guide, Eqs. 4 to 6."""

    def __init__(self, *, radius: int, eps: float, subsample: int = 1):
        self.radius, self.eps = check_int("radius", radius, minimum=0), eps
        self.subsample = check_int("subsample", subsample)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """The guide, brought as close to x as a linear function per window does."""
        return guided_filter(x, guide, radius=self.radius, eps=self.eps, per_channel=True, subsample=self.subsample)


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

    The ablations of the paper's Tables V to VII are options: one of the two scores alone (without the semantic ones
    there is no key), a query that is not aligned, a detail key that is not smooth, the similarity "inner", q . k, or
    "conv", a plain convolution of query and key in the place of the difference convolution (which groups it has is not
    printed; the number of parameters is), and neighbours among the cells of the LR key and value, which all pixels of a
    cell share, in the place of fine ones.
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
        semantic: have the scores of the aligned query and the key.
        detail: have the scores of the query and itself, smoothed.
        align: align the query with the key by the guided filter.
        smooth: smooth the key of the detail scores.
        similarity: "pcdc", "inner" or "conv".
        fine_neighbours: neighbours in the bilinearly upsampled key and value, or in the LR ones.
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
        >>> nnx.jit(up)(jnp.ones((1, 3, 2, 16)), jnp.ones((1, 12, 8, 8))).shape
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
        semantic: bool = True,
        detail: bool = True,
        align: bool = True,
        smooth: bool = True,
        similarity: str = "pcdc",
        fine_neighbours: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("similarity", similarity, SIMILARITIES)
        if not (semantic or detail):
            fail("semantic", "True where detail is False", semantic)
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.kernel_size = pair("scale", scale), check_odd("kernel_size", kernel_size)
        depth = check_int("embedding_features", embedding_features)
        if not project_guide and guide_features != depth:
            fail("guide_features", f"embedding_features = {depth} without a projection", guide_features)
        self.form, self.dtype, self.smooth, self.fine_neighbours = form, dtype, smooth, fine_neighbours
        init = initializers.normal(0.02)
        layer: dict[str, Any] = dict(kernel_init=init, dot_general=pointwise_dot, dtype=dtype, rngs=rngs)
        linear: Any = partial(nnx.Linear, use_bias=use_bias, **layer)
        self.norm_x = _input_norm(in_features, rngs) if norm_x and semantic else None
        self.norm_guide = _input_norm(guide_features, rngs) if norm_guide else None
        self.query = linear(guide_features, depth) if project_guide else None
        self.key = linear(in_features, depth) if semantic else None
        self.align = GuidedFilter(radius=radius, eps=eps, subsample=subsample) if align and semantic else None
        block: Any = partial(InnerProducts, dilation=self.scale, kernel_size=kernel_size)
        if similarity != "inner":
            window: dict[str, Any] = dict(
                dilation=self.scale, kernel_size=kernel_size, groups=groups, norm_groups=norm_groups
            )
            block = partial(PCDCBlock, depth, **window, form=form, paired=similarity == "pcdc", dtype=dtype, rngs=rngs)
        self.semantic_scores, self.detail_scores = (block() if wanted else None for wanted in (semantic, detail))

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        weights = self.kernels(x, guide)
        if self.fine_neighbours:
            return fine_neighbour_attention(x, weights, scale=self.scale, kernel_size=self.kernel_size)
        return reassemble(x, weights, scale=self.scale, kernel_size=self.kernel_size, border="edge")

    def kernels(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, K*K] with the sum 1, in float32 or more."""
        first, *others = self.scores(x, guide).values()
        total = sum(others, first)
        scores = total.astype(accum_dtype(total))
        if self.form == "official":
            scores = scores - self._penalty((guide.shape[1], guide.shape[2]), scores.dtype)
        return softmax(scores)

    def scores(self, x: jax.Array, guide: jax.Array) -> dict[str, jax.Array]:
        """How alike each pixel and its neighbours are, "semantic" and "detail", [B, sy*h, sx*w, K*K] each."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], self.scale[0] * x.shape[1], self.scale[1] * x.shape[2], None))
        query, scores = self._query(guide), {}
        if self.semantic_scores is not None:
            cells = self._key(x)
            key = resize(cells, scale=self.scale, method="bilinear")
            aligned = query if self.align is None else self.align(key, query)
            # The K x K cells around that of a pixel are fine neighbours, as far apart as the scale, of a map of blocks.
            seen = key if self.fine_neighbours else resize(cells, scale=self.scale, method="nearest")
            scores["semantic"] = self.semantic_scores(seen, aligned)
        if self.detail_scores is not None:
            scores["detail"] = self.detail_scores(_smooth(query) if self.smooth else query, query)
        return scores

    def query_and_key(self, x: jax.Array, guide: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The query, and the key on the query's grid, before they are aligned."""
        return self._query(guide), resize(self._key(x), scale=self.scale, method="bilinear")

    def _query(self, guide: jax.Array) -> jax.Array:
        query = self._normed(self.norm_guide, guide)
        return query if self.query is None else self.query(query)

    def _key(self, x: jax.Array) -> jax.Array:
        """On the LR grid."""
        if self.key is None:
            fail("semantic", "True, for a key", False)
        key: jax.Array = self.key(self._normed(self.norm_x, x))
        return key

    def _normed(self, norm: nnx.GroupNorm | None, x: jax.Array) -> jax.Array:
        return x.astype(self.dtype) if norm is None else normalise(norm, x, self.dtype)

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
