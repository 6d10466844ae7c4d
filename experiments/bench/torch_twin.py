"""FDKN and DKN written plainly in PyTorch, with the weights of ours: what the benchmark compares their speed with."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.bench.measuring import pytorch
from jaxup.files import InputError
from jaxup.models import DKN, FDKN

Tensors = Mapping[str, Any]

_STRIDED = (1, 3)  # layers of DKN after which pixels are twice as far apart
_FIXED = ("mean", "var")  # of the normalisation
_SEEN = (25, 24)  # pixels that DKN sees before and after each


def dkn_twin(
    network: DKN | FDKN, depth: np.ndarray, guide: np.ndarray, *, gradients: bool = False
) -> Callable[[], np.ndarray]:
    """The same network in evaluation mode, for the paper's options; DKN with dilation in the place of its shifts.

    Returns:
        A function that upsamples depth [B, h, w, 1] under guide [B, H, W, 3] once more, to [B, H, W, 1]. With
        `gradients`, those of the output's sum for the guide, depth and parameters, of which it returns the guide's.

    Raises:
        InputError: PyTorch is not installed, or another network.
    """
    torch, fast = pytorch(), isinstance(network, FDKN)
    functional = torch.nn.functional
    if (
        network.guide_stream is None
        or network.grid != "centred"
        or not network.residual
        or (isinstance(network, FDKN) and network.luminance)
    ):
        raise InputError("network: expected a guided network on the paper's grid, with the residual")
    streams = {"depth": _tensors(network.depth_stream), "guide": _tensors(network.guide_stream)}
    size = network.kernel_size

    def stream(x: Any, tensors: Tensors) -> tuple[Any, Any]:
        y = functional.pixel_unshuffle(x, 4) if fast else functional.pad(x, 2 * _SEEN)
        dilation = 1
        for layer in range(6 if fast else 7):
            options = {"padding": 1} if fast else {"dilation": dilation}
            y = functional.conv2d(y, tensors[f"conv{layer}"], tensors[f"bias{layer}"], **options)
            if layer in (0, 2, 4):
                mean, var, scale, bias = (tensors[f"{name}{layer // 2}"] for name in ("mean", "var", "scale", "shift"))
                y = functional.batch_norm(y, mean, var, scale, bias)
            y = functional.relu(y)
            dilation *= 2 if layer in _STRIDED else 1
        weights = functional.conv2d(y, tensors["weights"], tensors["weights_bias"])
        offsets = functional.conv2d(y, tensors["offsets"], tensors["offsets_bias"])
        if fast:
            weights, offsets = functional.pixel_shuffle(weights, 4), functional.pixel_shuffle(offsets, 4)
        return torch.sigmoid(weights), offsets

    target_in, image = (torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for x in (depth, guide))
    leaves = [
        image,
        target_in,
        *(x for tensors in streams.values() for n, x in tensors.items() if n[:-1] not in _FIXED),
    ]
    for leaf in leaves:
        leaf.requires_grad_(gradients)
    height, width = image.shape[2:]

    def run() -> Any:
        target = functional.interpolate(target_in, size=(height, width), mode="bicubic")
        (w1, o1), (w2, o2) = stream(target, streams["depth"]), stream(image, streams["guide"])
        weights, offsets = w1 * w2, o1 * o2
        weights = weights - weights.mean(1, keepdim=True)
        steps = torch.arange(size) - (size - 1) / 2
        rows = torch.arange(height)[:, None] + steps.repeat_interleave(size)[:, None, None] + offsets[:, 0::2]
        columns = torch.arange(width) + steps.repeat(size)[:, None, None] + offsets[:, 1::2]
        points = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
        samples = functional.grid_sample(
            target, points.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return target + (weights * samples.reshape(weights.shape)).sum(1, keepdim=True)

    def last(x: Any) -> np.ndarray:
        found: np.ndarray = x.permute(0, 2, 3, 1).numpy()
        return found

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return last(run())

    return (lambda: last(torch.autograd.grad(run().sum(), leaves)[0])) if gradients else forward


def _tensors(stream: Any) -> dict[str, Any]:
    import torch

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.array(jax.device_get(array)))

    def kernel(conv: Any) -> Any:
        return tensor(conv.kernel[...]).permute(3, 2, 0, 1).contiguous()

    found = {"weights": kernel(stream.weight_head), "offsets": kernel(stream.offset_head)}
    found |= {
        "weights_bias": tensor(stream.weight_head.bias[...]),
        "offsets_bias": tensor(stream.offset_head.bias[...]),
    }
    for index, conv in enumerate(stream.convs):
        found |= {f"conv{index}": kernel(conv), f"bias{index}": tensor(conv.bias[...])}
    for index, norm in enumerate(stream.norms):
        found |= {f"mean{index}": tensor(norm.mean[...]), f"var{index}": tensor(norm.var[...])}
        found |= {f"scale{index}": tensor(norm.scale[...]), f"shift{index}": tensor(norm.bias[...])}
    return found
