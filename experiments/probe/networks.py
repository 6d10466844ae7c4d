"""Frozen encoders and upsamplers, and the linear probes on what they make."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.engine.runs import jitted
from experiments.segmentation import features
from jaxup.cli.feature_networks import PLAIN, Statistics, Upsample, colours_for, normalised, upsampling
from jaxup.files import InputError
from jaxup.interop.load import FEATURE_UPSAMPLERS, load, statistics
from jaxup.models import VisionEncoder
from jaxup.nn import initializers

SMALL = get_args(features.Backbone)
"""Encoders that need no download: maps of stride 16 of the networks of `segmentation frozen`."""
BARE: Statistics = ((0.0,) * 3, (1.0,) * 3)
"""Colours as they are."""
_BINS, _NEAREST, _FARTHEST = 256, 1e-3, 10.0
_STRIDE = 16


class Encoder(NamedTuple):
    """A frozen encoder.

    Attributes:
        encode: images in 0 .. 1 [B, H, W, 3], and the mean and deviation of colours -> features [B, h, w, C] and a
            vector for the whole image [B, C], of the class token or the mean of the features.
        channels: C.
        patch_size: pixels of a cell's side.
        colours: mean and deviation that its weights expect.
    """

    encode: Callable[[jax.Array, Statistics], tuple[jax.Array, jax.Array]]
    channels: int
    patch_size: int
    colours: Statistics


@lru_cache(2)
def open_encoder(name: str, folder: Path) -> Encoder:
    """An encoder by a name of `SMALL`, whose weights are kept in `folder`, or whatever `jaxup.load` takes.

    Raises:
        ValueError: as `jaxup.load`; InputError: it is something else than an encoder.
    """
    with jax.ensure_compile_time_eval():  # also where the shapes of a network are traced
        return _opened(name, folder)


def _opened(name: str, folder: Path) -> Encoder:
    if name in SMALL:
        folder.mkdir(parents=True, exist_ok=True)
        backbone: Any = features.build_backbone(name, folder)  # type: ignore[arg-type]
        run = jitted(backbone, _strided)
        channels = dict(zip(backbone.strides, backbone.features, strict=True))[_STRIDE]
        colours: Statistics = ((127 / 255,) * 3, (128 / 255,) * 3)
        return Encoder(lambda image, seen: run(normalised(image, seen)), channels, _STRIDE, colours)
    network = load(name)
    if not isinstance(network, VisionEncoder):
        raise InputError(f"encoder: {name} is {type(network).__name__}, no encoder of features")
    encode = jitted(network, _encoded)
    channels, patch_size = network.embed.out_features, network.patch_size
    return Encoder(lambda image, seen: encode(normalised(image, seen)), channels, patch_size, statistics(network))


def _encoded(network: VisionEncoder, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    tokens, (found,) = network.encode(x)
    return found, tokens[:, 0] if network.class_token is not None else found.mean((1, 2))


def _strided(network: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    found = dict(zip(network.strides, network(x), strict=True))[_STRIDE]
    return found, found.mean((1, 2))


def open_upsampler(name: str, encoder: Encoder, seen: Statistics | None = None) -> Upsample:
    """An upsampler: bilinear, fitted, or whatever `jaxup.load` takes.

    Args:
        name: which.
        encoder: whose features it is for.
        seen: mean and deviation of the image's colours, in the place of what it expects.

    Raises:
        ValueError: as `jaxup.load`; InputError: it is something else, or for other features.
    """
    if name in PLAIN:
        return PLAIN[name]
    module = load_upsampler(name)
    return upsampling(module, name, encoder.channels, encoder.patch_size, seen or colours_for(module, encoder.colours))


def load_upsampler(name: str) -> nnx.Module:
    """One that is not in `PLAIN`, by whatever `jaxup.load` takes."""
    module = load(name)
    if not isinstance(module, tuple(FEATURE_UPSAMPLERS.values())):
        raise InputError(f"upsampler: {name} is {type(module).__name__}, no upsampler of features")
    return module


def patch_of(name: str, folder: Path) -> int:
    """Pixels of a cell's side of an encoder's features."""
    return _STRIDE if name in SMALL else open_encoder(name, folder).patch_size


class Segmenter(nnx.Module):
    """Logits of the classes, linear in the features of a pixel."""

    def __init__(self, channels: int, classes: int, rngs: nnx.Rngs):
        self.classify = _linear(channels, classes, rngs)

    def __call__(self, x: jax.Array, whole: jax.Array) -> jax.Array:
        """Features [B, H, W, C] -> [B, H, W, classes]."""
        return self.classify(x)


class DepthProbe(nnx.Module):
    """Depth as a mean of 256 depths, whose weights are linear in the features of a pixel and the vector of the image.

        w = relu(linear([x, v / |v|])) + 0.1,   depth = sum_i w_i d_i / sum_i w_i,   d from 1 mm to 10 m

    `calls` counts the losses, as the first hundred differ.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.classify = _linear(2 * channels, _BINS, rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array, whole: jax.Array) -> jax.Array:
        """Features [B, H, W, C] and vectors [B, C] -> metres [B, H, W, 1]."""
        whole = whole / jnp.maximum(jnp.linalg.norm(whole, axis=-1, keepdims=True), 1e-12)
        joined = [x, jnp.broadcast_to(whole[:, None, None], (*x.shape[:3], whole.shape[1]))]
        weights = nnx.relu(self.classify(jnp.concatenate(joined, axis=-1))) + 0.1
        depths = jnp.asarray(np.linspace(_NEAREST, _FARTHEST, _BINS), weights.dtype)
        return (weights @ depths / weights.sum(-1))[..., None]


def _linear(channels: int, features: int, rngs: nnx.Rngs) -> nnx.Linear:
    """With PyTorch's initial weights."""
    return nnx.Linear(
        channels, features, kernel_init=initializers.variance_scaling(1 / 3, "fan_in", "uniform"), rngs=rngs
    )
