"""MaskFormer (Cheng et al., NeurIPS 2021): a set of masks, each with a class."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import accum_dtype, check_int, check_shape
from jaxup.models.segmentation.heads import Backbone, build_backbone, run_backbone
from jaxup.models.segmentation.layers import check_rate
from jaxup.models.segmentation.maskformer_pixels import PixelDecoder
from jaxup.models.segmentation.maskformer_transformer import QueryDecoder, linear


class MaskFormer(nnx.Module):
    """MaskFormer: N queries, each with a class (or none) and with a mask, which is a product with embeddings of pixels.

        maps = backbone(x);  q = queries that looked at the coarsest map;  E = pixels(maps)
        class_logits = q W + b,    mask_logits(p) = <MLP(q), E(p)>
        logits(p)_c = sum over queries of  softmax(class_logits)_c sigmoid(mask_logits(p))

    The pixel decoder is a pyramid: y = relu(norm(conv3x3(coarsest map))), then for each finer map, of which l is
    norm(conv1x1(map)), y = relu(norm(conv3x3(l + up(y)))), at the end conv3x3; norms are in 32 groups. The queries pass
    layers of attention among each other, attention to the coarsest map, and MLP (`QueryDecoder`).

    The upsampler stands in the three places `up`, each of ratio 2 and with l as the guide. "resfu" is guided by the
    finest l alone, as ReSFU's Fig. 15 has it, and upsamples directly. How the sum over levels then goes is not printed;
    here each level without those above it, relu(norm(conv3x3(l))), comes to the finest size by its own ratio 8, 4 or 2,
    and relu(norm(conv3x3(.))) follows their sum with the finest l. It has as many parameters as with ratios of 2.

    Parameters of 150 classes: with windows of 12, Swin-B 101,829,391 and Swin-L 211,575,627; ResNet-50 41,307,863.

    Args:
        num_classes: without the class "none".
        backbone: a name of `make_backbone`, a backbone, or a function `(dtype=, rngs=)` that builds one. Its last four
            maps count.
        features: channels of the queries.
        pyramid_features: channels inside the pixel decoder.
        mask_features: channels of the embeddings.
        num_queries: N.
        layers: of the decoder of queries.
        num_heads: of its attention.
        hidden_features: inside its MLPs.
        dropout: the probability with which training drops entries of the branches of that decoder.
        upsampler: a name of `UPSAMPLERS`, or a function; see `Upsampling`.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), num_classes], `semantic` of its outputs, in the
        dtype of x. `module.outputs(x)` has all of them. Both drop in training if given a source, `rngs=rngs`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, 3].

    Example:
        >>> run = lambda x: MaskFormer(5, backbone="resnet18", layers=1, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 9, 16, 5)

    Reference:
        Cheng et al., Per-Pixel Classification is Not All You Need for Semantic Segmentation, NeurIPS 2021, in the form
        of Hugging Face transformers (Apache-2.0). ReSFU: Zhou et al., 2024, Sec. 5.2.4.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "swin_t",
        features: int = 256,
        pyramid_features: int = 256,
        mask_features: int = 256,
        num_queries: int = 100,
        layers: int = 6,
        num_heads: int = 8,
        hidden_features: int = 2048,
        dropout: float = 0.1,
        upsampler: Any = "nearest",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.backbone = build_backbone(backbone, **options)
        self.num_classes, self.dtype = check_int("num_classes", num_classes), dtype
        widths = self.backbone.features[-4:]
        self.pixels = PixelDecoder(
            widths,
            pyramid_features,
            mask_features,
            image_features=self.backbone.in_features,
            upsampler=upsampler,
            **options,
        )
        self.decoder = QueryDecoder(
            widths[-1],
            features,
            queries=num_queries,
            layers=layers,
            heads=num_heads,
            hidden=hidden_features,
            drop=check_rate("dropout", dropout),
            **options,
        )
        self.classify = linear(features, num_classes + 1, **options)
        outs = (features, features, mask_features)
        self.embed = nnx.List(linear(features, n, **options) for n in outs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The sum of masks of each class."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """All that there is to see.

        Args:
            x: image [B, H, W, 3].
            rngs: of dropout and dropped paths, or None.

        Returns:
            "class_logits" [B, N, num_classes + 1], the last for "none"; "mask_logits" [B, h, w, N]; "logits", the
            `semantic` of both; "features", the four maps of the backbone; "pixels", the embeddings [B, h, w, E];
            "queries" [B, N, features]; and "layers": class and mask logits after each of the earlier layers of the
            decoder, to each of which training gives the loss, too.
        """
        maps = run_backbone(self.backbone, x, rngs)[-4:]
        pixels = self.pixels(maps, x)
        *earlier, queries = self.decoder(maps[-1], rngs=rngs)
        heads = self._heads(queries, pixels, x.dtype)
        return {
            **heads,
            "logits": semantic(**heads),
            "features": maps,
            "pixels": pixels.astype(x.dtype),
            "queries": queries.astype(x.dtype),
            "layers": tuple(self._heads(y, pixels, x.dtype) for y in earlier),
        }

    def _heads(self, queries: jax.Array, pixels: jax.Array, dtype: Any) -> dict[str, jax.Array]:
        y = queries
        for i, layer in enumerate(self.embed):
            y = layer(nnx.relu(y) if i else y)
        masks = jnp.einsum("bqc,bhwc->bhwq", y, pixels)
        return {"class_logits": self.classify(queries).astype(dtype), "mask_logits": masks.astype(dtype)}


def semantic(class_logits: jax.Array, mask_logits: jax.Array) -> jax.Array:
    """How much each class has of each pixel: the masks' probabilities, weighted with those of their classes.

        y(p)_c = sum over queries of  softmax(class_logits)_c sigmoid(mask_logits(p))

    Args:
        class_logits: [B, N, C + 1], the last for "none".
        mask_logits: [B, h, w, N].

    Returns:
        [B, h, w, C], not negative, in the dtype of the mask logits.

    Raises:
        ValueError: arrays whose shapes do not fit.

    Example:
        >>> semantic(jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 5, 4))).shape
        (1, 3, 5, 1)

    Reference:
        Cheng et al., Per-Pixel Classification is Not All You Need for Semantic Segmentation, NeurIPS 2021, Sec. 3.4.
    """
    check_shape("class_logits", class_logits, (None, None, None))
    check_shape("mask_logits", mask_logits, (class_logits.shape[0], None, None, class_logits.shape[1]))
    dtype = accum_dtype(class_logits, mask_logits)
    weights = jax.nn.softmax(class_logits.astype(dtype), axis=-1)[..., :-1]
    shares = jax.nn.sigmoid(mask_logits.astype(dtype))
    return jnp.einsum("bqc,bhwq->bhwc", weights, shares).astype(mask_logits.dtype)
