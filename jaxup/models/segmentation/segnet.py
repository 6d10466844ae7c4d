"""SegNet (Badrinarayanan et al., TPAMI 2017): upsampling goes where pooling had its maxima."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int, fail
from jaxup.models.backbones import VGG
from jaxup.models.backbones.layers import ConvNorm, conv, through
from jaxup.models.resampling import RESAMPLINGS, Memory, Resampling
from jaxup.models.segmentation.upsampling import Build, Upsampling, extend

# Channels of each stage's convolutions, coarse to fine, in units of the first width; "original" mirrors the encoder,
# with the classifier as the last convolution.
DECODERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "original": ((8, 8, 8), (8, 8, 4), (4, 4, 2), (2, 1), (1,)),
    "reduce_first": ((8, 8, 8), (4, 4, 4), (2, 2, 2), (1, 1), (1, 1)),
}


class SegNet(nnx.Module):
    """SegNet: the convolutions of VGG-16 with five poolings, and a decoder of five upsamplings.

        encoder: 2 x conv(w), D, 2 x conv(2w), D, 3 x conv(4w), D, 3 x conv(8w), D, 3 x conv(8w), D
        decoder "original":     U, 8w 8w 8w, U, 8w 8w 4w, U, 4w 4w 2w, U, 2w w, U, w, conv3x3 to the classes
        decoder "reduce_first": U, 8w 8w 8w, U, 4w 4w 4w, U, 2w 2w 2w, U, w w,  U, w w, conv3x3 to the classes

    Every convolution is 3x3 with a bias, BatchNorm and ReLU; D is 2x2 max pooling and U its unpooling. "original"
    mirrors the encoder as the SegNet paper has it; "reduce_first" narrows at the first convolution of each stage, and
    is the one that has the numbers of parameters and multiply-adds of Index Networks' Table 8.

    Parameters with 37 classes: "original" 29,464,357, "reduce_first" 24,964,645, and those of the upsampler.

    A name of `RESAMPLINGS` exchanges D and U together; with other upsamplers D stays max pooling, and U is guided by
    the map before it. Max unpooling drops odd rows and columns in D and gives them back as zeros, as the published
    code does; all others have them extended in D, and cut again in U.

    Args:
        num_classes: channels of the logits.
        in_features: channels of the image.
        features: w.
        decoder: "original" or "reduce_first".
        upsampler: a key of `jaxup.models.resampling.RESAMPLINGS`, but "space-to-depth": "max-unpool", a family of index
            networks, "max-carafe", ...; a name of `nn.UPSAMPLERS`; or a function, see `Upsampling`.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin], of at least 32 pixels a side for max unpooling -> logits
        [B, H, W, num_classes] in the dtype of x; nothing is dropped by chance, and `rngs` has no effect.
        `module.outputs(x)`: {"logits", "features": the encoder's map and those of the decoder's stages but the last,
        at the strides 32, 16, 8, 4, 2}.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: SegNet(5, features=4, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 33, 64, 5)

    Reference:
        Badrinarayanan et al., SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation, TPAMI
        2017; Lu et al., Index Networks, TPAMI 2020, Sec. 6.3 and Table 8.
    """

    def __init__(
        self,
        num_classes: int,
        in_features: int = 3,
        *,
        features: int = 64,
        decoder: str = "original",
        upsampler: Build = "max-unpool",
        nonlinear: bool = False,
        context: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("decoder", decoder, DECODERS)
        f, options = check_int("features", features), dict[str, Any](dtype=dtype, rngs=rngs)
        self.encoder = VGG(in_features, widths=(f, 2 * f, 4 * f, 8 * f, 8 * f), **options)
        self.decoder: nnx.List[Any] = nnx.List()
        width = 8 * f
        for units in DECODERS[decoder]:
            stage = []
            for unit in units:
                stage.append(ConvNorm(width, unit * f, 3, use_bias=True, **options))
                width = unit * f
            self.decoder.append(nnx.List(stage))
        self.classifier = conv(width, check_int("num_classes", num_classes), 3, **options)
        method = upsampler if isinstance(upsampler, str) and upsampler in RESAMPLINGS else "max-unpool"
        self.pairs = upsampler == method
        if RESAMPLINGS[method].packed > 1:
            fail("upsampler", "a pair of stages that keeps the channels", repr(method))
        of_pairs: dict[str, Any] = dict(nonlinear=nonlinear, context=context)
        self.resampling = Resampling(method=method, features=self.encoder.features, **of_pairs, **options)
        self.upsamplers = nnx.List(
            Upsampling(upsampler, in_features=width, guides=(width,), scale=2, **options)
            for width in (() if self.pairs else self.encoder.features)
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, the encoder's last map and those of the decoder."""
        check_features("x", x, self.encoder.in_features)
        y, kept = x, []
        for i, layers in enumerate(self.encoder.stages):
            before = through(layers, y)
            y, memory = self.resampling.down(i, self._even(before))
            kept.append((before, memory))
        maps = [y]
        for i, layers in zip(reversed(range(len(kept))), self.decoder, strict=True):
            y = through(layers, self._enlarge(i, y, *kept[i]))
            maps.append(y)
        logits = self.classifier(y)
        return {"logits": logits.astype(x.dtype), "features": tuple(y.astype(x.dtype) for y in maps[:-1])}

    @property
    def _drops(self) -> bool:
        """Whether odd rows and columns are left out."""
        return self.pairs and self.resampling.method.endswith("max-unpool")

    def _even(self, x: jax.Array) -> jax.Array:
        """Sides that pooling halves."""
        odd = [side % 2 for side in x.shape[1:3]]
        if self._drops:
            return x[:, : x.shape[1] - odd[0], : x.shape[2] - odd[1]]
        return extend(x, odd)

    def _enlarge(self, stage: int, x: jax.Array, before: jax.Array, memory: Memory) -> jax.Array:
        """The size of the map before pooling."""
        if not self.pairs:
            y: jax.Array = self.upsamplers[stage](x, (before,))
            return y
        height, width = before.shape[1:3]
        y = self.resampling.up(stage, x, memory)[:, :height, :width]
        return jnp.pad(y, ((0, 0), (0, height - y.shape[1]), (0, width - y.shape[2]), (0, 0)))
