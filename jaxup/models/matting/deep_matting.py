"""Deep Image Matting (Xu et al., CVPR 2017), first stage: SegNet on VGG-16, baselines B3 and B4 of Index Networks."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int
from jaxup.models.backbones import VGG
from jaxup.models.backbones.layers import conv, through
from jaxup.models.resampling import RESAMPLINGS, Memory, Resampling
from jaxup.models.segmentation.upsampling import extend

# Channels behind each upsampling, coarse to fine, in units of the first width.
_DECODER = (8, 4, 2, 1, 1)


class DeepMatting(nnx.Module):
    """Deep Matting: the convolutions of VGG-16 with five poolings, a wide 7x7 layer, and five upsamplings.

        encoder: 2 x conv(w), D, 2 x conv(2w), D, 3 x conv(4w), D, 3 x conv(8w), D, 3 x conv(8w), D, conv7x7(64w)
        decoder: conv1x1(8w), U, conv5x5(8w), U, conv5x5(4w), U, conv5x5(2w), U, conv5x5(w), U, conv5x5(w)
        alpha = conv5x5(y)

    Every convolution has a bias, and ReLU but for the last; those of VGG are 3x3, with BatchNorm. D and U are a pair of
    stages of `jaxup.models.resampling`. Its refinement stage is left out, as in Index Networks.

    Parameters: 130,545,345 ("130.55 M"), of which the wide layer has 102,764,544. Multiply-adds for 224 x 224 pixels:
    32.34 G (1 G = 2^30).

    Args:
        in_features: channels of the image and its trimap.
        features: w.
        upsampler: D and U, a key of `jaxup.models.resampling.RESAMPLINGS`, but "space-to-depth": "max-unpool" is B3,
            "max-bilinear" B4.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: normalised image and trimap [B, H, W, Cin] of any size -> alpha [B, H, W, 1], not cut to
        [0, 1], in the dtype of x; nothing is dropped by chance, and `rngs` has no effect. Maps with odd sides are
        extended by copies of their last row or column before D, and cut after U.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: DeepMatting(features=4, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 4))).shape
        (1, 33, 64, 1)

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017; Lu et al., Index Networks, TPAMI 2020, Tables 4 and 5. Official code:
        poppinace/indexnet_matting (non-commercial), hlvgg16.py.
    """

    def __init__(
        self,
        in_features: int = 4,
        *,
        features: int = 64,
        upsampler: str = "max-unpool",
        nonlinear: bool = False,
        context: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("upsampler", upsampler, [name for name, stage in RESAMPLINGS.items() if stage.packed == 1])
        f, options = check_int("features", features), dict[str, Any](dtype=dtype, rngs=rngs)
        self.encoder = VGG(in_features, widths=(f, 2 * f, 4 * f, 8 * f, 8 * f), **options)
        of_pairs: dict[str, Any] = dict(method=upsampler, nonlinear=nonlinear, context=context)
        self.resampling = Resampling(features=self.encoder.features, **of_pairs, **options)
        self.wide, self.narrow = conv(8 * f, 64 * f, 7, **options), conv(64 * f, 8 * f, 1, **options)
        widths = [unit * f for unit in (8, *_DECODER)]
        self.decoder = nnx.List(conv(i, o, 5, **options) for i, o in itertools.pairwise(widths))
        self.predict = conv(f, 1, 5, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Alpha of x."""
        check_features("x", x, self.encoder.in_features)
        y, kept = x, list[tuple[tuple[int, ...], Memory]]()
        for stage, layers in enumerate(self.encoder.stages):
            y = through(layers, y)
            size = y.shape[1:3]
            y, memory = self.resampling.down(stage, extend(y, [side % 2 for side in size]))
            kept.append((size, memory))
        y = nnx.relu(self.narrow(nnx.relu(self.wide(y))))
        for stage, layer in zip(reversed(range(len(kept))), self.decoder, strict=True):
            (height, width), memory = kept[stage]
            y = nnx.relu(layer(self.resampling.up(stage, y, memory)[:, :height, :width]))
        alpha: jax.Array = self.predict(y).astype(x.dtype)
        return alpha
