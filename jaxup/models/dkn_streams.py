"""The streams of deformable kernel networks: convolutions that predict kernels (Kim, Ponce and Ham, 2019, Table 1)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.convolve import convolve
from jaxup.ops.windows import merge_phases, split_phases

# Width, kernel size and stride of the layers of Table 1 up to the last two, whose widths are options.
_DKN_LAYERS = ((32, 7, 1), (32, 2, 2), (64, 5, 1), (64, 2, 2), (128, 5, 1))
_FDKN_LAYERS = ((32, 3, 1), (32, 3, 1), (64, 3, 1), (64, 3, 1))
NORMALISED = (0, 2, 4)  # the layers that batch normalisation follows, in both networks

Layer = tuple[int, int, int]
Maps = tuple[jax.Array, jax.Array | None]  # weights, and offsets where they are learned


class KernelStream(nnx.Module):
    """One stream: features of an image, and from them kernel weights in 0 .. 1 and offsets.

    A layer of stride s is evaluated at every position, and its s x s phases go on as images of their own: the outputs
    are those of all shifted passes. In evaluation the phases go on one after the other, which is leaner, and on a CPU
    faster, than a larger batch or dilated convolutions; in training together, along the batch, for the statistics of
    batch normalisation are those of all.

    Args:
        in_features: channels of the image.
        layers: width, kernel size and stride of the convolutions, each followed by ReLU, and the first, third and
            fifth by batch normalisation before it.
        samples: entries of the kernels; each has a weight, and two offsets in consecutive channels.
        padding: of the layers, "SAME" or "VALID".
        offsets: whether there are any.
        dtype: the type in which convolutions compute.
        rngs: source of the initial parameters, PyTorch's default ones.

    Returns:
        `module(x)`: [B, H, W, Cin] -> weights [B, H', W', samples] and offsets [B, H', W', 2*samples],
        or None in their place. A size before a stride is a multiple of it.
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
        widths, self.strides = [width for width, _, _ in layers], tuple(stride for _, _, stride in layers)
        self.convs = nnx.List(
            _conv(inputs, width, size, padding, dtype, rngs)
            for inputs, (width, size, _) in zip([in_features, *widths[:-1]], layers, strict=True)
        )
        self.norms = nnx.List(BatchNorm(widths[index], rngs=rngs) for index in NORMALISED)
        self.weight_head = _conv(widths[-1], samples, 1, padding, dtype, rngs)
        self.offset_head = _conv(widths[-1], 2 * samples, 1, padding, dtype, rngs) if offsets else None

    def __call__(self, x: jax.Array) -> Maps:
        """Weights and offsets."""
        scores, offsets = self.scores(x)
        return nnx.sigmoid(scores), offsets

    def scores(self, x: jax.Array) -> Maps:
        """The weights before their sigmoid, and the offsets."""
        return self._from_layer(0, x)

    def _from_layer(self, first: int, x: jax.Array) -> Maps:
        """The rest of the stream, from a layer on."""
        for index in range(first, len(self.convs)):
            x = self.convs[index](x)
            if index in NORMALISED:
                x = normalise(self.norms[NORMALISED.index(index)], x, x.dtype)
            x = nnx.relu(x)
            if self.strides[index] > 1:
                return self._by_phase(partial(self._from_layer, index + 1), x, self.strides[index])
        return self.weight_head(x), None if self.offset_head is None else self.offset_head(x)

    def _by_phase(self, run: Callable[[jax.Array], Maps], x: jax.Array, stride: int) -> Maps:
        """Apply what follows a stride to each of its phases, and put the results at their positions."""
        phases = jnp.moveaxis(split_phases(x, (stride, stride)), (2, 4), (0, 1))
        phases = phases.reshape(-1, *phases.shape[2:])
        if self.norms[0].use_running_average:
            maps = jax.lax.map(run, phases)
        else:
            maps = jax.tree.map(partial(_from_batch, len(phases)), run(_to_batch(phases)))
        joined: Maps = jax.tree.map(partial(_join, stride), maps)
        return joined


def _to_batch(x: jax.Array) -> jax.Array:
    """[P, B, ...] -> [B*P, ...]."""
    return jax.lax.collapse(jnp.moveaxis(x, 0, 1), 0, 2)


def _from_batch(phases: int, y: jax.Array) -> jax.Array:
    """[B*P, ...] -> [P, B, ...]."""
    return jnp.moveaxis(y.reshape(-1, phases, *y.shape[1:]), 1, 0)


def _join(stride: int, y: jax.Array) -> jax.Array:
    """[s*s, B, h, w, C] -> [B, s*h, s*w, C]."""
    return merge_phases(jnp.moveaxis(y.reshape(stride, stride, *y.shape[1:]), (0, 1), (2, 4)))


def _conv(inputs: int, outputs: int, size: int, padding: str, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    bound = (inputs * size * size) ** -0.5

    def init(key: jax.Array, shape: Any, dtype: Any, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        padding=padding,
        conv_general_dilated=convolve,
        kernel_init=init,
        bias_init=init,
        dtype=dtype,
        rngs=rngs,
    )


def dkn_stream(
    in_features: int, samples: int, *, widths: Pair, offsets: bool = True, dtype: Any, rngs: nnx.Rngs
) -> KernelStream:
    """A stream of `jaxup.models.DKN`, for an image of multiples of 4 with 25 more pixels before and 24 after it."""
    layers = (*_DKN_LAYERS, *((width, 3, 1) for width in widths))
    return KernelStream(in_features, layers, samples, padding="VALID", offsets=offsets, dtype=dtype, rngs=rngs)


def fdkn_stream(
    in_features: int, samples: int, *, widths: Pair, offsets: bool = True, dtype: Any, rngs: nnx.Rngs
) -> KernelStream:
    """A stream of `jaxup.models.FDKN`."""
    layers = (*_FDKN_LAYERS, *((width, 3, 1) for width in widths))
    return KernelStream(in_features, layers, samples, padding="SAME", offsets=offsets, dtype=dtype, rngs=rngs)
