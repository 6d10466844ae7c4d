"""Networks of segmentation in plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.bench.torch_layers import Layers, Run
from jaxup.models.backbones import MiT
from jaxup.models.segmentation import SegFormer, SemanticFPN, UperNet


def _semantic_fpn(network: SemanticFPN, layers: Layers) -> Run:
    """With a ResNet and nearest interpolation in the pyramid."""

    def run(x: Any) -> Any:
        maps = layers.resnet(network.backbone, x)[1:]
        levels = [layers.conv(lateral, y) for lateral, y in zip(network.neck.laterals, maps, strict=True)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + layers.doubled(levels[i + 1])
        total: Any = 0
        for i, (smooth, head) in enumerate(zip(network.neck.smooth, network.head.levels, strict=True)):
            y = layers.conv(smooth, levels[i])
            for layer in head:
                y = layers.doubled(layers(layer, y), "bilinear") if i else layers(layer, y)
            total = y + total
        return layers.conv(network.head.classifier.conv, total)

    return run


def _upernet(network: UperNet, layers: Layers) -> Run:
    """With a ResNet and bilinear interpolation everywhere; its auxiliary head is not run."""
    functional, torch, head = layers.functional, layers.torch, network.head

    def pooled(x: Any) -> Any:
        parts = [x]
        for scale, branch in zip(head.pooling.scales, head.pooling.branches, strict=True):
            parts.append(layers.enlarged(layers(branch, functional.adaptive_avg_pool2d(x, scale)), x))
        return torch.cat(parts, 1)

    def run(x: Any) -> Any:
        *finer, last = layers.resnet(network.backbone, x)[1:]
        laterals = [layers(lateral, y) for lateral, y in zip(head.laterals, finer, strict=True)]
        levels = [layers(head.bottleneck, pooled(last))]
        for lateral in reversed(laterals):
            levels.insert(0, lateral + layers.enlarged(levels[0], lateral))
        levels[:-1] = [layers(smooth, y) for smooth, y in zip(head.smooth, levels, strict=False)]
        parts = [levels[0], *(layers.enlarged(y, levels[0]) for y in levels[1:])]
        return layers.conv(head.classifier.conv, layers(head.fuse, torch.cat(parts, 1)))

    return run


def _tokens(x: Any) -> Any:
    return x.flatten(2).transpose(1, 2)


def _mix_transformer(network: MiT, layers: Layers) -> Callable[[Any], list[Any]]:
    functional = layers.functional

    def image(tokens: Any, size: Any) -> Any:
        return tokens.transpose(1, 2).unflatten(2, size)

    def attention(layer: Any, x: Any, size: Any) -> Any:
        attend, reduce = layer.attend, layer.reduce
        source = x
        if reduce is not None:
            source = layers.layer_norm(reduce.norm, _tokens(layers.conv(reduce.conv, image(x, size))))
        of = (attend.query, x), (attend.key, source), (attend.value, source)
        heads = [layers.linear(by, y).unflatten(2, (attend.heads, -1)).transpose(1, 2) for by, y in of]
        y = functional.scaled_dot_product_attention(*heads)
        return layers.linear(attend.project, y.transpose(1, 2).flatten(2))

    def mlp(layer: Any, x: Any, size: Any) -> Any:
        y = _tokens(layers.conv(layer.mix, image(layers.linear(layer.expand, x), size)))
        return layers.linear(layer.reduce, functional.gelu(y))

    def run(x: Any) -> list[Any]:
        maps = []
        for stage in network.stages:
            x = layers.conv(stage.embed, x)
            size = x.shape[2:]
            y = layers.layer_norm(stage.embed_norm, _tokens(x))
            for block in stage.blocks:
                for part, layer in ((block.attention, attention), (block.mlp, mlp)):
                    y = y + layer(part.layer, layers.layer_norm(part.norm, y), size)
            x = image(layers.layer_norm(stage.norm, y), size)
            maps.append(x)
        return maps

    return run


def _segformer(network: SegFormer, layers: Layers) -> Run:
    """With mmsegmentation's head and bilinear interpolation."""
    backbone = _mix_transformer(network.backbone, layers)

    def run(x: Any) -> Any:
        first, *rest = [layers(by, y) for by, y in zip(network.project, backbone(x), strict=True)]
        levels = [first, *(layers.enlarged(y, first) for y in rest)]
        y = layers(network.fuse, layers.torch.cat(levels, 1))
        return layers.linear(network.classifier, y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return run


FORMS: Mapping[type, Callable[[Any, Layers], Run]] = {
    SemanticFPN: _semantic_fpn,
    UperNet: _upernet,
    SegFormer: _segformer,
}
