"""The layers of our networks as plain functions of PyTorch, with copies of their weights."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxup.models.matting.a2u import leaky_relu
from jaxup.nn.functions import by_name
from jaxup.nn.norms import InPlaceABN

Run = Callable[[Any], Any]


class Layers:
    """The layers of a network as functions of tensors [B, C, H, W], whose weights are copied at the first call."""

    def __init__(self, torch: Any):
        self.torch, self.functional = torch, torch.nn.functional
        self._activations = {
            by_name(nnx.relu): torch.relu,
            by_name(nnx.relu6): self.functional.relu6,
            by_name(leaky_relu): lambda x: self.functional.leaky_relu(x, 0.01),
        }
        self.leaves: list[Any] = []
        self._held: dict[int, tuple[Any, ...]] = {}

    def conv(self, layer: Any, x: Any) -> Any:
        """A convolution with symmetric zeros around its input, or none."""
        kernel, bias = self.tensors(layer, lambda: (layer.kernel[...].transpose(3, 2, 0, 1), layer.bias), leaves=2)
        dilation, stride = _pair(layer.kernel_dilation), _pair(layer.strides)
        around = 0 if layer.padding == "VALID" else 1
        margin = [around * d * (k // 2) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        return self.functional.conv2d(
            x, kernel, bias, stride, margin, dilation=dilation, groups=layer.feature_group_count
        )

    def linear(self, layer: Any, x: Any) -> Any:
        """Of the last axis."""
        kernel, bias = self.tensors(layer, lambda: (layer.kernel[...].T, layer.bias), leaves=2)
        return self.functional.linear(x, kernel, bias)

    def layer_norm(self, norm: Any, x: Any) -> Any:
        """Over the last axis."""
        scale, bias = self.tensors(norm, lambda: (norm.scale, norm.bias), leaves=2)
        return self.functional.layer_norm(x, scale.shape, scale, bias, norm.epsilon)

    def group_norm(self, norm: Any, x: Any) -> Any:
        """Over groups of channels and all pixels."""
        scale, bias = self.tensors(norm, lambda: (norm.scale, norm.bias), leaves=2)
        return self.functional.group_norm(x, norm.num_groups, scale, bias, norm.epsilon)

    def batch_norm(self, norm: Any, x: Any) -> Any:
        """By the running statistics."""
        mean, var, scale, bias = self.tensors(norm, lambda: (norm.mean, norm.var, norm.scale, norm.bias), leaves=-2)
        scale = scale.abs() + norm.epsilon if isinstance(norm, InPlaceABN) else scale
        return self.functional.batch_norm(x, mean, var, scale, bias, eps=norm.epsilon)

    def __call__(self, layer: Any, x: Any) -> Any:
        """Convolution, norm and activation."""
        y = self.batch_norm(layer.norm, self.conv(layer.conv, x))
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

    def enlarged(self, x: Any, size: Any, *, align_corners: bool = False) -> Any:
        """Bilinear, to the size of a map, or a size."""
        size = getattr(size, "shape", size)[-2:]
        return self.functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def resnet(self, network: Any, x: Any) -> list[Any]:
        """The map of the stem, and those of the stages."""
        maps = [self.through(network.stem, x)]
        y = self.functional.max_pool2d(maps[0], 3, 2, 1)
        for stage in network.stages:
            for block in stage:
                short = y if block.shortcut is None else self(block.shortcut, y)
                y = self.torch.relu(self.through(block.convs, y) + short)
            maps.append(y)
        return maps

    def aspp(self, layer: Any, x: Any) -> Any:
        """Atrous spatial pyramid pooling."""
        mean = self(layer.mean, x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        parts = [self.through(branch, x) for branch in layer.branches]
        return self(layer.bottleneck, self.torch.cat([*parts, mean], 1))

    def tensors(self, layer: Any, arrays: Callable[[], tuple[Any, ...]], *, leaves: int) -> tuple[Any, ...]:
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
