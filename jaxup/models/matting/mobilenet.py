"""The encoder-decoder of Index Networks for matting (Lu et al., TPAMI 2020): MobileNetV2 that pools between stages."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_odd
from jaxup.models.backbones.layers import dilated, through
from jaxup.models.matting.layers import ENCODERS, Prediction, context_block, make_encoder, pointwise
from jaxup.models.resampling import RESAMPLINGS, Memory, Resampling
from jaxup.models.segmentation.upsampling import extend
from jaxup.nn.aspp import ASPP, conv_block
from jaxup.nn.indexnet import FAMILIES, OFFICIAL_INIT, official_options

FUSIONS = ("none", "skip", "concat")
FORMS = ("paper", "official")


class MattingNetwork(nnx.Module):
    """Matting on MobileNetV2: stages without strides, pooling between them, and a decoder that mirrors them.

        encoder, i = 0 .. 7:  l_i = layer_i(x_i);    x_{i+1} = D(l_i) where the stage had a stride, else l_i
        context:              y = ASPP(l_7), or relu6(norm(conv1x1(l_7)))
        decoder, i = 6 .. 0:  y = block_i(fuse(U(y), l_i)),    fuse: y, y + l_i or [y, l_i]
        alpha = conv(block(y))

    A block is a convolution, norm and ReLU6. D and U are a pair of stages of `jaxup.models.resampling`, after the
    layers 0, 2, 3, 4 and 6, with 32, 24, 32, 64 and 160 channels: max pooling and unpooling, index networks, CARAFE ...
    Where index networks pool, l_i is fused as they weighted it. With an output stride of 16 or 8 the last one or two
    pairs are left out, and the stages behind them are dilated.

    The rows of Tables 4 and 5 by name: `make_matting_network`. Parameters of B11, with max unpooling, concatenation and
    ASPP: 3,753,259; without ASPP, B10, 3,176,939. Multiply-adds of B11 for 224 x 224 pixels: 4.08 G (1 G = 2^30). A
    multiplier of 1.4 makes 7.25 M and 7.67 G of them, as in the official code, where the table has 8.86 M and 7.61 G.

    In the paper the norms of the encoder are fixed: call `network.encoder.eval()` after `network.train()`. The official
    code means the same, but its training loop undoes it.

    Args:
        in_features: channels of the image and its trimap.
        upsampler: D and U, a key of `jaxup.models.resampling.RESAMPLINGS`, but "space-to-depth".
        fusion: "none" (SegNet), "skip" (sum) or "concat" (U-Net).
        aspp: spatial pyramid pooling.
        output_stride: of the last map: 8, 16 or 32.
        multiplier: of all widths.
        kernel_size: of the decoder, odd.
        separable: depthwise and pointwise convolutions in the decoder.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        encoder_normalization: of index networks.
        decoder_normalization: of index networks.
        form: of index networks: "paper", or "official", where depthwise ones have half the hidden maps, the activation
            is ReLU6, and kernels start as in the official code. Other stages are the same.
        backbone: "mobilenet_v2", or "efficientnet_lite0", which has other widths and some larger filters.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: normalised image and trimap [B, H, W, Cin] of any size -> alpha [B, H, W, 1], not cut to
        [0, 1], in the dtype of x; in training mode ASPP drops half of its outputs, with a source `rngs`.
        `module.outputs(x, rngs=None)`: {"alpha", "memories": what each D keeps for its U, fine to coarse: of index
        networks the index maps (encoder, decoder)}. Maps with odd sides are extended by copies of their last row or
        column before D, and cut after U.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> network = nnx.eval_shape(lambda: MattingNetwork(upsampler="holistic", multiplier=0.25, rngs=nnx.Rngs(0)))
        >>> nnx.eval_shape(MattingNetwork.__call__, network, jnp.ones((1, 33, 64, 4))).shape
        (1, 33, 64, 1)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 6.1, Fig. 9, Tables 4 to 6. Official code:
        poppinace/indexnet_matting (non-commercial), hlmobilenetv2.py.
    """

    def __init__(
        self,
        in_features: int = 4,
        *,
        upsampler: str = "max-unpool",
        fusion: str = "concat",
        aspp: bool = True,
        output_stride: int = 32,
        multiplier: float = 1.0,
        kernel_size: int = 5,
        separable: bool = False,
        nonlinear: bool = False,
        context: bool = False,
        encoder_normalization: str = "sigmoid+softmax",
        decoder_normalization: str = "sigmoid",
        form: str = "paper",
        backbone: str = "mobilenet_v2",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("fusion", fusion, FUSIONS)
        check_choice("form", form, FORMS)
        check_choice("upsampler", upsampler, [name for name, stage in RESAMPLINGS.items() if stage.packed == 1])
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        sizes: dict[str, Any] = dict(output_stride=output_stride, multiplier=multiplier)
        family = upsampler.removesuffix("-bilinear")
        official = form == "official" and family in FAMILIES
        self.fusion = fusion
        self.encoder = make_encoder(in_features, backbone=backbone, strided=False, **sizes, **options)
        widths = self.encoder.features
        self.pooled = _pooled(backbone, output_stride)
        self.resampling = Resampling(
            method=upsampler,
            features=[widths[i] for i in self.pooled],
            nonlinear=nonlinear,
            context=context,
            encoder_normalization=encoder_normalization,
            decoder_normalization=decoder_normalization,
            layer_options=dict(official_options(family), kernel_init=OFFICIAL_INIT) if official else None,
            **options,
        )
        last, before = widths[-1], widths[-2]
        self.context = context_block(last, before, **sizes, **options) if aspp else pointwise(last, before, **options)
        size = check_odd("kernel_size", kernel_size)
        fused = 2 if fusion == "concat" else 1
        self.decoder = nnx.List(
            conv_block(fused * inputs, outputs, size, separable=separable, kernel_init=OFFICIAL_INIT, **options)
            for inputs, outputs in zip(widths[-2::-1], (*widths[-3::-1], widths[0]), strict=True)
        )
        self.predict = Prediction(widths[0], size, separable=separable, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Alpha of x."""
        alpha: jax.Array = self.outputs(x, rngs)["alpha"]
        return alpha

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Alpha, and what pooling kept."""
        check_features("x", x, self.encoder.in_features)
        y, skips, memories = self._encode(x)
        y = self.context(y, rngs=rngs) if isinstance(self.context, ASPP) else through(self.context, y)
        for block, layer in zip(self.decoder, reversed(range(len(skips))), strict=True):
            if layer in self.pooled:
                stage, (height, width) = self.pooled.index(layer), skips[layer].shape[1:3]
                y = self.resampling.up(stage, y, memories[stage])[:, :height, :width]
            y = through(block, self._fuse(y, skips[layer]))
        return {"alpha": self.predict(y).astype(x.dtype), "memories": tuple(memories)}

    def _encode(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array], list[Memory]]:
        """The last layer's map, those of the others as they are fused, and what pooling kept."""
        blocks = [self.encoder.stem, *self.encoder.blocks]
        y, skips, memories = x, list[jax.Array](), list[Memory]()
        starts = (0, *(end + 1 for end in self.encoder.taps))
        for layer, (start, end) in enumerate(zip(starts, self.encoder.taps, strict=False)):
            y = through(blocks[start : end + 1], y)
            skip = y
            if layer in self.pooled:
                height, width = y.shape[1:3]
                even = extend(y, (height % 2, width % 2))
                y, memory = self.resampling.down(len(memories), even)
                memories.append(memory)
                if RESAMPLINGS[self.resampling.method].indices:
                    skip = (memory.encoder * even)[:, :height, :width]
            skips.append(skip)
        return y, skips[:-1], memories

    def _fuse(self, y: jax.Array, skip: jax.Array) -> jax.Array:
        if self.fusion == "concat":
            return jnp.concatenate([y, skip], axis=3)
        return y + skip if self.fusion == "skip" else y


def _pooled(backbone: str, output_stride: int) -> Sequence[int]:
    """The layers that are pooled: the first convolution and the stages that had a stride, up to the output stride."""
    stages = dilated([stride for *_, stride, _ in ENCODERS[backbone]["stages"]], output_stride, start=2)
    return (0, *(i for i, (stride, _, _) in enumerate(stages, start=1) if stride > 1))
