"""Segmenter (Strudel et al., ICCV 2021): its two decoders, and the head under which ReSFU compares upsamplers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_int, fail
from jaxup.models.backbones import BACKBONES, ViT
from jaxup.models.backbones.layers import NARROW, classifier, linear
from jaxup.models.backbones.vit import Block
from jaxup.models.segmentation.layers import check_rate
from jaxup.models.segmentation.upsampling import DIRECT, Build, Upsampling
from jaxup.nn import initializers
from jaxup.nn.norms import group_norm, layer_norm, normalise
from jaxup.ops.resize import resize
from jaxup.ops.windows import pad_window

DECODERS = ("fcn", "linear", "mask")
_NAMES = tuple(name for name, (kind, _) in BACKBONES.items() if kind is ViT)
_OFFICIAL: dict[str, Any] = dict(epsilon=1e-5, position_resize="bilinear")
_MMSEG: dict[str, Any] = dict(epsilon=1e-6, position_resize="bicubic", patch_bias=False)
_OPTIONS = {"dysample": dict(style="lp", dynamic_scope=True)}
_GUIDE = 32


class MaskDecoder(nnx.Module):
    """Patches and one token per class, two blocks of attention, and for each class the likeness of every patch to it.

        [p, c] = norm(blocks([project(x), classes])),   logits = norm_K(unit(p Wp) . unit(c Wc))

    with vectors of unit length and a layer normalisation over the K classes. With a source, entries of the attention's
    weights and outputs and of both layers of the MLP are dropped with probability `dropout`.

    `module(x, rngs)`: map [B, h, w, in_features] -> logits [B, h, w, num_classes].
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        features: int | None = None,
        depth: int = 2,
        num_heads: int | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.1,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        features = in_features if features is None else check_int("features", features)
        heads = max(1, features // 64) if num_heads is None else check_int("num_heads", num_heads)
        check_divides("num_heads", heads, "features", features)
        layer: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.dropout = check_rate("dropout", dropout)
        self.project = linear(in_features, features, **layer)
        self.classes = nnx.Param(NARROW(rngs.params(), (num_classes, features)))
        self.blocks = nnx.List(
            Block(features, heads, 4 * features, epsilon=1e-5, drop_path=drop_path, **layer) for _ in range(depth)
        )
        self.norm, self.mask_norm = layer_norm(features, rngs), layer_norm(num_classes, rngs)
        self.of_patches, self.of_classes = (
            nnx.Linear(features, features, use_bias=False, kernel_init=initializers.normal(features**-0.5), **layer)
            for _ in range(2)
        )
        self.dtype = dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        batch, height, width, features = x.shape
        tokens = self.project(x.reshape(batch, height * width, features))
        classes = self.classes[...].astype(tokens.dtype)[None]
        tokens = jnp.concatenate([tokens, jnp.zeros_like(tokens[:, :1]) + classes], axis=1)
        for block in self.blocks:
            tokens = block(tokens, rngs, drop=self.dropout)
        tokens = normalise(self.norm, tokens, self.dtype)
        patches = _unit(self.of_patches(tokens[:, : height * width]))
        masks = jnp.einsum("btc,bkc->btk", patches, _unit(self.of_classes(tokens[:, height * width :])))
        return normalise(self.mask_norm, masks, self.dtype).reshape(batch, height, width, classes.shape[1])


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(accum_dtype(x))
    unit: jax.Array = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return unit


class GuideBlock(nnx.Module):
    """The guide of an upsampler from the image itself: conv 3x3, group normalisation, ReLU, conv 3x3.

    Both convolutions have stride 2 and repeat the image's border; one group holds all channels.

    `module(x)`: image [B, H, W, in_features] -> [B, ceil(H / 4), ceil(W / 4), features].
    """

    def __init__(self, in_features: int = 3, features: int = _GUIDE, *, hidden: int = 64, dtype: Any, rngs: nnx.Rngs):
        init = initializers.lecun_normal()
        options: dict[str, Any] = dict(strides=2, padding="VALID", kernel_init=init, dtype=dtype, rngs=rngs)
        self.first = nnx.Conv(in_features, hidden, (3, 3), **options)
        self.norm = group_norm(hidden, 1, rngs)
        self.second = nnx.Conv(hidden, features, (3, 3), **options)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """The guide of x."""
        y = self.first(pad_window(x, (1, 1), "edge"))
        y = nnx.relu(normalise(self.norm, y, self.dtype))
        return self.second(pad_window(y, (1, 1), "edge")).astype(x.dtype)


class Segmenter(nnx.Module):
    """A Vision Transformer, and a decoder of its last map.

        "linear":  logits = linear(f)                                       official
        "mask":    logits = mask(f), see the paper's Sec. 3.2                official
        "fcn":     logits = conv1x1(f), or conv1x1(up(f; guide(x)))          mmsegmentation; ReSFU's experiments

    In ReSFU's experiments the map is brought from stride 16 to 4: by ReSFU, deconvolution or pixel shuffle directly, by
    most others in two x2 steps (see `Upsampling`). The guide is a `GuideBlock` of the image, halved by "area" for the
    first of two steps; upsamplers without a guide have no such block, and JBU and AnyUp take the image.

    The codes differ in the backbone, too. Backbones by name have for "linear" and "mask" norms of epsilon 1e-5 and
    bilinear position embeddings, for "fcn" 1e-6, bicubic ones, and no bias of the patches. timm's, with 1e-6 and
    antialiased ones, is `backbone=make_backbone("vit_s", image_size=..., rngs=rngs)`. Images are extended by zeros to a
    multiple of the patch, and the logits are those of the extended image: the official code enlarges them by the patch
    and cuts, mmsegmentation resizes them to the image; so do `whole` and `slide`, which `module.cell` tells.

    Parameters for 512 x 512 and 150 classes: with "fcn", S 22,040,982, L 304,302,230, and with ReSFU 64,626 and 86,386
    more; "linear" S 22,041,366; "mask" S 26,033,964.

    Args:
        num_classes: channels of the logits.
        in_features: channels of the image, for a backbone by name.
        backbone: "vit_ti", "vit_s", "vit_b" or "vit_l", or a `ViT`.
        decoder: "fcn", "linear" or "mask".
        upsampler: of the map before the classifier of "fcn", see `Upsampling`; None is none: logits at stride 16.
        image_size: for which there are position embeddings, for a backbone by name.
        drop_path: that of the last block, for a backbone by name.
        dropout: of entries in the blocks of "mask"; 0.1 as in the official code, whose backbone has none.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin] -> logits [B, ceil(H / 16), ceil(W / 16), num_classes], with an
        upsampler [B, ceil(H / 4), ceil(W / 4), num_classes], in the dtype of x. `module.outputs(x, rngs=None)`:
        {"logits", "features": the backbone's map, "tokens": its tokens, the class token first}. Only with `rngs`
        anything is dropped.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: Segmenter(150, backbone="vit_ti", upsampler="resfu", rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 70, 64, 3))).shape
        (1, 18, 16, 150)

    Reference:
        Strudel et al., Segmenter: Transformer for Semantic Segmentation, ICCV 2021; Zhou et al., A Refreshed
        Similarity-based Upsampler, 2024, Sec. 5.2.2. Official code: rstrudel/segmenter (MIT), mmsegmentation
        (Apache-2.0), zmhhmz/ReSFU (no licence file).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_features: int = 3,
        backbone: str | ViT = "vit_s",
        decoder: str = "fcn",
        upsampler: Build | None = None,
        image_size: int | Pair = 512,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_int("num_classes", num_classes)
        check_choice("decoder", decoder, DECODERS)
        if upsampler is not None and decoder != "fcn":
            fail("upsampler", f"None for the decoder {decoder!r}", repr(upsampler))
        layer: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        if isinstance(backbone, str):
            check_choice("backbone", backbone, _NAMES)
            options = {**BACKBONES[backbone][1], **layer, **(_MMSEG if decoder == "fcn" else _OFFICIAL)}
            check_rate("drop_path", drop_path)
            backbone = ViT(in_features, image_size=image_size, drop_path=drop_path, **options)
        self.backbone, features = backbone, backbone.features[-1]
        self.cell = None if decoder == "fcn" else backbone.patch_size
        self.up = None if upsampler is None else _upsampling(upsampler, backbone, layer)
        guided = self.up is not None and self.up.guided
        self.guide = GuideBlock(backbone.in_features, **layer) if guided else None
        self.decoder = _decoder(decoder, features, num_classes, check_rate("dropout", dropout), layer)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, and the backbone's map and tokens."""
        tokens, maps = self.backbone.encode(x, rngs=rngs)
        y = maps[-1] if self.up is None else self.up(maps[-1], self._guides(x), x)
        logits = self.decoder(y, rngs) if isinstance(self.decoder, MaskDecoder) else self.decoder(y)
        return {"logits": logits.astype(x.dtype), "features": maps[-1:], "tokens": tokens}

    def _guides(self, x: jax.Array) -> list[jax.Array]:
        """The guide at stride 4, 8, ...; where there is none, maps of these sizes."""
        strides = [4 * 2**n for n in range(self.backbone.patch_size.bit_length() - 3)]
        sizes = [(-(-x.shape[1] // stride), -(-x.shape[2] // stride)) for stride in strides]
        if self.guide is None:
            return [jnp.zeros((x.shape[0], *size, _GUIDE), x.dtype) for size in sizes]
        guide = self.guide(x)
        return [guide, *(resize(guide, size=size, method="area") for size in sizes[1:])]


def _upsampling(upsampler: Build, backbone: ViT, layer: dict[str, Any]) -> Upsampling:
    """From the stride of the patches to 4."""
    patch = backbone.patch_size
    if patch < 8 or patch.bit_count() > 1:
        fail("backbone", "patches of 8, 16, 32, ... pixels where there is an upsampler", patch)
    return Upsampling(
        upsampler,
        in_features=backbone.features[-1],
        guides=(_GUIDE,) * (patch.bit_length() - 3),
        scale=patch // 4,
        image_features=backbone.in_features,
        direct=(*DIRECT, "deconvolution", "pixel_shuffle"),
        options=_OPTIONS,
        **layer,
    )


def _decoder(name: str, features: int, classes: int, rate: float, layer: dict[str, Any]) -> nnx.Linear | MaskDecoder:
    if name == "mask":
        return MaskDecoder(features, classes, dropout=rate, **layer)
    return linear(features, classes, **layer) if name == "linear" else classifier(features, classes, **layer)
