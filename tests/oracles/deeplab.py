"""DeepLab-v2 by loops over pixels, on a ResNet of Caffe's style with one bottleneck a stage; the deep guided filter."""

import numpy as np

from tests.oracles.filters import guided_filter
from tests.oracles.resize import resize

# Stride of the first convolution and dilation of the second, of each stage.
STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))


def conv(x, kernel, stride=1, dilation=1, bias=0.0):
    """A convolution with zeros outside, centred on every `stride`-th pixel; x [H, W, C]."""
    height, width, _ = x.shape
    reach = len(kernel) // 2
    out = np.zeros((-(-height // stride), -(-width // stride), kernel.shape[3])) + bias
    for i, j in np.ndindex(out.shape[:2]):
        for u, v in np.ndindex(kernel.shape[:2]):
            row, column = stride * i + (u - reach) * dilation, stride * j + (v - reach) * dilation
            if 0 <= row < height and 0 <= column < width:
                out[i, j] += x[row, column] @ kernel[u, v]
    return out


def max_pool(x):
    """The largest of 3 x 3 pixels around every second one, as many as there are windows that see a pixel."""
    height, width, channels = x.shape
    out = np.zeros(((height + 2) // 2, (width + 2) // 2, channels))
    for i, j in np.ndindex(out.shape[:2]):
        out[i, j] = x[max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2].max((0, 1))
    return out


def _layer(x, params, name, **options):
    """Convolution and norm."""
    norm = {key: params[f"{name}.norm.{key}"] for key in ("scale", "bias", "mean", "var")}
    y = conv(x, params[f"{name}.conv.kernel"], **options)
    return (y - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]


def backbone(x, params):
    """The last map of the ResNet."""
    y = max_pool(np.maximum(_layer(x, params, "backbone.stem.0", stride=2), 0))
    for i, (stride, dilation) in enumerate(STAGES):
        name = f"backbone.stages.{i}.0"
        z = np.maximum(_layer(y, params, f"{name}.convs.0", stride=stride), 0)
        z = np.maximum(_layer(z, params, f"{name}.convs.1", dilation=dilation), 0)
        z = _layer(z, params, f"{name}.convs.2")
        y = np.maximum(z + _layer(y, params, f"{name}.shortcut", stride=stride), 0)
    return y


def enlarged(x, size):
    """Bilinear, corners on corners."""
    return resize(x[None], size, "bilinear", align_corners=True)[0]


def scales(x, params, dilations, factors=(1, 0.75, 0.5)):
    """The logits of each scale of an image [H, W, C]."""
    found = []
    for factor in factors:
        size = tuple(int(factor * n) + 1 for n in x.shape[:2])
        last = backbone(x if factor == 1 else enlarged(x, size), params)
        found.append(
            sum(
                conv(last, params[f"classifiers.{n}.kernel"], dilation=d, bias=params[f"classifiers.{n}.bias"])
                for n, d in enumerate(dilations)
            )
        )
    return found


def coarse(found):
    """The largest of all scales."""
    return np.max([enlarged(y, found[0].shape[:2]) for y in found], axis=0)


def deep_guided_filter(x, guide, params, radius, eps):
    """Of maps [B, h, w, C] under images [B, H, W, 3]."""
    hidden = guide @ params["first.kernel"][0, 0] + params["first.bias"]
    learned = np.maximum(hidden, 0) @ params["second.kernel"][0, 0] + params["second.bias"]
    y = resize(x, guide.shape[1:3], "bilinear", align_corners=True)
    channels = [guided_filter(y[..., [c]], learned[..., [c]], (radius, radius), eps) for c in range(y.shape[3])]
    return np.concatenate(channels, axis=3)
