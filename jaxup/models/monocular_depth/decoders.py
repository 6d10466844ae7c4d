"""The stages of FastDepth's decoders, by their official names: convolutions that a doubling follows, or is part of."""

import itertools
from typing import Any

import jax
from flax import nnx

from jaxup._checks import check_int, check_odd
from jaxup.models.backbones.layers import ConvNorm, through
from jaxup.models.monocular_depth.layers import DeconvNorm, UpProjection
from jaxup.ops.resize import pixel_shuffle, resize

# Interpolation behind the convolutions, which other stages contain.
INTERPOLATIONS = {"nnconv": "nearest", "blconv": "bilinear"}
DECODERS = (*INTERPOLATIONS, "deconv", "upconv", "upproj", "shuffle")


class Stage(nnx.Module):
    """One stage of a decoder; see `FastDepth` for the kinds.

    `module(x)` computes what stands before the doubling of "nnconv" and "blconv", whose `enlarge` is a method of its
    own, so that a network can add to the map between the two, or double it in another way. Other kinds double the map
    in the call, and `enlarge` does nothing.
    """

    def __init__(
        self, kind: str, inputs: int, outputs: int, *, kernel_size: int, depthwise: bool, dtype: Any, rngs: nnx.Rngs
    ):
        (check_int if kind == "deconv" else check_odd)("kernel_size", kernel_size)
        self.kind, options = kind, dict[str, Any](dtype=dtype, rngs=rngs)
        self.interpolation = INTERPOLATIONS.get(kind)
        layer = DeconvNorm if kind in ("deconv", "upconv", "upproj") else ConvNorm
        inputs = inputs // 4 if kind == "shuffle" else inputs
        layers: list[nnx.Module]
        if kind == "upproj":
            layers = [UpProjection(layer, inputs, outputs, **options)]
        elif depthwise and kind != "upconv":
            first = layer(inputs, inputs, kernel_size, depthwise=True, **options)
            layers = [first, ConvNorm(inputs, outputs, 1, **options)]
        else:
            layers = [layer(inputs, outputs, 5 if kind == "upconv" else kernel_size, **options)]
        self.layers: nnx.List[Any] = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, inputs] -> [B, h, w, outputs], or twice as large."""
        return through(self.layers, pixel_shuffle(x, scale=2) if self.kind == "shuffle" else x)

    def enlarge(self, x: jax.Array) -> jax.Array:
        """What the call has left to do."""
        return x if self.interpolation is None else resize(x, scale=2, method=self.interpolation)


def decoder_widths(kind: str, features: int) -> list[tuple[int, int]]:
    """Channels of the inputs and outputs of each stage but the last step, from those of the encoder's map.

    Four shuffles take a quarter each, and a fifth one, which has no layers, ends in one channel; other kinds halve five
    times.
    """
    ratio, count = (4, 4) if kind == "shuffle" else (2, 5)
    widths = [check_int("features", features // ratio**i) for i in range(count + 1)]
    return list(itertools.pairwise(widths))
