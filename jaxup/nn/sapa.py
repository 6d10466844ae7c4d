"""Similarity-aware point affiliation (Lu et al., SAPA, NeurIPS 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_choice, check_features, check_int, check_odd, check_shape, fail, pair
from jaxup.nn import initializers
from jaxup.nn.norms import layer_norm, normalise
from jaxup.ops.pointwise import pointwise_dot
from jaxup.ops.resize import resize
from jaxup.ops.similarity import similarity_scores, similarity_upsample
from jaxup.ops.softmax import softmax

SIMILARITIES = ("bilinear", "inner")
QUERIES = ("guide", "concat", "gate")


class SAPA(nnx.Module):
    """Similarity-aware point affiliation: every HR pixel joins the LR neighbours that its guide is most alike.

    With y' = LayerNorm(guide), x' = LayerNorm(x) and n over the K x K window around the source cell:

        q = Wq y' + bq,  k = Wk x' + bk,  v = x  (or Wv x' + bv)
        out[i, j] = sum_n softmax_n(q[i, j] . k_n) v_n          (`ops.similarity_upsample`)

    which is the bilinear similarity y'^T Wq^T Wk x' of rank E. The inner similarity has neither Wq nor Wk. Keys
    outside the image are zero and take a share of the weight. The query modes of the explorative variant are

        "guide":   q as above
        "concat":  q = Wq [y', nearest(x)] + bq
        "gate":    q = g (Wq y' + bq) + (1 - g) (Wr nearest(x) + br),   g = nearest(sigmoid(wg x' + bg))

    where x is not normalised. Linear maps of nearest(x) are computed on the LR grid.
    Parameters: (Cin + Cg + 2) E + 2 (Cin + Cg) for "guide" with biases. Multiply-adds per output pixel:
    Cg E + Cin E / s^2 + K^2 (E + Cin).

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide.
        out_features: Cout; None, or Cin without `value_projection`, keeps the channels of x.
        scale: integer upsampling factor, or a pair (vertical, horizontal).
        kernel_size: K, odd, on the LR grid.
        embedding_features: E, the channels of query and key; without meaning for the inner similarity.
        similarity: "bilinear" or "inner" (which needs Cin = Cg and the query mode "guide").
        query: "guide", "concat" or "gate".
        value_projection: project the values although Cout = Cin.
        use_bias: add biases to query, key and value.
        dtype: the type in which norms and projections compute; parameters are float32, scores never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> HR map [B, sy*h, sx*w, Cout] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = SAPA(16, 8, scale=2, embedding_features=4, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 16)), jnp.ones((1, 10, 12, 8))).shape
        (1, 10, 12, 16)

    Reference:
        Lu et al., SAPA: Similarity-Aware Point Affiliation for Feature Upsampling, NeurIPS 2022; Liu et al., On Point
        Affiliation in Feature Upsampling, 2023. Official code: poppinace/sapa (MIT), SAPA.py and SAPAExp.py.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        out_features: int | None = None,
        *,
        scale: int | Pair,
        kernel_size: int = 5,
        embedding_features: int = 64,
        similarity: str = "bilinear",
        query: str = "guide",
        value_projection: bool = False,
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        out_features = in_features if out_features is None else check_int("out_features", out_features)
        self.scale, self.kernel_size = pair("scale", scale), check_odd("kernel_size", kernel_size)
        check_choice("similarity", similarity, SIMILARITIES)
        check_choice("query", query, QUERIES)
        self.similarity, self.query_mode, self.dtype = similarity, query, dtype
        depth = check_int("embedding_features", embedding_features)

        def linear(inputs: int, outputs: int, bias: bool = use_bias) -> nnx.Linear:
            init = initializers.normal(0.02)
            options: Any = dict(kernel_init=init, dot_general=pointwise_dot, dtype=dtype, rngs=rngs)
            return nnx.Linear(inputs, outputs, use_bias=bias, **options)

        self.norm_guide = layer_norm(guide_features, rngs)
        self.norm_x = layer_norm(in_features, rngs)
        if similarity == "inner":
            if in_features != guide_features:
                fail("guide_features", f"in_features = {in_features} for the inner similarity", guide_features)
            if query != "guide":
                fail("query", "'guide' for the inner similarity", repr(query))
        else:
            self.query = linear(guide_features + (in_features if query == "concat" else 0), depth)
            self.key = linear(in_features, depth)
        if query == "gate":
            self.query_x = linear(in_features, depth)
            self.gate = linear(in_features, 1, bias=True)
        projected = value_projection or out_features != in_features
        self.value = linear(in_features, out_features) if projected else None

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        normed, query, key = self._compared(x, guide)
        value = x if self.value is None else self.value(normed)
        return similarity_upsample(query, key, value, scale=self.scale, kernel_size=self.kernel_size).astype(x.dtype)

    def kernels(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, K*K] with the sum 1, in float32 or more."""
        return softmax(self.scores(x, guide)["similarity"])

    def scores(self, x: jax.Array, guide: jax.Array) -> dict[str, jax.Array]:
        """How alike each pixel and the cells around it are, "similarity" [B, sy*h, sx*w, K*K]."""
        _, query, key = self._compared(x, guide)
        return {"similarity": similarity_scores(query, key, self.scale, self.kernel_size)}

    def _compared(self, x: jax.Array, guide: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The normalised x, query and key."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], self.scale[0] * x.shape[1], self.scale[1] * x.shape[2], None))
        normed, normed_guide = (normalise(n, y, self.dtype) for n, y in ((self.norm_x, x), (self.norm_guide, guide)))
        if self.similarity == "inner":
            return normed, normed_guide, normed
        return normed, self._query(x, normed, normed_guide), self.key(normed)

    def _query(self, x: jax.Array, normed: jax.Array, normed_guide: jax.Array) -> jax.Array:
        if self.query_mode == "guide":
            return self.query(normed_guide)
        if self.query_mode == "gate":
            gate = nnx.sigmoid(self.gate(normed))
            of_x, share = (resize(y, scale=self.scale, method="nearest") for y in ((1 - gate) * self.query_x(x), gate))
            return share * self.query(normed_guide) + of_x
        # concat: the rows of the kernel that meet x are applied before x is enlarged
        dtype = normed_guide.dtype
        kernel = self.query.kernel[...].astype(dtype)
        of_x = jnp.matmul(x.astype(dtype), kernel[self.guide_features :])
        of_guide = jnp.matmul(normed_guide, kernel[: self.guide_features])
        query = of_guide + resize(of_x, scale=self.scale, method="nearest")
        return query if self.query.bias is None else query + self.query.bias[...].astype(dtype)[None, None, None]
