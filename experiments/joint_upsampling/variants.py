"""DKN with other streams than those of the paper's Table 1 (Kim et al., section 4.3, "DownConv for DKN")."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxup.models.dkn import averaged, kernels
from jaxup.models.dkn_streams import Maps
from jaxup.nn.norms import BatchNorm
from jaxup.ops import resize


class Layer(NamedTuple):
    """A convolution: its width, the side of its filters and their dilation."""

    width: int
    size: int
    dilation: int = 1


def _layers(*groups: tuple[int, Layer]) -> tuple[Layer, ...]:
    return tuple(layer for count, layer in groups for _ in range(count))


STREAMS: dict[str, tuple[Layer, ...]] = {
    "DKN-23": _layers((1, Layer(32, 7)), (1, Layer(64, 5)), (3, Layer(128, 5))),
    "DKN-plain": _layers(
        (1, Layer(32, 7)), (3, Layer(32, 5)), (6, Layer(64, 5)), (3, Layer(64, 3)), (1, Layer(128, 3))
    ),
    "DKN-dilated": (
        *(Layer(32, 3), Layer(32, 3), Layer(64, 3, 2), Layer(64, 3, 4)),
        *(Layer(128, 3, 8), Layer(128, 3, 8), Layer(128, 3)),
    ),
}
"""Layers of streams without strides. The paper gives their receptive fields, 23, 51 and 51 pixels, and of the second
1.6 M parameters in both streams together (here 1.67 M); the layers themselves are not given and are ours: of the first
as many 5 x 5 filters as it takes, and of the third dilations that double, as of Yu and Koltun, whom it cites. Dilation
in the place of strides, filter by filter, would be DKN itself."""
_NORMALISED = (0, 2, 4)  # layers behind which batch normalisation is, as in Table 1


def receptive_field(layers: tuple[Layer, ...]) -> int:
    """Pixels along a side that an output depends on."""
    return 1 + sum((layer.size - 1) * layer.dilation for layer in layers)


class _Stream(nnx.Module):
    """Weights before their sigmoid and offsets of each pixel, by layers that keep the resolution, zeros outside."""

    def __init__(self, in_features: int, layers: tuple[Layer, ...], samples: int, *, rngs: nnx.Rngs):
        new = partial(nnx.Conv, rngs=rngs)
        widths = [in_features, *(layer.width for layer in layers)]
        self.convs = nnx.List(
            new(inputs, outputs, (layer.size,) * 2, kernel_dilation=layer.dilation)
            for (inputs, outputs), layer in zip(pairwise(widths), layers, strict=True)
        )
        self.norms = nnx.List(BatchNorm(layers[index].width, rngs=rngs) for index in _NORMALISED)
        self.weight_head, self.offset_head = (new(widths[-1], n * samples, (1, 1)) for n in (1, 2))

    def scores(self, x: jax.Array) -> Maps:
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = nnx.relu(self.norms[_NORMALISED.index(index)](x) if index in _NORMALISED else x)
        return self.weight_head(x), self.offset_head(x)


class UnstridedDKN(nnx.Module):
    """`jaxup.models.DKN` of RGB and depth, with residual, whose streams have the layers of `STREAMS`."""

    grid, residual = "centred", True

    def __init__(self, name: str, *, kernel_size: int, window_size: int, cubic_coefficient: float, rngs: nnx.Rngs):
        self.kernel_size, self.window_size = kernel_size, window_size
        self.cubic_coefficient = cubic_coefficient
        self.depth_stream, self.guide_stream = (_Stream(n, STREAMS[name], kernel_size**2, rngs=rngs) for n in (1, 3))

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        options: Any = self
        target = resize(x, size=guide.shape[1:3], method="bicubic", cubic_coefficient=self.cubic_coefficient)
        return averaged(target, *self.kernels(target, guide), options)

    def kernels(self, target: jax.Array, guide: jax.Array) -> Maps:
        """Weights and offsets, as `DKN.kernels`."""
        options: Any = self
        return kernels([self.depth_stream.scores(target), self.guide_stream.scores(guide)], options)
