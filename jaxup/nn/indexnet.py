"""Index networks (Lu et al., Index Networks, TPAMI 2020): index maps for pooling and upsampling, learned from features.

All five families are one block. A column looks at the region of each LR cell (with its surroundings, where there is
context) and gives index logits: one layer, or two with normalisation and activation between them. Holistic networks
have one column, which gives the logits of all positions of the region; depthwise networks one column per position.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_divides, check_features, check_image, check_int, pair
from jaxup.nn import initializers
from jaxup.nn.functions import by_name
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.regions import convolve_channels, convolve_regions
from jaxup.ops.windows import merge_phases

Activation = Callable[[jax.Array], jax.Array]

# Variance 2 / (K^2 * output maps), as in the official networks.
OFFICIAL_INIT = initializers.variance_scaling(2.0, "fan_out", "normal")


class IndexMaps(NamedTuple):
    """The index maps of `ops.indexed_pool` and of `ops.indexed_upsample`, [B, H, W, C] or [B, H, W, 1]."""

    encoder: jax.Array
    decoder: jax.Array


class _Widths(NamedTuple):
    """A column's kernels: [K, K, inputs, hidden] and [1, 1, mixed, outputs]; linear: [K, K, inputs, outputs]."""

    columns: int
    inputs: int
    hidden: int
    mixed: int
    outputs: int


# From C channels, expansion e and P positions per region. Where a kernel sees one input channel, each channel of x is
# convolved by itself, and an output width without C is a function that all channels share.
FAMILIES: dict[str, Callable[[int, int, int], _Widths]] = {
    "holistic": lambda c, e, p: _Widths(1, c, e * c, e * c, p),
    "modelwise_o2o": lambda c, e, p: _Widths(p, 1, e, e, 1),
    "shared_o2o": lambda c, e, p: _Widths(p, 1, e, e, 1),
    "unshared_o2o": lambda c, e, p: _Widths(p, 1, e * c, e, c),
    "m2o": lambda c, e, p: _Widths(p, c, e * c, e * c, c),
}

# What names of networks add to that of a family, in the papers' tables and here.
VARIANTS: dict[str, dict[str, bool]] = {
    "": dict(nonlinear=False, context=False),
    "-nl": dict(nonlinear=True, context=False),
    "-nl-c": dict(nonlinear=True, context=True),
}


def official_options(family: str) -> dict[str, Any]:
    """What the official code has in the place of the paper's: e = 1 in depthwise networks, and ReLU6."""
    return dict(expansion=2 if family == "holistic" else 1, activation=nnx.relu6)


# Over the positions of a region, axis 3 of the logits [B, h, w, P, C].
_STEPS: dict[str, Activation] = {"sigmoid": jax.nn.sigmoid, "softmax": partial(jax.nn.softmax, axis=3)}
NORMALIZATIONS = ("sigmoid", "softmax", "softmax+sigmoid", "sigmoid+softmax")


class _Column(nnx.Module):
    """Index logits [B, h, w, outputs] of the regions of x; [B, h, w, C] where channels are convolved by themselves."""

    def __init__(
        self,
        widths: _Widths,
        *,
        per_channel: bool,
        scale: Pair,
        nonlinear: bool,
        context: bool,
        activation: Activation,
        kernel_init: nnx.Initializer,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.maps = widths.mixed if nonlinear else 1
        self.per_channel, self.scale, self.dtype = per_channel, scale, dtype
        self.activation, reach = by_name(activation), 2 if context else 1
        window, first = (reach * scale[0], reach * scale[1]), widths.hidden if nonlinear else widths.outputs
        self.kernel = nnx.Param(kernel_init(rngs.params(), (*window, widths.inputs, first), jnp.float32))
        self.norm = BatchNorm(first, axis=3, rngs=rngs) if nonlinear else None
        mix = (1, 1, widths.mixed, widths.outputs)
        self.mix = nnx.Param(kernel_init(rngs.params(), mix, jnp.float32)) if nonlinear else None

    def of_channels(self, x: jax.Array) -> jax.Array:
        """The first layer where channels are convolved by themselves."""
        return convolve_channels(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.scale, self.maps)

    def __call__(self, y: jax.Array) -> jax.Array:
        """What follows the first layer."""
        if self.norm is None or self.mix is None:
            return y[..., 0, :] if self.per_channel else y
        y = _split(y, self.norm.num_features)  # and the channels that share them, if any
        y = _split(self.activation(normalise(self.norm, y, self.dtype)), self.maps)
        mix = self.mix[0, 0].astype(self.dtype)
        return jnp.sum(y * mix[None, None, None], axis=3) if self.per_channel else y[..., 0] @ mix


def _split(y: jax.Array, features: int) -> jax.Array:
    """The entries of every cell as [B, h, w, features, others]."""
    return y.reshape(*y.shape[:3], features, math.prod(y.shape[3:]) // features)


class IndexNetwork(nnx.Module):
    """Index network: two index maps, for pooling and for upsampling, predicted from the features to be pooled.

        l = columns(x),    decoder = sigmoid(l),    encoder = softmax over the s^2 pixels of a region of sigmoid(l)

    The five families are: "holistic" (HIN), one map that all channels share; and depthwise, one map per channel:
    "m2o" (many to one), from all channels; "unshared_o2o" (one to one), each channel from itself by its own function;
    "shared_o2o", by one function; "modelwise_o2o", by one function for all stages of the network, too: call the same
    module at every stage, with any number of channels.
    A linear network is one convolution; a nonlinear one widens to eC maps (e per channel), with BatchNorm and an
    activation, and a 1 x 1 convolution follows. Windows have s x s pixels, or 2s x 2s with context (zeros outside).
    No layer has a bias. Shared functions have shared norms, whose statistics are over all channels.

    Parameters, with P = s^2 pixels per region and windows of k = s^2 or 4 s^2 pixels; the last term is BatchNorm's:
    linear holistic k*C*P, shared k*P, unshared k*C*P, m2o k*C^2*P; nonlinear holistic (k*C + P)*eC + 2eC, shared
    (k + 1)*e*P + 2eP, unshared (k + 1)*eC*P + 2eC*P, m2o (k*C + C)*eC*P + 2eC*P. Multiply-adds per LR cell: the same
    without BatchNorm's, times C where shared.

    The paper's Table 1 gives the second layer of unshared networks 2C*C weights per column, as of m2o; its Table 5
    counts 2C, which is what one to one means, and what is here. The official code has the holistic, unshared and m2o
    families, with ReLU6, and e = 1 in the latter two.

    Args:
        in_features: C, channels of x ("modelwise_o2o" takes others, too).
        family: "holistic", "modelwise_o2o", "shared_o2o", "unshared_o2o" or "m2o".
        scale: s, an integer or a pair (vertical, horizontal). The paper has 2.
        nonlinear: two layers.
        context: windows of twice the height and width.
        expansion: e, hidden maps per channel.
        activation: of the hidden maps; a function that can be imported, if the module shall be pickled.
        kernel_init: of all kernels; that of the official code by default.
        encoder_normalization: "sigmoid", "softmax", or both, "softmax+sigmoid" or "sigmoid+softmax", in this order.
        decoder_normalization: likewise.
        dtype: the type in which the layers compute; parameters are float32, normalisations never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: features [B, sy*h, sx*w, C] -> (encoder, decoder), index maps [B, sy*h, sx*w, C], or of 1 channel
        where holistic, in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that does not fit.

    Example:
        >>> from jaxup import ops
        >>> x = jnp.ones((1, 4, 6, 8))
        >>> index = IndexNetwork(8, family="m2o", rngs=nnx.Rngs(0))(x)
        >>> ops.indexed_upsample(ops.indexed_pool(x, index.encoder), index.decoder).shape
        (1, 4, 6, 8)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 4, Tables 1, 5 and 6. Official code: poppinace/indexnet_matting
        (non-commercial), hlindex.py.
    """

    def __init__(
        self,
        in_features: int,
        *,
        family: str = "holistic",
        scale: int | Pair = 2,
        nonlinear: bool = True,
        context: bool = True,
        expansion: int = 2,
        activation: Activation = nnx.relu,
        kernel_init: nnx.Initializer = OFFICIAL_INIT,
        encoder_normalization: str = "sigmoid+softmax",
        decoder_normalization: str = "sigmoid",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("family", family, FAMILIES)
        check_choice("encoder_normalization", encoder_normalization, NORMALIZATIONS)
        check_choice("decoder_normalization", decoder_normalization, NORMALIZATIONS)
        self.in_features, self.family, self.scale = check_int("in_features", in_features), family, pair("scale", scale)
        self.encoder_normalization, self.decoder_normalization = encoder_normalization, decoder_normalization
        positions = self.scale[0] * self.scale[1]
        widths = FAMILIES[family](in_features, check_int("expansion", expansion), positions)
        layers: dict[str, Any] = dict(activation=activation, kernel_init=kernel_init, dtype=dtype)
        options: dict[str, Any] = dict(scale=self.scale, nonlinear=nonlinear, context=context, **layers)
        per_channel = family.endswith("o2o")
        self.columns = nnx.List(
            [_Column(widths, per_channel=per_channel, rngs=rngs, **options) for _ in range(widths.columns)]
        )

    def __call__(self, x: jax.Array) -> IndexMaps:
        """Index maps on the grid of x."""
        check_image("x", x)
        if self.family != "modelwise_o2o":
            check_features("x", x, self.in_features)
        check_divides("scale", self.scale[0], "height", x.shape[1])
        check_divides("scale", self.scale[1], "width", x.shape[2])
        # [B, h, w, P, C]: a holistic column gives all positions of one channel, the others one of all.
        first = self._first(x)
        each = [column(y) for column, y in zip(self.columns, first, strict=True)]
        logits = jnp.stack(each, axis=4 if self.family == "holistic" else 3)
        logits = logits.astype(accum_dtype(logits))
        maps = (self._map(logits, steps) for steps in (self.encoder_normalization, self.decoder_normalization))
        return IndexMaps(*(index.astype(x.dtype) for index in maps))

    def _first(self, x: jax.Array) -> list[jax.Array]:
        """The first layers of the columns, as one convolution where they see all channels."""
        if self.columns[0].per_channel:
            return [column.of_channels(x) for column in self.columns]
        dtype = self.columns[0].dtype
        kernel = jnp.concatenate([column.kernel[...] for column in self.columns], axis=-1)
        y = convolve_regions(x.astype(dtype), kernel.astype(dtype), self.scale)
        return jnp.split(y, len(self.columns), axis=-1)

    def _map(self, logits: jax.Array, steps: str) -> jax.Array:
        """Normalised, and each position at its pixel."""
        for step in steps.split("+"):
            logits = _STEPS[step](logits)
        batch, rows, cols, _, channels = logits.shape
        phases = logits.reshape(batch, rows, cols, *self.scale, channels)
        return merge_phases(phases.transpose(0, 1, 3, 2, 4, 5))
