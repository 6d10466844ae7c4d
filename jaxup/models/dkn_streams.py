"""The streams of deformable kernel networks: convolutions that predict kernels (Kim, Ponce and Ham, 2019, Table 1)."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from jaxup._checks import Pair
from jaxup.nn.norms import BatchNorm, normalise

# Width, kernel size and dilation of the layers of Table 1 up to the last two, whose widths are options. In DKN the two
# convolutions 2x2 halve the resolution: evaluated at every pixel, what follows them is dilated by 2 and by 4.
_DKN_LAYERS = ((32, 7, 1), (32, 2, 1), (64, 5, 2), (64, 2, 2), (128, 5, 4))
_FDKN_LAYERS = ((32, 3, 1), (32, 3, 1), (64, 3, 1), (64, 3, 1))
_NORMALISED = (0, 2, 4)  # the layers that batch normalisation follows, in both networks

Layer = tuple[int, int, int]
Maps = tuple[jax.Array, jax.Array | None]  # weights, and offsets where they are learned


class KernelStream(nnx.Module):
    """One stream: features of an image, and from them kernel weights in 0 .. 1 and offsets.

    Args:
        in_features: channels of the image.
        layers: width, kernel size and dilation of the convolutions, each followed by ReLU, and the first, third and
            fifth by batch normalisation before it.
        samples: entries of the kernels; each has a weight, and two offsets in consecutive channels.
        padding: of the layers, "SAME" or "VALID".
        offsets: whether there are any.
        dtype: the type in which convolutions compute.
        rngs: source of the initial parameters, PyTorch's default ones.

    Returns:
        `module(x)`: [B, H, W, Cin] -> weights [B, H', W', samples] and offsets [B, H', W', 2*samples],
        or None in their place.
    """

    def __init__(
        self,
        in_features: int,
        layers: Sequence[Layer],
        samples: int,
        *,
        padding: str,
        offsets: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        widths = [width for width, _, _ in layers]
        self.convs = nnx.List(
            _conv(inputs, *layer, padding, dtype, rngs)
            for inputs, layer in zip([in_features, *widths[:-1]], layers, strict=True)
        )
        self.norms = nnx.List(BatchNorm(widths[index], rngs=rngs) for index in _NORMALISED)
        self.weight_head = _conv(widths[-1], samples, 1, 1, padding, dtype, rngs)
        self.offset_head = _conv(widths[-1], 2 * samples, 1, 1, padding, dtype, rngs) if offsets else None

    def __call__(self, x: jax.Array) -> Maps:
        """Weights and offsets."""
        scores, offsets = self.scores(x)
        return nnx.sigmoid(scores), offsets

    def scores(self, x: jax.Array) -> Maps:
        """The weights before their sigmoid, and the offsets."""
        for index, conv in enumerate(self.convs):
            x = conv(x)
            if index in _NORMALISED:
                x = normalise(self.norms[_NORMALISED.index(index)], x, x.dtype)
            x = nnx.relu(x)
        return self.weight_head(x), None if self.offset_head is None else self.offset_head(x)


def _conv(inputs: int, outputs: int, size: int, dilation: int, padding: str, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    bound = (inputs * size * size) ** -0.5

    def init(key: jax.Array, shape: Any, dtype: Any, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        kernel_dilation=dilation,
        padding=padding,
        kernel_init=init,
        bias_init=init,
        dtype=dtype,
        rngs=rngs,
    )


def dkn_stream(
    in_features: int, samples: int, *, widths: Pair, offsets: bool = True, dtype: Any, rngs: nnx.Rngs
) -> KernelStream:
    """A stream of `jaxup.models.DKN`, for an image with 25 more pixels before and 24 after it."""
    layers = (*_DKN_LAYERS, *((width, 3, 4) for width in widths))
    return KernelStream(in_features, layers, samples, padding="VALID", offsets=offsets, dtype=dtype, rngs=rngs)


def fdkn_stream(
    in_features: int, samples: int, *, widths: Pair, offsets: bool = True, dtype: Any, rngs: nnx.Rngs
) -> KernelStream:
    """A stream of `jaxup.models.FDKN`."""
    layers = (*_FDKN_LAYERS, *((width, 3, 1) for width in widths))
    return KernelStream(in_features, layers, samples, padding="SAME", offsets=offsets, dtype=dtype, rngs=rngs)
