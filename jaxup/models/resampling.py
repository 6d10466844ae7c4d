"""Pairs of downsampling and upsampling stages, as encoder-decoder networks use them (Lu et al., TPAMI 2020, Table 2).

What distinguishes them is what a downsampling stage hands to the upsampling stage of the same resolution, its memory:
nothing where upsampling is blind, index maps or kernels where it is guided. Max pooling and unpooling are the case of
index maps that are 1 at the maxima and 0 elsewhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_divides, check_int, fail
from jaxup.nn.a2u import A2UKernels, KernelPair
from jaxup.nn.basic import Deconvolution, check_features
from jaxup.nn.carafe import CARAFE
from jaxup.nn.indexnet import FAMILIES, IndexMaps, IndexNetwork
from jaxup.ops.downsample import downsample_reassemble
from jaxup.ops.index import indexed_pool, indexed_upsample
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, pixel_unshuffle, resize
from jaxup.ops.unpooling import max_index

Layer = nnx.Module | None
Memory = Any
_A2U = {"a2u": 3, "a2u-k1": 1}  # kernel size of upsampling; that of downsampling is twice as large

RESAMPLINGS: Mapping[str, tuple[str, str]] = {
    "avg-nearest": ("avg", "nearest"),
    "conv-bilinear": ("conv", "bilinear"),
    "space-to-depth": ("space-to-depth", "depth-to-space"),
    "conv-deconv": ("conv", "deconv"),
    "avg-carafe": ("avg", "carafe"),
    "max-carafe": ("max", "carafe"),
    "conv-carafe": ("conv", "carafe"),
    "max-unpool": ("max", "indexed"),
    **{family: (family, "indexed") for family in FAMILIES},
    **{f"{family}-bilinear": (family, "bilinear") for family in FAMILIES},
    **{name: (name, "reassemble") for name in _A2U},
}
"""Method -> how it makes maps smaller, and larger again."""


def _pool_by_kernels(layer: A2UKernels, x: jax.Array) -> tuple[jax.Array, Memory]:
    kernels = layer(x)
    return downsample_reassemble(x, kernels.down, scale=2, kernel_size=2 * layer.kernel_size), kernels


def _enlarge_by_kernels(_: None, z: jax.Array, kernels: KernelPair) -> jax.Array:
    return reassemble(z, kernels.up, scale=2, kernel_size=math.isqrt(kernels.up.shape[-1]))


def _pool_by_index(layer: IndexNetwork, x: jax.Array) -> tuple[jax.Array, Memory]:
    index = layer(x)
    return indexed_pool(x, index.encoder), index


def _pool_maxima(_: None, x: jax.Array) -> tuple[jax.Array, Memory]:
    """With index maps of zeros and ones: unpooling by them is much faster than writing values to positions."""
    index = max_index(x)
    return indexed_pool(x, index), IndexMaps(index, index)


def _halved(x: jax.Array) -> jax.Array:
    return resize(x, size=(x.shape[1] // 2, x.shape[2] // 2), method="area")


# (layer, x) -> (y, memory), and (layer, z, memory) -> x.
_DOWN: Mapping[str, Callable[[Any, jax.Array], tuple[jax.Array, Memory]]] = {
    "avg": lambda _, x: (_halved(x), None),
    "max": _pool_maxima,
    "conv": lambda layer, x: (layer(x).astype(x.dtype), None),
    "space-to-depth": lambda _, x: (pixel_unshuffle(x, scale=2), None),
    **dict.fromkeys(FAMILIES, _pool_by_index),
    **dict.fromkeys(_A2U, _pool_by_kernels),
}
_UP: Mapping[str, Callable[[Any, jax.Array, Memory], jax.Array]] = {
    "nearest": lambda _, z, memory: resize(z, scale=2, method="nearest"),
    "bilinear": lambda _, z, memory: resize(z, scale=2, method="bilinear"),
    "depth-to-space": lambda _, z, memory: pixel_shuffle(z, scale=2),
    "deconv": lambda layer, z, memory: layer(z),
    "carafe": lambda layer, z, memory: layer(z),
    "indexed": lambda _, z, memory: indexed_upsample(z, memory.decoder),
    "reassemble": _enlarge_by_kernels,
}


class Resampling(nnx.Module):
    """The downsampling and upsampling stages of an encoder-decoder, by 2 each, all by one method.

        y, memory = down(stage, x),    x' = up(stage, z, memory)

    Downsampling: "avg" and "max" pooling, "conv" (3 x 3, stride 2, no activation), space to depth, or indexed pooling.
    Upsampling: nearest and bilinear interpolation, depth to space, "deconv" (3 x 3, stride 2), CARAFE, or indexed
    upsampling, whose indices come from the index network, or the max pooling, that made the map smaller. Methods
    named after a family of index networks pool and upsample with its indices, those that end in "-bilinear" only pool
    with them. Of "modelwise_o2o" all stages share one network. "a2u" and "a2u-k1" predict kernels for both from the
    map before pooling: for upsampling of 3 x 3 entries, which are so alike that they blur (see `jaxup.nn.A2UKernels`),
    or of a single one, a gate.

    Maps keep their channels, but for "space-to-depth", where down gives 4 channels for one and up one for 4, see
    `down_features` and `up_features`.

    Parameters, of all stages together: "conv" and "deconv" (9 C + 1) C each, those of `jaxup.nn.CARAFE`,
    `jaxup.nn.IndexNetwork` and `jaxup.nn.A2UKernels`; the others have none.

    Args:
        method: one of `RESAMPLINGS`.
        features: C of each stage: the channels of the map to be made smaller, and of the one to be made larger.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Raises:
        ValueError: a wrong option, or a map that does not fit.

    Example:
        >>> stages = Resampling(method="holistic", features=(4, 8), rngs=nnx.Rngs(0))
        >>> y, memory = stages.down(0, jnp.ones((1, 6, 10, 4)))
        >>> y.shape, stages.up(0, y, memory).shape
        ((1, 3, 5, 4), (1, 6, 10, 4))

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 5 and Table 2; Dai, Lu, Shen, Learning Affinity-Aware Upsampling for
        Deep Image Matting, CVPR 2021, for "a2u".
    """

    def __init__(
        self,
        *,
        method: str,
        features: Sequence[int],
        nonlinear: bool = True,
        context: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("method", method, RESAMPLINGS)
        self.method, self.features = method, tuple(check_int("features", count) for count in features)
        if method == "space-to-depth" and any(count % 4 for count in self.features):
            fail("features", f"multiples of 4 for {method}", self.features)
        options: dict[str, Any] = dict(nonlinear=nonlinear, context=context)
        once = RESAMPLINGS[method][0] == "modelwise_o2o"
        stages = self.features[:1] if once else self.features
        build = partial(_layer, options=options, dtype=dtype, rngs=rngs)
        down, up = ([build(name, count) for count in stages] for name in RESAMPLINGS[method])
        self.down_layers = nnx.List(layer for layer in down if layer is not None)
        self.up_layers = nnx.List(layer for layer in up if layer is not None)

    def down(self, stage: int, x: jax.Array) -> tuple[jax.Array, Memory]:
        """Make a map smaller.

        Args:
            stage: the number of the stage, from 0.
            x: [B, 2h, 2w, C].

        Returns:
            (y, memory): the map [B, h, w, `down_features(stage)`] in the dtype of x, and what `up` of this stage needs:
            None, index maps (encoder, decoder), which are 0 or 1 for maxima, or kernels (down, up).
        """
        check_features("x", x, self.features[stage])
        check_divides("scale", 2, "the height of x", x.shape[1])
        check_divides("scale", 2, "the width of x", x.shape[2])
        return _DOWN[RESAMPLINGS[self.method][0]](_of_stage(self.down_layers, stage), x)

    def up(self, stage: int, z: jax.Array, memory: Memory) -> jax.Array:
        """Make a map larger.

        Args:
            stage: the number of the stage, from 0.
            z: [B, h, w, C].
            memory: what `down` of this stage gave.

        Returns:
            [B, 2h, 2w, `up_features(stage)`] in the dtype of z.
        """
        check_features("z", z, self.features[stage])
        return _UP[RESAMPLINGS[self.method][1]](_of_stage(self.up_layers, stage), z, memory)

    def down_features(self, stage: int) -> int:
        """Channels of what `down` returns."""
        return self.features[stage] * (4 if self.method == "space-to-depth" else 1)

    def up_features(self, stage: int) -> int:
        """Channels of what `up` returns."""
        return self.features[stage] // (4 if self.method == "space-to-depth" else 1)


def _layer(name: str, features: int, *, options: dict[str, Any], dtype: Any, rngs: nnx.Rngs) -> Layer:
    """The layer of one stage, if it has one."""
    if name == "conv":
        return nnx.Conv(features, features, (3, 3), strides=2, padding=((1, 1), (1, 1)), dtype=dtype, rngs=rngs)
    if name == "deconv":
        return Deconvolution(features, features, scale=2, use_bias=True, dtype=dtype, rngs=rngs)
    if name == "carafe":
        return CARAFE(features, scale=2, dtype=dtype, rngs=rngs)
    if name in _A2U:
        return A2UKernels(features, kernel_size=_A2U[name], norm_groups=math.gcd(32, features), dtype=dtype, rngs=rngs)
    if name in FAMILIES:
        return IndexNetwork(features, family=name, **options, dtype=dtype, rngs=rngs)
    return None


def _of_stage(layers: Sequence[nnx.Module], stage: int) -> Layer:
    """Of no layers none, of one always this one."""
    return layers[stage % len(layers)] if layers else None
