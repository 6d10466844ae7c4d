"""Networks of monocular depth in plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.bench.torch_layers import Layers, Run
from jaxup.models.monocular_depth import FastDepth, HuDepthNetwork


def _fast_depth(network: FastDepth, layers: Layers) -> Run:
    """With MobileNet, nearest interpolation and no skips."""

    def run(x: Any) -> Any:
        for unit in network.backbone.units:
            x = layers.through(unit, x)
        for stage in network.stages:
            x = layers.doubled(layers.through(stage.layers, x))
        return layers(network.head, x)

    return run


def _hu(network: HuDepthNetwork, layers: Layers) -> Run:
    """With a ResNet and bilinear interpolation."""
    torch = layers.torch

    def projected(layer: Any, x: Any) -> Any:
        return torch.relu(layers(layer.second, layers(layer.first, x)) + layers(layer.shortcut, x))

    def run(x: Any) -> Any:
        _, *maps = layers.resnet(network.backbone, x)
        sizes = [y.shape[2:] for y in maps]
        sizes.insert(0, [2 * n for n in sizes[0]])

        def enlarged(y: Any, size: Any) -> Any:
            return layers.enlarged(y, size, align_corners=network.align_corners)

        y = layers(network.reduce, maps[-1])
        for layer, size in zip(network.up, sizes[-2::-1], strict=True):
            y = projected(layer, enlarged(y, size))
        parts = [projected(layer, enlarged(z, sizes[0])) for layer, z in zip(network.fusion, maps, strict=True)]
        fused = layers(network.fuse, torch.cat(parts, 1))
        return layers.conv(network.head, layers.through(network.refine, torch.cat([y, fused], 1)))

    return run


FORMS: Mapping[type, Callable[[Any, Layers], Run]] = {FastDepth: _fast_depth, HuDepthNetwork: _hu}
