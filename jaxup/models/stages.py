"""Pairs of downsampling and upsampling stages, as encoder-decoder networks use them (Lu et al., TPAMI 2020, Table 2).

What distinguishes them is what a downsampling stage hands to the upsampling stage of the same resolution, its memory:
nothing where upsampling is blind, index maps or kernels where it is guided. Max pooling and unpooling are the case of
index maps that are 1 at the maxima and 0 elsewhere.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup.nn import initializers
from jaxup.nn.a2u import A2UKernels, A2UUpsample, KernelPair
from jaxup.nn.basic import Deconvolution
from jaxup.nn.carafe import CARAFE
from jaxup.nn.indexnet import FAMILIES, IndexMaps, IndexNetwork
from jaxup.ops.downsample import downsample_reassemble
from jaxup.ops.index import indexed_pool, indexed_upsample
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, pixel_unshuffle, resize
from jaxup.ops.unpooling import max_index

Memory = Any
_INIT = initializers.he_normal()  # "improved Xavier", as of the convolutions around these stages


@dataclass(frozen=True)
class Stage:
    """An entry of `RESAMPLINGS`: how maps are made smaller, and larger again.

    Attributes:
        down: (layer, x) -> (y, memory).
        up: (layer, z, memory) -> x.
        down_layer: makes the layer of `down` from C; None: it has no parameters.
        up_layer: likewise of `up`; from C and `guide_features` where its memory is the map before pooling.
        indices: which index networks its layers are, whose options `Resampling` passes on; empty: none.
        memory: what `up` needs: `IndexMaps`, `KernelPair`, or `jax.Array`, the map before pooling; None: nothing.
        kernels: (layer of up, z, memory) -> the weights of the averages of `up`; None: it has no such weights.
        packed: channels that `down` makes of one, and `up` makes one of.
    """

    down: Callable[[Any, jax.Array], tuple[jax.Array, Memory]]
    up: Callable[[Any, jax.Array, Memory], jax.Array]
    down_layer: Callable[..., nnx.Module] | None = None
    up_layer: Callable[..., nnx.Module] | None = None
    indices: str = ""
    memory: type | None = None
    kernels: Callable[[Any, jax.Array, Memory], jax.Array] | None = None
    packed: int = 1


def _halve(_: None, x: jax.Array) -> tuple[jax.Array, Memory]:
    return resize(x, size=(x.shape[1] // 2, x.shape[2] // 2), method="area"), None


def _convolve(layer: nnx.Conv, x: jax.Array) -> tuple[jax.Array, Memory]:
    return layer(x).astype(x.dtype), None


def _pool_maxima(_: None, x: jax.Array) -> tuple[jax.Array, Memory]:
    """With index maps of zeros and ones: unpooling by them is much faster than writing values to positions."""
    index = max_index(x)
    return indexed_pool(x, index), IndexMaps(index, index)


def _pool_largest(_: None, x: jax.Array) -> tuple[jax.Array, Memory]:
    """Holistic max index: of all channels what stands where the largest of them has its maximum."""
    index = max_index(jnp.max(x, axis=3, keepdims=True))
    return indexed_pool(x, index), IndexMaps(index, index)


def _pool_and_keep(_: None, x: jax.Array) -> tuple[jax.Array, Memory]:
    return _pool_maxima(None, x)[0], x


def _pool_by_index(layer: IndexNetwork, x: jax.Array) -> tuple[jax.Array, Memory]:
    index = layer(x)
    return indexed_pool(x, index.encoder), index


def _pool_by_kernels(layer: A2UKernels, x: jax.Array) -> tuple[jax.Array, Memory]:
    kernels = layer(x)
    size, groups = 2 * layer.kernel_size, layer.groups
    return downsample_reassemble(x, kernels.down, scale=2, kernel_size=size, groups=groups), kernels


def _interpolate(method: str) -> Callable[[None, jax.Array, Memory], jax.Array]:
    return lambda _, z, memory: resize(z, scale=2, method=method)


def _by_layer(layer: Callable[[jax.Array], jax.Array], z: jax.Array, _: Memory) -> jax.Array:
    return layer(z)


def _by_index(_: None, z: jax.Array, memory: IndexMaps) -> jax.Array:
    return indexed_upsample(z, memory.decoder)


def _by_kernels(_: None, z: jax.Array, memory: KernelPair) -> jax.Array:
    groups, entries = memory.up.shape[-2:]
    return reassemble(z, memory.up, scale=2, kernel_size=math.isqrt(entries), groups=groups)


def _strided(features: int, **options: Any) -> nnx.Conv:
    return nnx.Conv(features, features, (3, 3), strides=2, padding=((1, 1), (1, 1)), **options)


def _deconvolution(features: int, **options: Any) -> Deconvolution:
    return Deconvolution(features, features, scale=2, use_bias=True, **options)


def _a2u(make: Callable[..., nnx.Module], features: int, **options: Any) -> nnx.Module:
    return make(features, norm_groups=math.gcd(32, features), **options)


def _indexed(family: str, up: Callable[[Any, jax.Array, Memory], jax.Array]) -> Stage:
    layer = partial(IndexNetwork, family=family, kernel_init=_INIT)
    return Stage(_pool_by_index, up, down_layer=layer, indices=family, memory=IndexMaps)


def _by_affinity(**options: Any) -> Stage:
    layer = partial(_a2u, partial(A2UKernels, **options))
    return Stage(
        _pool_by_kernels,
        _by_kernels,
        down_layer=layer,
        memory=KernelPair,
        kernels=lambda _, z, memory: memory.up,
    )


_NEAREST, _BILINEAR = _interpolate("nearest"), _interpolate("bilinear")
_carafe = partial(
    Stage, up=_by_layer, up_layer=partial(CARAFE, scale=2), kernels=lambda layer, z, memory: layer.kernels(z)
)

RESAMPLINGS: Mapping[str, Stage] = {
    "avg-nearest": Stage(_halve, _NEAREST),
    "conv-bilinear": Stage(_convolve, _BILINEAR, down_layer=_strided),
    "space-to-depth": Stage(
        lambda _, x: (pixel_unshuffle(x, scale=2), None), lambda _, z, memory: pixel_shuffle(z, scale=2), packed=4
    ),
    "conv-deconv": Stage(_convolve, _by_layer, down_layer=_strided, up_layer=_deconvolution),
    "avg-carafe": _carafe(_halve),
    "max-nearest": Stage(_pool_maxima, _NEAREST, memory=IndexMaps),
    "max-carafe": _carafe(_pool_maxima, memory=IndexMaps),
    "conv-carafe": _carafe(_convolve, down_layer=_strided),
    "max-bilinear": Stage(_pool_maxima, _BILINEAR, memory=IndexMaps),
    "max-unpool": Stage(_pool_maxima, _by_index, memory=IndexMaps),
    "holistic-max-unpool": Stage(_pool_largest, _by_index, memory=IndexMaps),
    **{family: _indexed(family, _by_index) for family in FAMILIES},
    **{f"{family}-bilinear": _indexed(family, _BILINEAR) for family in FAMILIES},
    "a2u": _by_affinity(),
    "a2u-k1": _by_affinity(kernel_size=1),
    "a2u-softmax": _by_affinity(up_normalization="softmax"),
    "max-a2u": Stage(
        _pool_and_keep,
        lambda layer, z, memory: layer(z, memory),
        up_layer=lambda features, guide_features, **options: _a2u(
            partial(A2UUpsample, features), guide_features, **options
        ),
        memory=jax.Array,
        kernels=lambda layer, z, memory: layer.kernels(memory),
    ),
}
"""Method -> its two stages."""
