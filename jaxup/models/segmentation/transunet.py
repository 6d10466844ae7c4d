"""TransUNet (Chen et al., 2021): a U-shaped network whose lowest level is a transformer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_divides, check_features, check_image, check_int, fail
from jaxup.models.backbones.layers import ConvNorm, conv
from jaxup.models.segmentation.layers import check_rate
from jaxup.models.segmentation.transunet_encoder import HybridResNet, Transformer
from jaxup.models.segmentation.upsampling import Upsampling
from jaxup.ops.resize import resize

_STRIDE = 16
_HEAD_FEATURES = 512  # between the transformer and the decoder


class _Block(nnx.Module):
    """Two convolutions of a map and, where there is one, of the map beside it."""

    def __init__(self, inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.convs = nnx.List([ConvNorm(inputs, outputs, 3, **options), ConvNorm(outputs, outputs, 3, **options)])

    def __call__(self, x: jax.Array, skip: jax.Array | None) -> jax.Array:
        x = x if skip is None else jnp.concatenate([x, skip.astype(x.dtype)], axis=3)
        return self.convs[1](self.convs[0](x))


class TransUNet(nnx.Module):
    """TransUNet: ResNet, a transformer on its pixels at stride 16, and a decoder with skip connections.

        m_2, m_4, m_8, m_16 = resnet(x);  y = conv(transformer(m_16))
        y = convs([up(y), m_s])  for s = 8, 4, 2;  y = convs(up(y));  logits = conv3x3(y)

    The ResNet has group normalisation and convolutions by standardised weights; convolutions of the decoder are 3x3
    with BatchNorm and ReLU. Images of one channel are repeated to three. Sides that are no multiples of 16 are extended
    by zeros at the bottom and on the right, and the logits cut; other grids than that of `image_size` have resized
    position embeddings. (The official code takes squares of `image_size` only.)

    The upsampler stands in the first three places `up`, with m_8, m_4 and m_2 as guides; "resfu" has m_2 as the guide
    of all three, as ReSFU's Fig. 18 has it, here reduced to the size of each result by averages. The last one, behind
    which there is no map at its size, is always bilinear. "bilinear" puts the corner pixels on each other
    (align_corners), as the official code does.

    Parameters (R50-ViT-B/16) of 9 classes at 224 x 224: 105,277,081.

    Args:
        num_classes: channels of the logits.
        image_size: for which there are position embeddings; a multiple of 16.
        resnet_width: channels of the stem; the three stages have 4, 8 and 16 times as many.
        resnet_depths: blocks of the stages.
        features: channels of the tokens.
        depth: blocks of the transformer.
        num_heads: of its attention.
        hidden_features: inside its MLPs.
        decoder_features: of the four blocks of the decoder.
        skips: how many of them have a map of the ResNet beside theirs, 0 to 3.
        dropout: the probability with which training drops entries in the transformer.
        upsampler: a name of `UPSAMPLERS`, or a function; see `Upsampling`.
        dtype: the type in which layers compute; parameters are float32, and so are norms and softmax.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, 3] or [B, H, W, 1] -> logits [B, H, W, num_classes], in the dtype of x.
        `module.outputs(x)` has more. Both drop in training if given a source, `rngs=rngs`.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, 3] or [B, H, W, 1].

    Example:
        >>> run = lambda x: TransUNet(5, image_size=32, resnet_depths=(1, 1, 1), depth=1, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 32, 32, 1))).shape
        (1, 32, 32, 5)

    Reference:
        Chen et al., TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation, 2021. Official code:
        Beckschen/TransUNet (Apache-2.0). ReSFU: Zhou et al., 2024, Sec. 5.4.1.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int = 224,
        resnet_width: int = 64,
        resnet_depths: Sequence[int] = (3, 4, 9),
        features: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden_features: int = 3072,
        decoder_features: Sequence[int] = (256, 128, 64, 16),
        skips: int = 3,
        dropout: float = 0.1,
        upsampler: Any = "bilinear",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.num_classes = check_int("num_classes", num_classes)
        check_divides("num_heads", num_heads, "features", features)
        check_divides("image_size", _STRIDE, "the stride", check_int("image_size", image_size))
        if len(resnet_depths) != 3:
            fail("resnet_depths", "three numbers of blocks", resnet_depths)
        if len(decoder_features) != 4:
            fail("decoder_features", "four widths", decoder_features)
        if check_int("skips", skips, 0) > 3:
            fail("skips", "0 to 3", skips)
        self.resnet = HybridResNet(3, check_int("resnet_width", resnet_width), resnet_depths, **options)
        *guides, deepest = self.resnet.features
        guides = guides[::-1]
        self.transformer = Transformer(
            deepest,
            features,
            grid=(image_size // _STRIDE,) * 2,
            depth=check_int("depth", depth),
            heads=num_heads,
            hidden=hidden_features,
            drop=check_rate("dropout", dropout),
            **options,
        )
        self.widen = ConvNorm(features, _HEAD_FEATURES, 3, **options)
        inputs = (_HEAD_FEATURES, *decoder_features[:-1])
        beside = [width if i < skips else 0 for i, width in enumerate((*guides, 0))]
        self.blocks = nnx.List(
            _Block(n + extra, outputs, **options)
            for n, extra, outputs in zip(inputs, beside, decoder_features, strict=True)
        )
        self.skips, self.finest = skips, upsampler == "resfu"
        finest = guides[-1:] * 3 if self.finest else guides
        self.ups = nnx.List(
            Upsampling(upsampler, in_features=n, guides=(guide,), scale=2, image_features=3, **options)
            for n, guide in zip(inputs, () if upsampler == "bilinear" else finest, strict=False)
        )
        self.head = conv(decoder_features[-1], num_classes, 3, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """All that there is to see.

        Args:
            x: image [B, H, W, 3] or [B, H, W, 1].
            rngs: of dropout, or None.

        Returns:
            "logits" [B, H, W, num_classes]; "features", the maps m_8, m_4, m_2 of the ResNet; and "tokens" of the
            transformer, [B, h w, features].
        """
        check_image("x", x)
        height, width = x.shape[1:3]
        y = jnp.concatenate([x] * 3, axis=3) if x.shape[3] == 1 else x
        check_features("x", y, 3)
        margins = [(0, -n % _STRIDE) for n in (height, width)]
        image = jnp.pad(y, ((0, 0), *margins, (0, 0)))
        *skips, y = self.resnet(image)
        skips = skips[::-1]
        tokens = self.transformer(y, rngs=rngs)
        y = self.widen(tokens)
        for i, block in enumerate(self.blocks):
            y = block(self._enlarge(y, skips, image, i), skips[i] if i < self.skips else None)
        return {
            "logits": self.head(y)[:, :height, :width].astype(x.dtype),
            "features": tuple(skip.astype(x.dtype) for skip in skips),
            "tokens": tokens.reshape(x.shape[0], -1, tokens.shape[3]).astype(x.dtype),
        }

    def _enlarge(self, y: jax.Array, skips: Sequence[jax.Array], image: jax.Array, i: int) -> jax.Array:
        """The map in front of block i, twice as large."""
        if i >= len(self.ups):
            return resize(y, scale=2, method="bilinear", align_corners=True)
        guide = resize(skips[-1], size=skips[i].shape[1:3], method="area") if self.finest else skips[i]
        enlarged: jax.Array = self.ups[i](y, [guide], image)
        return enlarged
