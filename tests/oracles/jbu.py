"""Slow NumPy truth of FeatUp's joint bilateral upsampling, one pixel after the other."""

import math

import numpy as np

from tests.oracles.reassemble import reflected
from tests.oracles.resize import resize


def projection(x, params, path):
    """1x1 convolution, GELU with the error function, 1x1 convolution."""
    y = x @ params[f"{path}.first.kernel"][0, 0] + params[f"{path}.first.bias"]
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return y @ params[f"{path}.second.kernel"][0, 0] + params[f"{path}.second.bias"]


def jbu(x, guide, params, radius, path=""):
    """x [B,h,w,C], guide [B,H,W,G]; the fix-up where `params` has one."""
    batch, height, width, _ = guide.shape
    source = resize(x, (height, width), "bicubic")
    keys = projection(guide, params, f"{path}range")
    temperature = min(max(math.exp(params[f"{path}temperature"]), 1e-4), 1e4)
    reach = range(-radius, radius + 1)
    near = np.array(
        [math.exp(-(dy**2 + dx**2) / radius**2 / (2 * params[f"{path}sigma"] ** 2)) for dy in reach for dx in reach]
    )
    out = np.zeros((batch, height, width, x.shape[3]))
    for b, i, j in np.ndindex(batch, height, width):
        window = [(reflected(i + dy, height), reflected(j + dx, width)) for dy in reach for dx in reach]
        scores = temperature * np.array([keys[b, i, j] @ keys[b, row, col] for row, col in window])
        weights = np.exp(scores - scores.max())
        weights = weights / weights.sum() * near
        weights = weights / max(weights.sum(), 1e-7)
        if f"{path}fixup.first.kernel" in params:
            weights = weights + 0.1 * projection(np.concatenate([weights, guide[b, i, j]]), params, f"{path}fixup")
        out[b, i, j] = sum(w * source[b, row, col] for w, (row, col) in zip(weights, window, strict=True))
    return out


def stack_jbu(x, guide, params, stages, radius):
    for n in range(stages):
        size = (2 * x.shape[1], 2 * x.shape[2])
        x = jbu(x, resize(guide, size, "area"), params, radius, f"stages.{n}.")
    if "fixup.kernel" not in params:
        return x
    return x + 0.1 * (x @ params["fixup.kernel"][0, 0] + params["fixup.bias"])
