"""Slow NumPy truth of SAPA, pixel by pixel."""

import numpy as np


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def nearest(x, scale):
    return x.repeat(scale[0], 1).repeat(scale[1], 2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def similarity_upsample(query, key, value, scale, kernel_size):
    """query [B,H,W,D], key [B,h,w,D], value [B,h,w,C] -> [B,H,W,C]; zeros outside the image."""
    (_, height, width, channels), r = value.shape, kernel_size // 2
    out = np.zeros((*query.shape[:3], channels))
    for b, i, j in np.ndindex(query.shape[:3]):
        scores, values = [], []
        for dy in range(-r, r + 1):
            for dx in range(-r, r + 1):
                row, col = i // scale[0] + dy, j // scale[1] + dx
                inside = 0 <= row < height and 0 <= col < width
                scores.append(query[b, i, j] @ key[b, row, col] if inside else 0.0)
                values.append(value[b, row, col] if inside else np.zeros(channels))
        weights = np.exp(np.array(scores) - max(scores))
        out[b, i, j] = weights @ np.array(values) / weights.sum()
    return out


def sapa(x, guide, params, scale, kernel_size, query="guide"):
    """`params` holds the module's parameters by path."""

    def linear(name, y):
        return y @ params[f"{name}.kernel"] + params[f"{name}.bias"]

    xn = layer_norm(x, params["norm_x.scale"], params["norm_x.bias"])
    yn = layer_norm(guide, params["norm_guide.scale"], params["norm_guide.bias"])
    if query == "inner":
        q, k = yn, xn
    else:
        k = linear("key", xn)
        q = linear("query", np.concatenate([yn, nearest(x, scale)], -1) if query == "concat" else yn)
    if query == "gate":
        gate = nearest(sigmoid(linear("gate", xn)), scale)
        q = gate * q + (1 - gate) * linear("query_x", nearest(x, scale))
    value = linear("value", xn) if "value.kernel" in params else x
    return similarity_upsample(q, k, value, scale, kernel_size)
