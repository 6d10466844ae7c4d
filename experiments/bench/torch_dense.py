"""Networks of segmentation, matting and monocular depth written plainly in PyTorch, with the weights of ours."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, cast

import jax
import numpy as np
from flax import nnx

from experiments.bench.measuring import pytorch
from jaxup.files import InputError
from jaxup.models.matting import MattingNetwork
from jaxup.models.monocular_depth import FastDepth
from jaxup.models.segmentation import SemanticFPN
from jaxup.nn.functions import by_name


def dense_twin(network: Any, image: np.ndarray, *, gradients: bool = False) -> Callable[[], np.ndarray]:
    """The same network in evaluation mode, as `experiments.bench.networks` builds it.

    Returns:
        A function that maps the image [B, H, W, Cin] to [B, h, w, C] once more. With `gradients`, those of the output's
        sum for image and parameters, of which it returns the image's.

    Raises:
        InputError: PyTorch is not installed, or another network.
    """
    torch = pytorch()
    forms: dict[Any, Any] = {SemanticFPN: _semantic_fpn, FastDepth: _fast_depth, MattingNetwork: _matting}
    if type(network) not in forms:
        raise InputError(f"network: expected one of {', '.join(f.__name__ for f in forms)}")
    layers = _Layers(torch)
    run = forms[type(network)](network, layers)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode(False), torch.no_grad():
        run(x)  # which makes the tensors of all layers
    leaves = [x, *layers.leaves]
    for leaf in leaves:
        leaf.requires_grad_(gradients)

    def last(y: Any) -> np.ndarray:
        found: np.ndarray = y.permute(0, 2, 3, 1).numpy()
        return found

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return last(run(x))

    return (lambda: last(torch.autograd.grad(run(x).sum(), leaves)[0])) if gradients else forward


class _Layers:
    """The layers of a network as functions of tensors [B, C, H, W], whose weights are copied at the first call."""

    def __init__(self, torch: Any):
        self.torch, self.functional = torch, torch.nn.functional
        self._activations = {by_name(nnx.relu): torch.relu, by_name(nnx.relu6): self.functional.relu6}
        self.leaves: list[Any] = []
        self._held: dict[int, tuple[Any, ...]] = {}

    def conv(self, layer: Any, x: Any) -> Any:
        """A convolution with symmetric zeros around its input, or none."""
        kernel, bias = self._tensors(layer, lambda: (layer.kernel[...].transpose(3, 2, 0, 1), layer.bias), leaves=2)
        dilation, stride = _pair(layer.kernel_dilation), _pair(layer.strides)
        around = 0 if layer.padding == "VALID" else 1
        margin = [around * d * (k // 2) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        return self.functional.conv2d(
            x, kernel, bias, stride, margin, dilation=dilation, groups=layer.feature_group_count
        )

    def __call__(self, layer: Any, x: Any) -> Any:
        """Convolution, norm and activation."""
        norm = layer.norm
        mean, var, scale, bias = self._tensors(norm, lambda: (norm.mean, norm.var, norm.scale, norm.bias), leaves=-2)
        y = self.functional.batch_norm(self.conv(layer.conv, x), mean, var, scale, bias, eps=norm.epsilon)
        activation = getattr(layer, "activation", by_name(nnx.relu6))
        return y if activation is None else self._activations[activation](y)

    def through(self, layers: Iterable[Any], x: Any) -> Any:
        """One after the other."""
        for layer in layers:
            x = self(layer, x)
        return x

    def doubled(self, x: Any, mode: str = "nearest") -> Any:
        """Twice as large."""
        return self.functional.interpolate(x, scale_factor=2, mode=mode)

    def _tensors(self, layer: Any, arrays: Callable[[], tuple[Any, ...]], *, leaves: int) -> tuple[Any, ...]:
        """Those of a layer; the first or the last few are what gradients are for."""
        if id(layer) not in self._held:
            held = tuple(None if array is None else self._tensor(array) for array in arrays())
            self.leaves += [x for x in (held[:leaves] if leaves > 0 else held[leaves:]) if x is not None]
            self._held[id(layer)] = held
        return self._held[id(layer)]

    def _tensor(self, array: Any) -> Any:
        return self.torch.from_numpy(np.array(jax.device_get(array[...]), order="C"))


def _pair(number: Any) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (number[0], number[-1])


def _semantic_fpn(network: SemanticFPN, layers: _Layers) -> Callable[[Any], Any]:
    """With a ResNet and nearest interpolation in the pyramid."""
    functional, torch = layers.functional, layers.torch

    def block(layer: Any, x: Any) -> Any:
        return torch.relu(layers.through(layer.convs, x) + (x if layer.shortcut is None else layers(layer.shortcut, x)))

    def run(x: Any) -> Any:
        y, maps = functional.max_pool2d(layers.through(network.backbone.stem, x), 3, 2, 1), list[Any]()
        for stage in network.backbone.stages:
            for layer in stage:
                y = block(layer, y)
            maps.append(y)
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


def _fast_depth(network: FastDepth, layers: _Layers) -> Callable[[Any], Any]:
    """With MobileNet, nearest interpolation and no skips."""

    def run(x: Any) -> Any:
        for unit in network.backbone.units:
            x = layers.through(unit, x)
        for stage in network.stages:
            x = layers.doubled(layers.through(stage.layers, x))
        return layers(network.head, x)

    return run


def _matting(network: MattingNetwork, layers: _Layers) -> Callable[[Any], Any]:
    """With MobileNetV2, max pooling and unpooling, concatenation and ASPP."""
    functional, torch = layers.functional, layers.torch
    encoder, context = network.encoder, cast(Any, network.context)
    blocks, ends = [encoder.stem, *encoder.blocks], [0, *(end + 1 for end in encoder.taps)]

    def block(layer: Any, x: Any) -> Any:
        if layer is encoder.stem:
            return layers(layer, x)
        y = functional.pad(x, (layer.margin,) * 4)
        y = y if layer.expand is None else layers(layer.expand, y)
        y = layers.through([layer.depthwise, layer.project], y)
        return x + y if layer.shortcut else y

    def aspp(x: Any) -> Any:
        mean = layers(context.mean, x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return layers(context.bottleneck, torch.cat([*(layers.through(b, x) for b in context.branches), mean], 1))

    def run(x: Any) -> Any:
        skips, kept = list[Any](), dict[int, Any]()
        for number, (start, end) in enumerate(itertools.pairwise(ends)):
            for layer in blocks[start:end]:
                x = block(layer, x)
            skips.append(x)
            if number in network.pooled:
                x, kept[number] = functional.max_pool2d(x, 2, return_indices=True)
        x = aspp(x)
        for number, decode in zip(reversed(range(len(skips) - 1)), network.decoder, strict=True):
            if number in kept:
                x = functional.max_unpool2d(x, kept[number], 2)
            x = layers.through(decode, torch.cat([x, skips[number]], 1))
        return layers.conv(network.predict.conv, layers.through(network.predict.blocks, x))

    return run
