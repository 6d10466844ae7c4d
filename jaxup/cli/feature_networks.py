"""Encoders and upsamplers of the subcommand `features`: how photographs are prepared for them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup import ops, solvers
from jaxup.files import InputError
from jaxup.interop.load import FEATURE_UPSAMPLERS, IMAGENET, load, statistics
from jaxup.models import VisionEncoder
from jaxup.nn import JAFAR, UPLiFT

Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Upsample = Callable[[jax.Array, jax.Array, tuple[int, int]], jax.Array]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def make_features(
    encoder: str,
    weights: str | None,
    layer: int | None,
    upsampler: str | None,
    upsampler_weights: str | None,
    *,
    longest: int,
) -> Features:
    """From uint8 [H, W, 3] to features of patches [h, w, C], and the same at the photograph's size, or themselves.

    Raises:
        InputError: modules that do not fit each other.
        ValueError: as `load`.
    """
    network: Any = load(encoder, weights=weights)
    if not isinstance(network, VisionEncoder):
        raise InputError(f"--encoder {encoder}: {type(network).__name__} is no encoder of features")
    depth = len(network.blocks)
    if layer is not None and not 0 <= layer <= depth:
        raise InputError(f"--layer {layer}: expected 0 to {depth}, the blocks of {encoder}")
    network.taps = (depth if layer is None else layer,)
    encode = _compiled(network, lambda module, image: module(image)[0])
    enlarge = None if upsampler is None else _upsampler(upsampler, upsampler_weights, network)

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = reduced(pixels.shape[:2], longest)
        image = jnp.asarray(pixels, jnp.float32)[None] / 255
        image = image if size == pixels.shape[:2] else ops.resize(image, size=size, method="bilinear", antialias=True)
        patch = network.patch_size
        whole = tuple(patch * max(1, round(n / patch)) for n in size)
        fitting = image if whole == size else ops.resize(image, size=whole, method="bilinear", antialias=True)
        coarse = encode(normalised(fitting, statistics(network)))
        fine = coarse if enlarge is None else enlarge(coarse, image, size)
        return np.asarray(coarse)[0], np.asarray(fine)[0]

    return run


def reduced(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """The size whose longer side has no more pixels than `longest`, if that is not 0."""
    height, width = size
    if not longest or max(size) <= longest:
        return height, width
    return tuple(max(1, round(n * longest / max(size))) for n in size)  # type: ignore[return-value]


def normalised(image: jax.Array, of: Statistics) -> jax.Array:
    """Colours less their mean, over their deviation."""
    mean, deviation = (jnp.asarray(values)[None, None, None] for values in of)
    return (image - mean) / deviation


def _compiled(module: nnx.Module, call: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, *arrays, size: call(nnx.merge(graph, state), *arrays, **size), static_argnames="size")
    return lambda *arrays, **size: run(state, *arrays, size=_Static(size))


class _Static(dict[str, Any]):
    """Options that do not change."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _upsampler(name: str, weights: str | None, encoder: VisionEncoder) -> Upsample:
    if name in PLAIN:
        if weights is not None:
            raise InputError(f"{weights}: {name} takes no weights")
        return PLAIN[name]
    if weights is None and name in FEATURE_UPSAMPLERS and name != "uplift":
        raise InputError(f"{name} needs --upsampler-weights FILE")
    module = load(name, weights=weights)
    if not isinstance(module, tuple(FEATURE_UPSAMPLERS.values())):
        raise InputError(f"--upsampler {name}: {type(module).__name__} is no upsampler of features")
    seen = colours_for(module, statistics(encoder))
    return upsampling(module, weights or name, encoder.embed.out_features, encoder.patch_size, seen)


def colours_for(module: Any, own: Statistics) -> Statistics:
    """By which mean and deviation an upsampler wants its image normalised, beside an encoder that has its own."""
    return own if isinstance(module, UPLiFT | JAFAR) else IMAGENET


def upsampling(module: Any, label: str, channels: int, patch_size: int, seen: Statistics) -> Upsample:
    """An upsampler as a compiled function of features, of an image in 0 .. 1, and of the size that is wanted.

    Args:
        module: one of `FEATURE_UPSAMPLERS`.
        label: what errors call it.
        channels: of the encoder's features.
        patch_size: of the encoder.
        seen: mean and deviation by which the image is normalised.

    Raises:
        InputError: it is for other features.
    """
    if getattr(module, "in_features", channels) != channels:
        raise InputError(f"{label}: an upsampler of {module.in_features} channels, the encoder has {channels}")
    if isinstance(module, UPLiFT):
        module.patch_size = patch_size  # files do not say
    run = _compiled(module, lambda module, x, image, size: module(x, image, size=size))
    return lambda x, image, size: run(x, normalised(image, seen), size=size)


def _bilinear(x: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    return ops.resize(x, size=size, method="bilinear")


def _fitted(x: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    return solvers.upsample_anything(x, image)


PLAIN: dict[str, Upsample] = {"bilinear": _bilinear, "fitted": _fitted}  # without weights
