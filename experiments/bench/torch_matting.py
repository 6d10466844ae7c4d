"""Networks of matting in plain PyTorch."""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from experiments.bench.torch_layers import Layers, Run
from jaxup.models.matting import A2UMatting, MattingNetwork

Pooled = tuple[Any, Any, Any]  # the smaller map, what joins the decoder, and what unpooling needs


def _of_column(column: Any) -> tuple[Any, ...]:
    return tuple(kernel[...].transpose(3, 2, 0, 1) for kernel in (column.kernel, column.mix))


def _index_network(network: Any, layers: Layers) -> Callable[[Any], tuple[Any, Any]]:
    """Nonlinear, many to one: the index maps for pooling and for upsampling."""
    torch, functional = layers.torch, layers.functional
    scale = network.scale[0]

    def run(x: Any) -> tuple[Any, Any]:
        logits = []
        for column in network.columns:
            kernel, mix = layers.tensors(column, partial(_of_column, column), leaves=2)
            y = functional.conv2d(x, kernel, stride=scale, padding=(kernel.shape[2] - scale) // 2)
            logits.append(functional.conv2d(torch.relu(layers.batch_norm(column.norm, y)), mix))
        gates = torch.stack(logits, 2).sigmoid()  # [B, C, positions, h, w]
        maps = (functional.pixel_shuffle(y.flatten(1, 2), scale) for y in (gates.softmax(2), gates))
        return next(maps), next(maps)

    return run


def _matting(network: MattingNetwork, layers: Layers) -> Run:
    """With MobileNetV2, concatenation and ASPP; max pooling and unpooling, or index networks."""
    functional, torch = layers.functional, layers.torch
    encoder = network.encoder
    blocks, ends = [encoder.stem, *encoder.blocks], [0, *(end + 1 for end in encoder.taps)]
    indices = [_index_network(layer, layers) for layer in network.resampling.down_layers]

    def block(layer: Any, x: Any) -> Any:
        if layer is encoder.stem:
            return layers(layer, x)
        y = functional.pad(x, (layer.margin,) * 4)
        y = y if layer.expand is None else layers(layer.expand, y)
        y = layers.through([layer.depthwise, layer.project], y)
        return x + y if layer.shortcut else y

    def down(stage: int, x: Any) -> Pooled:
        if not indices:
            smaller, places = functional.max_pool2d(x, 2, return_indices=True)
            return smaller, x, places
        for_pooling, for_upsampling = indices[stage](x)
        weighted = for_pooling * x
        return 4 * functional.avg_pool2d(weighted, 2), weighted, for_upsampling

    def up(x: Any, kept: Any) -> Any:
        return kept * layers.doubled(x) if indices else functional.max_unpool2d(x, kept, 2)

    def run(x: Any) -> Any:
        skips, kept = list[Any](), dict[int, Any]()
        for number, (start, end) in enumerate(itertools.pairwise(ends)):
            for layer in blocks[start:end]:
                x = block(layer, x)
            skip = x
            if number in network.pooled:
                x, skip, kept[number] = down(len(kept), x)
            skips.append(skip)
        x = layers.aspp(network.context, x)
        for number, decode in zip(reversed(range(len(skips) - 1)), network.decoder, strict=True):
            x = up(x, kept[number]) if number in kept else x
            x = layers.through(decode, torch.cat([x, skips[number]], 1))
        return layers.conv(network.predict.conv, layers.through(network.predict.blocks, x))

    return run


def _kernels(network: Any, layers: Layers) -> Callable[[Any], tuple[Any, Any]]:
    """Of A2U, dynamic, of rank 1, one filter for all channels: [B, (2 K)^2, h, w] and [B, K^2, 2 h, 2 w]."""
    functional, (factors,) = layers.functional, network.affinity.terms
    size = network.affinity.size

    def filtered(factor: Any, x: Any, pooled: Any) -> Any:
        images = x.flatten(0, 1)[None]
        taps = layers.conv(factor.filters, pooled).expand(-1, x.shape[1], -1, -1).flatten(0, 1)[:, None]
        y = functional.conv2d(images, taps, stride=2, padding=(size - 2) // 2, groups=len(taps))
        y = y[0].unflatten(0, x.shape[:2])
        return functional.leaky_relu(layers.group_norm(factor.norm, y), 0.01)

    def run(x: Any) -> tuple[Any, Any]:
        pooled = functional.adaptive_avg_pool2d(x, size)
        u, v = (filtered(factor, x, pooled) for factor in factors)
        affinity = (u * v).sum(1, keepdim=True) / math.sqrt(x.shape[1])
        mean = x.mean((2, 3))
        down, up = (affinity * layers.linear(head, mean)[:, :, None, None] for head in (network.down, network.up))
        return down.softmax(1), functional.pixel_shuffle(up, 2).sigmoid().softmax(1)

    return run


def _a2u(network: A2UMatting, layers: Layers) -> Run:
    """With its own kernels, ASPP and residual blocks, for images of multiples of 16."""
    functional, torch = layers.functional, layers.torch
    kernels = [_kernels(layer, layers) for layer in network.resampling.down_layers]

    def windows(x: Any, weights: Any, size: int, stride: int) -> Any:
        """Sums [B, C, n] by weights [B, size^2, h, w] or [B, size^2, n], faster than `torch_forms.reassemble`."""
        seen = functional.unfold(x, size, stride=stride, padding=(size - stride) // 2).unflatten(1, (-1, size**2))
        return (seen * weights.flatten(2)[:, None]).sum(2)

    def down(stage: int, x: Any) -> tuple[Any, Any]:
        for_smaller, for_larger = kernels[stage](x)
        size = math.isqrt(for_smaller.shape[1])
        return windows(x, for_smaller, size, 2).unflatten(2, for_smaller.shape[2:]), for_larger

    def up(x: Any, weights: Any) -> Any:
        size = math.isqrt(weights.shape[1])
        phases = functional.pixel_unshuffle(weights, 2).unflatten(1, (-1, 4))
        found = torch.stack([windows(x, phases[:, :, n], size, 1) for n in range(4)], 2)
        return functional.pixel_shuffle(found.flatten(1, 2).unflatten(2, x.shape[2:]), 2)

    def finish(block: Any, y: Any, x: Any) -> Any:
        short = x if block.shortcut is None else layers(block.shortcut, x)
        return functional.leaky_relu(layers(block.second, y) + short, 0.01)

    def through(blocks: Any, x: Any) -> Any:
        for block in blocks:
            x = finish(block, layers(block.first, x), x)
        return x

    def run(x: Any) -> Any:
        half, first = down(0, layers(network.stem, x))
        y, second = down(1, half)
        y = through(network.stages[0], y)
        skips, kept = [x, half], [first, second]
        for i, (block, *rest) in enumerate(list(network.stages)[1:], start=2):
            skips.append(y)
            smaller, memory = down(i, layers(block.first, y))
            y = through(rest, finish(block, smaller, y))
            kept.append(memory)
        y = layers.aspp(network.aspp, y)
        for skip, layer, decode, memory in reversed(
            list(zip(skips, network.skips, network.decoder, kept, strict=True))
        ):
            y = through(decode, up(y, memory) + layers(layer, skip))
        return layers.conv(network.alpha, layers(network.prediction, y))

    return run


FORMS: Mapping[type, Callable[[Any, Layers], Run]] = {MattingNetwork: _matting, A2UMatting: _a2u}
