"""Slow NumPy truth of the parts of `nn.ReSFU`, written from Eqs. 2 to 12: one HR pixel after the other."""

import numpy as np

from tests.oracles.filters import gaussian_filter, window
from tests.oracles.resize import resize


def clamped(n, i):
    return min(max(i, 0), n - 1)


def fine_neighbour_attention(x, weights, scale, kernel_size):
    """Bilinear samples at the clamped position of every fine neighbour."""
    (batch, h, w, channels), (sy, sx), r = x.shape, scale, kernel_size // 2
    out = np.zeros((batch, sy * h, sx * w, channels))
    for b, i, j in np.ndindex(out.shape[:3]):
        for n, (a, c) in enumerate(np.ndindex(kernel_size, kernel_size)):
            p = min(max((i + 0.5) / sy - 0.5 + a - r, 0), h - 1)
            q = min(max((j + 0.5) / sx - 0.5 + c - r, 0), w - 1)
            for row, col in np.ndindex(h, w):
                share = max(0, 1 - abs(p - row)) * max(0, 1 - abs(q - col))
                out[b, i, j] += weights[b, i, j, n] * share * x[b, row, col]
    return out


def paired_difference_conv(key, query, kernel, dilation, groups):
    """Eq. 11, difference by difference."""
    (batch, height, width, depth), size, outputs = key.shape, kernel.shape[0], kernel.shape[3]
    out, part = np.zeros((batch, height, width, outputs)), depth // groups
    for b, i, j, out_l in np.ndindex(out.shape):
        first = out_l * groups // outputs * part
        for a, c, d in np.ndindex(size, size, part):
            row = clamped(height, i + (a - size // 2) * dilation[0])
            col = clamped(width, j + (c - size // 2) * dilation[1])
            difference = key[b, row, col, first + d] - query[b, i, j, first + d]
            out[b, i, j, out_l] += kernel[a, c, d, out_l] * difference
    return out


def guided_filter(src, guide, radius, eps, step):
    """Per channel; models from every `step`-th pixel, their means enlarged bilinearly."""
    height, width = (max(1, n // step) for n in src.shape[1:3])
    p, q = (x[:, ::step, ::step][:, :height, :width] for x in (src, guide))
    slope, intercept, grid, reach = np.zeros(p.shape), np.zeros(p.shape), (height, width), (radius // step,) * 2
    for b, i, j, d in np.ndindex(p.shape):
        ps, qs = (np.array([x[b, k, m, d] for k, m in window(grid, (i, j), reach)]) for x in (p, q))
        slope[b, i, j, d] = np.mean((ps - ps.mean()) * (qs - qs.mean())) / (qs.var() + eps)
        intercept[b, i, j, d] = ps.mean() - slope[b, i, j, d] * qs.mean()
    means = [np.zeros(p.shape), np.zeros(p.shape)]
    for (b, i, j), mean, of in (
        (at, *pair) for at in np.ndindex(p.shape[:3]) for pair in zip(means, (slope, intercept), strict=True)
    ):
        mean[b, i, j] = np.mean([of[b, k, m] for k, m in window(grid, (i, j), reach)], axis=0)
    slope, intercept = (resize(x, src.shape[1:3], "bilinear") for x in means)
    return slope * guide + intercept


def group_norm(x, params, name, groups):
    grouped = x.reshape(x.shape[0], -1, groups, x.shape[3] // groups)
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    normed = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    return normed * params[f"{name}.scale"] + params.get(f"{name}.bias", 0)


def conv1x1(x, params, name, groups=1):
    kernel, bias = params[f"{name}.kernel"][0, 0], params[f"{name}.bias"]
    parts = zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
    return np.concatenate([y @ k for y, k in parts], axis=-1) + bias


def inner_products(key, query, dilation, kernel_size):
    """Eq. 3, neighbour by neighbour; keys beyond the border are those of the nearest pixel."""
    (batch, height, width, _), r = key.shape, kernel_size // 2
    out = np.zeros((batch, height, width, kernel_size**2))
    for b, i, j in np.ndindex(out.shape[:3]):
        for n, (a, c) in enumerate(np.ndindex(kernel_size, kernel_size)):
            row, col = clamped(height, i + (a - r) * dilation[0]), clamped(width, j + (c - r) * dilation[1])
            out[b, i, j, n] = query[b, i, j] @ key[b, row, col]
    return out


def pair_conv(key, query, kernel, dilation, groups):
    """A plain convolution of both maps; group g has the g-th part of the query's channels and that of the key's."""
    (batch, height, width, depth), size, outputs = key.shape, kernel.shape[0], kernel.shape[3]
    out, part = np.zeros((batch, height, width, outputs)), depth // groups
    for b, i, j, out_l in np.ndindex(out.shape):
        first = out_l * groups // outputs * part
        for a, c in np.ndindex(size, size):
            row = clamped(height, i + (a - size // 2) * dilation[0])
            col = clamped(width, j + (c - size // 2) * dilation[1])
            both = np.concatenate([y[b, row, col, first : first + part] for y in (query, key)])
            out[b, i, j, out_l] += both @ kernel[a, c, :, out_l]
    return out


def block(key, query, params, dilation, groups, norm_groups, official, similarity="pcdc", kernel_size=3):
    if similarity == "inner":
        return inner_products(key, query, dilation, kernel_size)
    conv = {"pcdc": paired_difference_conv, "conv": pair_conv}[similarity]
    key, query = (group_norm(x, params, "norm", norm_groups) for x in (key, query))
    v = conv(key, query, params["kernel"], dilation, groups) + params["bias"]
    v = conv1x1(np.maximum(v, 0) if official else v, params, "compressor", groups)
    return conv1x1(group_norm(np.maximum(v, 0), params, "compressor_norm", norm_groups), params, "scores")


def coarse_neighbours(x, weights, scale, kernel_size):
    """The cells around that of the pixel."""
    (batch, h, w, channels), (sy, sx), r = x.shape, scale, kernel_size // 2
    out = np.zeros((batch, sy * h, sx * w, channels))
    for b, i, j in np.ndindex(out.shape[:3]):
        for n, (a, c) in enumerate(np.ndindex(kernel_size, kernel_size)):
            out[b, i, j] += weights[b, i, j, n] * x[b, clamped(h, i // sy + a - r), clamped(w, j // sx + c - r)]
    return out


def resfu(
    x, guide, params, scale, kernel_size, groups, norm_groups, radius, eps, step, official,
    semantic=True, detail=True, align=True, smooth=True, similarity="pcdc", fine_neighbours=True,
):  # fmt: skip
    query = group_norm(guide, params, "norm_guide", min(32, guide.shape[3]))
    query = query @ params["query.kernel"] + params["query.bias"]
    pairs = {}
    if semantic:
        cells = group_norm(x, params, "norm_x", min(32, x.shape[3])) @ params["key.kernel"] + params["key.bias"]
        key = resize(cells, guide.shape[1:3], "bilinear")
        aligned = guided_filter(key, query, radius, eps, step) if align else query
        coarse = cells.repeat(scale[0], axis=1).repeat(scale[1], axis=2)
        pairs["semantic_scores"] = (key if fine_neighbours else coarse, aligned)
    if detail:
        pairs["detail_scores"] = (gaussian_filter(query, 1.0, (1, 1)) if smooth else query, query)
    scores = 0
    for name, pair in pairs.items():
        own = {k.removeprefix(f"{name}."): v for k, v in params.items() if k.startswith(f"{name}.")}
        scores = scores + block(*pair, own, scale, groups, norm_groups, official, similarity, kernel_size)
    for (i, j), (n, (a, c)) in (
        (at, tap) for at in np.ndindex(guide.shape[1:3]) for tap in enumerate(np.ndindex(kernel_size, kernel_size))
    ):
        row, col = i + (a - kernel_size // 2) * scale[0], j + (c - kernel_size // 2) * scale[1]
        if official and not (0 <= row < guide.shape[1] and 0 <= col < guide.shape[2]):
            scores[:, i, j, n] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    average = fine_neighbour_attention if fine_neighbours else coarse_neighbours
    return average(x, weights / weights.sum(-1, keepdims=True), scale, kernel_size)
