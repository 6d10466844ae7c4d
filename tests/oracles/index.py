"""Slow NumPy truth of the operators with indices and of the index networks, region by region."""

import numpy as np


def regions(x, scale):
    """The regions of scale[0] x scale[1] pixels of [B, H, W, C] that are complete: (b, i, j, their pixels)."""
    (batch, height, width, _), (sy, sx) = x.shape, scale
    for b, i, j in np.ndindex(batch, height // sy, width // sx):
        yield b, i, j, x[b, sy * i : sy * (i + 1), sx * j : sx * (j + 1)]


def indexed_pool(x, index, scale):
    """Sum of index times x."""
    out = np.zeros((x.shape[0], x.shape[1] // scale[0], x.shape[2] // scale[1], x.shape[3]))
    for b, i, j, pixels in regions(np.float64(x) * index, scale):
        out[b, i, j] = pixels.sum((0, 1))
    return out


def indexed_upsample(x, index, scale):
    """The index of each pixel times the value of its region."""
    (batch, height, width, channels), (sy, sx) = x.shape, scale
    out = np.zeros((batch, sy * height, sx * width, channels))
    for b, i, j in np.ndindex(out.shape[:3]):
        out[b, i, j] = np.float64(index[b, i, j]) * x[b, i // sy, j // sx]
    return out


def max_pool(x, scale):
    """The first maximum of every channel, and its row * W + column."""
    shape = (x.shape[0], x.shape[1] // scale[0], x.shape[2] // scale[1], x.shape[3])
    values, indices = np.zeros(shape), np.zeros(shape, int)
    for b, i, j, pixels in regions(x, scale):
        for c in range(shape[3]):
            best = -np.inf
            for u, v in np.ndindex(scale):
                if pixels[u, v, c] > best:
                    best = values[b, i, j, c] = pixels[u, v, c]
                    indices[b, i, j, c] = (scale[0] * i + u) * x.shape[2] + scale[1] * j + v
    return values, indices


def max_unpool(x, indices, size):
    """Zeros but for the given positions."""
    out = np.zeros((x.shape[0], *size, x.shape[3]))
    for b, i, j, c in np.ndindex(x.shape):
        out[b, indices[b, i, j, c] // size[1], indices[b, i, j, c] % size[1], c] = x[b, i, j, c]
    return out


def _window(x, start, shape):
    """[kh, kw, C] of one image [H, W, C], zeros outside."""
    out = np.zeros((*shape, x.shape[2]))
    for a, b in np.ndindex(shape):
        row, col = start[0] + a, start[1] + b
        if 0 <= row < x.shape[0] and 0 <= col < x.shape[1]:
            out[a, b] = x[row, col]
    return out


def _layer(window, kernel, own):
    """One output per map; `own`: per map and channel, with kernels [kh, kw, 1, m * C], or [kh, kw, 1, m] for all."""
    if not own:
        return np.array([(window * kernel[..., f]).sum() for f in range(kernel.shape[3])])
    channels = window.shape[2]
    shared = own == "shared"
    maps = kernel.shape[3] if shared else kernel.shape[3] // channels
    out = np.zeros((maps, channels))
    for m, c in np.ndindex(maps, channels):
        out[m, c] = (window[..., c] * kernel[:, :, 0, m if shared else m * channels + c]).sum()
    return out


def _column(window, params, name, own):
    """Index logits of one region, of one position (or, holistic, of all)."""
    y = _layer(window, params[f"{name}.kernel"], own)
    if f"{name}.mix" not in params:
        return y[0] if own else y
    scale, bias, mean, var = (params[f"{name}.norm.{key}"] for key in ("scale", "bias", "mean", "var"))
    each = (lambda p: p[:, None]) if own == "shared" else (lambda p: p.reshape(y.shape))
    y = np.maximum(0, (y - each(mean)) / np.sqrt(each(var) + 1e-5) * each(scale) + each(bias))
    mix = params[f"{name}.mix"][0, 0]
    return (y * mix).sum(0) if own else y @ mix


def index_network(x, params, scale, family):
    """Encoder and decoder map of a trained network (running statistics)."""
    own = {"shared_o2o": "shared", "modelwise_o2o": "shared", "unshared_o2o": "unshared"}.get(family)
    (batch, height, width, channels), (sy, sx) = x.shape, scale
    shape = params["columns.0.kernel"].shape[:2]
    maps = [np.zeros((batch, height, width, 1 if family == "holistic" else channels)) for _ in range(2)]
    for b, i, j in np.ndindex(batch, height // sy, width // sx):
        start = sy * i - (shape[0] - sy) // 2, sx * j - (shape[1] - sx) // 2
        window = _window(x[b], start, shape)
        if family == "holistic":
            logits = _column(window, params, "columns.0", own)[:, None]
        else:
            logits = np.stack([_column(window, params, f"columns.{p}", own) for p in range(sy * sx)])
        decoder = 1 / (1 + np.exp(-logits))
        encoder = np.exp(decoder) / np.exp(decoder).sum(0)
        for index, values in zip(maps, (encoder, decoder), strict=True):
            index[b, sy * i : sy * (i + 1), sx * j : sx * (j + 1)] = values.reshape(sy, sx, -1)
    return maps
