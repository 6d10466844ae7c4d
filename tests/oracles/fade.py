"""Slow NumPy truth of FADE, written in its high-to-low form: a strided convolution per phase, plus the LR term."""

import numpy as np

from tests.oracles.reassemble import reassemble


def convolution_at(x, kernel, row, col):
    """A zero-padded convolution of one map [H, W, Cin] with [K, K, Cin / groups, Cout] at one position."""
    size, _, depth, outputs = kernel.shape
    out = np.zeros(outputs)
    for a, b, o in np.ndindex(size, size, outputs):
        y, z = row + a - size // 2, col + b - size // 2
        group = o * (x.shape[2] // depth) // outputs
        if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
            out[o] += x[y, z, group * depth : (group + 1) * depth] @ kernel[a, b, :, o]
    return out


def semi_shift(x, guide, params, scale, prefix=""):
    """x [B,h,w,Cin], guide [B,H,W,Cg] -> logits [B,H,W,Cout]; `params` by path."""
    low = x @ params[f"{prefix}compress_x.kernel"][0, 0]
    high = guide @ params[f"{prefix}compress_guide.kernel"][0, 0] + params[f"{prefix}compress_guide.bias"]
    kernel, bias = params[f"{prefix}conv.kernel"], params[f"{prefix}conv.bias"]
    out = np.zeros((*guide.shape[:3], kernel.shape[3]))
    for b, i, j in np.ndindex(x.shape[:3]):
        of_x = convolution_at(low[b], kernel, i, j) + bias
        for u, v in np.ndindex(*scale):
            row, col = scale[0] * i + u, scale[1] * j + v
            out[b, row, col] = convolution_at(high[b], kernel, row, col) + bias + of_x
    return out


def fade(x, guide, params, scale, kernel_size):
    """The gated form where `params` has a gate."""
    logits = semi_shift(x, guide, params, scale, "logits.")
    kernels = np.exp(logits - logits.max(-1, keepdims=True))
    kernels /= kernels.sum(-1, keepdims=True)
    up = reassemble(x, kernels[..., None, :], scale, kernel_size, 1)
    if "gate.kernel" not in params:
        return up
    gate = 1 / (1 + np.exp(-(x @ params["gate.kernel"][0, 0] + params["gate.bias"])))
    gate = gate.repeat(scale[0], 1).repeat(scale[1], 2)
    return gate * guide + (1 - gate) * up
