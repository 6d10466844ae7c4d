"""Slow NumPy truth of A2U: strided windows, the low-rank affinity and the kernels that follow it."""

import numpy as np

from tests.oracles.resize import pixel_shuffle, resize


def downsample_reassemble(x, kernels, scale, kernel_size, groups):
    """x [B,H,W,C], kernels [B,h,w,G,K*K]."""
    (batch, height, width, channels), before = x.shape, (kernel_size - 1) // 2
    out = np.zeros((batch, height // scale[0], width // scale[1], channels))
    for b, i, j, c in np.ndindex(out.shape):
        for n, (ky, kx) in enumerate(np.ndindex(kernel_size, kernel_size)):
            row, col = scale[0] * i + ky - before, scale[1] * j + kx - before
            if 0 <= row < height and 0 <= col < width:
                out[b, i, j, c] += kernels[b, i, j, c * groups // channels, n] * x[b, row, col, c]
    return out


def factor(x, params, path, size, norm_groups):
    """leaky_relu(group_norm(filters * x)); the filters are learned, or predicted from the pooled image."""
    batch, height, width, channels = x.shape
    if f"{path}.filters" in params:
        filters = np.repeat(params[f"{path}.filters"][None], batch, 0)
    else:
        pooled = resize(x, (size, size), "area")
        filters = pooled @ params[f"{path}.filters.kernel"][0, 0] + params[f"{path}.filters.bias"]
    filters = np.broadcast_to(filters, (batch, size, size, channels)).reshape(batch, 1, 1, size**2, channels)
    kernels = np.broadcast_to(filters.swapaxes(3, 4), (batch, height // 2, width // 2, channels, size**2))
    y = downsample_reassemble(x, kernels, (2, 2), size, channels)
    for b, g in np.ndindex(batch, norm_groups):
        part = slice(g * channels // norm_groups, (g + 1) * channels // norm_groups)
        y[b, :, :, part] = (y[b, :, :, part] - y[b, :, :, part].mean()) / np.sqrt(y[b, :, :, part].var() + 1e-5)
    y = y * params[f"{path}.norm.scale"] + params[f"{path}.norm.bias"]
    return np.where(y > 0, y, 0.01 * y)


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def a2u_kernels(x, params, size, rank, groups, norm_groups, interleaved=False):
    """Kernels (down, up) of x [B,2h,2w,C]; `params` by path, `size` that of the filters.

    `interleaved`: the entries that sum to one are every `groups`-th of those that lie one after the other.
    """
    affinity = 0
    for r in range(rank):
        u, v = (factor(x, params, f"affinity.terms.{r}.{n}", size, norm_groups) for n in (0, 1))
        affinity = affinity + (u * v).sum(-1, keepdims=True) / np.sqrt(x.shape[3])
    mean = x.mean((1, 2))
    down, up = (
        affinity * (mean @ params[f"{kind}.kernel"] + params[f"{kind}.bias"])[:, None, None] for kind in ("down", "up")
    )
    up = pixel_shuffle(up, 2, 2)
    return tuple(normalised(y, groups, interleaved) for y in (down, 1 / (1 + np.exp(-up))))


def normalised(y, groups, interleaved):
    weights = np.empty_like(y)
    for g in range(groups):
        length = y.shape[3] // groups
        part = slice(g, None, groups) if interleaved else slice(g * length, (g + 1) * length)
        weights[..., part] = softmax(y[..., part])
    return weights.reshape(*y.shape[:3], groups, -1)
