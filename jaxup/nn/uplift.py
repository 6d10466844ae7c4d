"""Upsampling of features by doublings under an image, each an average of few neighbours (UPLiFT)."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, check_features, check_int, check_known_size, check_shape, pair
from jaxup.nn.uplift_layers import (
    Doubling,
    Group,
    ImageEncoder,
    LocalAttender,
    Noise,
    Rows,
    conv,
    resampled,
    trimmed_sum,
)
from jaxup.nn.uplift_strips import in_strips, upsample
from jaxup.nn.upsampler import output_size
from jaxup.ops.resize import resize

_NO_DOWN = {"down_op": "none"}


def _single(width: int) -> dict[str, Any]:
    return {"block": "SingleConv", "norm": "batch", "hc": (width,)}


_DOUBLE = {"block": "DoubleConv", "norm": "batch", "hc": (64,)}
ENCODER: Mapping[str, Any] = MappingProxyType(
    {"down_steps": 4, "block_0": _single(16)}
    | {f"down_{k}": _NO_DOWN for k in range(1, 5)}
    | {f"block_{k}": _single(width) for k, width in enumerate((32, 64, 128, 128), 1)}
)
DECODER: Mapping[str, Any] = MappingProxyType(
    {
        "enc_resample": "nearest",
        "block_0": _DOUBLE,
        "up_1": {"up_op": "tconv", "residual": "bilinear"},
        "block_1": _DOUBLE,
    }
)
_WITH_GRID = 14  # a patch of 14 pixels is taken as 16, so that four doublings are the image


class UPLiFT(nnx.Module):
    """Doubling after doubling, each pixel an average of neighbours by scores from the image and the features.

        e = encode(image)                                             once
        g = double(block([x, e[-1]])),  g = block([g, e[-2]])         maps of e resampled to the grids
        x <- sum_n softmax_n(conv1x1(g) + g[:n]) x[cell + offset_n]   so often

    Features are averaged, never projected: they stay what the encoder's were. All doublings share their parameters, and
    work and memory are linear in the pixels; large images are computed by strips of rows, where the configuration is
    the released one, in evaluation. An official configuration may have more: strided encoders, a head instead of
    averages, layer norms, noise beside the maps, and convolutions behind each step ("refiner").
    Parameters at the defaults: 789,521. Multiply-adds: 0.28 M per image pixel, 0.24 M + 17 C per pixel of each step.

    Args:
        in_features: C.
        guide_features: channels of the image.
        scale: the factor of the default output size, an integer or a pair (vertical, horizontal); None: that of the
            image.
        neighbours: cells of the average, 5, 9, 13, 17 or 25; None: a 1 x 1 convolution in its place.
        patch_size: of the features' encoder; for 14 the image is first enlarged by 16 / 14.
        share_encoder: whether the image is encoded once, or enlarged and encoded for each step.
        encoder: configuration of the image encoder in its official form; None is the released one.
        decoder: of the decoder.
        refiner: of the convolutions behind each step, or None.
        steps: doublings, if they do not follow from the size.
        dtype: the type in which layers compute; parameters are float32, softmax and sums never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide, size=None)`: features [B, h, w, C], image [B, H, W, guide_features], normalised as the
        encoder's -> [B, *size, C] in the dtype of x; the default size is `scale` times that of x, or the image's. The
        last map is resized to it, with antialiasing. `module.doublings(x, guide, count)` are the maps of all steps.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> up = UPLiFT(7, rngs=nnx.Rngs(0))
        >>> nnx.jit(lambda up, *maps: up(*maps))(up, jnp.ones((1, 4, 3, 7)), jnp.ones((1, 16, 12, 3))).shape
        (1, 16, 12, 7)

    Reference:
        Walmer et al., UPLiFT: Efficient Pixel-Dense Feature Upsampling with Local Attenders, 2026. Official code:
        mwalmer-umd/UPLiFT (MIT).
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int = 3,
        *,
        scale: int | Pair | None = None,
        neighbours: int | None = 17,
        patch_size: int = 16,
        share_encoder: bool = True,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        refiner: Mapping[str, Any] | None = None,
        steps: int | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale, self.steps = None if scale is None else pair("scale", scale), steps
        self.patch_size, self.share_encoder = check_int("patch_size", patch_size), share_encoder
        self.dtype = dtype
        layer: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        decoder = DECODER if decoder is None else decoder
        self.encoder = ImageEncoder(guide_features, ENCODER if encoder is None else encoder, **layer)
        *_, before, last = self.encoder.features
        self.noise, self.resample = _noise(decoder), decoder["enc_resample"]
        extra = self.noise[0]
        self.coarse = Group(in_features + last + extra, decoder["block_0"], **layer)
        self.double = Doubling(self.coarse.features, decoder["up_1"], **layer)
        self.fine = Group(self.coarse.features + before + extra, decoder["block_1"], **layer)
        width = self.fine.features
        self.attender = None if neighbours is None else LocalAttender(width, neighbours, **layer)
        self.head = conv(width, in_features, 1, **layer) if neighbours is None else None
        seen = 0 if refiner is None else self.encoder.features[refiner["ref_con"]]
        self.refiner_noise = _noise(refiner or {})
        self.refiner_map: Any = (refiner or {}).get("ref_con")
        self.refiner_resample: Any = (refiner or {}).get("enc_resample")
        width = in_features + seen + self.refiner_noise[0]
        self.refiner = None if refiner is None else Group(width, refiner["block_0"], **layer)
        self.refined = None if self.refiner is None else conv(self.refiner.features, in_features, 1, **layer)

    def __call__(
        self, x: jax.Array, guide: jax.Array, *, size: int | Pair | None = None, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Enlarge the features x under an image; `rngs`: of noise, where a configuration has some."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        output = output_size(x, guide, self.scale, size)
        check_known_size("x", x)
        ratio = max(n / m for n, m in zip(output, x.shape[1:3], strict=True))
        count = max(1, math.ceil(math.log2(ratio))) if self.steps is None else self.steps
        image = self._image(guide)
        if in_strips(self, x, image, count):
            return upsample(self, x, image, count, output)
        y = self.doublings(x, guide, count, rngs=rngs)[-1]
        return y if y.shape[1:3] == output else resize(y, size=output, method="bilinear", antialias=True)

    def doublings(
        self,
        x: jax.Array,
        guide: jax.Array,
        count: int,
        *,
        noise: Sequence[jax.Array] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> list[jax.Array]:
        """The maps [B, 2^i h, 2^i w, C] of steps i = 1 .. count, in the dtype of x; `noise` in the place of `rngs`."""
        image, draws = self._image(guide), Noise(noise, rngs)
        maps, outputs = self.encoder(image) if self.share_encoder else [], []
        y = x
        for i in range(count):
            if not self.share_encoder:
                maps = self.encoder(resize(image, scale=2**i, method="bilinear"))
            y = self.step(y.astype(self.dtype), maps, draws).astype(x.dtype)
            outputs.append(y)
        return outputs

    def _image(self, guide: jax.Array) -> jax.Array:
        """As the encoder sees it."""
        image = guide.astype(self.dtype)
        if self.patch_size == _WITH_GRID:
            height, width = (n * 16 // _WITH_GRID for n in guide.shape[1:3])
            image = resize(image, size=(max(1, height), max(1, width)), method="bilinear")
        return image

    def step(self, x: jax.Array, maps: list[jax.Array], draws: Noise, *, rows: Rows | None = None) -> jax.Array:
        """One doubling; x may be some rows, `rows` the first of them and the height of their map."""
        at = resampled[self.resample]
        y = self.coarse(draws.beside([x, at(maps[-1], size=x.shape[1:3])], self.noise))
        y = self.double(y, rows)
        y = self.fine(draws.beside([y, at(maps[-2], size=y.shape[1:3])], self.noise))
        if self.attender is not None:
            y = self.attender(y, x)
        elif self.head is not None:
            y = trimmed_sum(y, self.head(y))
        if self.refiner is not None and self.refined is not None:
            seen = resampled[self.refiner_resample](maps[self.refiner_map], size=y.shape[1:3])
            y = self.refiner(draws.beside([y.astype(self.dtype), seen], self.refiner_noise))
            y = self.refined(y)
        return y


def _noise(config: Mapping[str, Any]) -> tuple[int, float]:
    """Channels of noise and their deviation."""
    return config.get("ncat_c", 0), config.get("ncat_s", 1.0)
