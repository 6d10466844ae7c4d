"""Slow NumPy truth of deformable kernel networks: one pixel, one sample, one shifted pass after the other."""

import numpy as np


def deformable_average(x, weights, offsets, window_size=15, grid="centred"):
    """Eqs. 4 to 7: x [B,H,W,C], weights [B,H,W,n], offsets [B,H,W,n,2]; the window is cut out and read bilinearly."""
    (batch, height, width, _), size, r = x.shape, round(weights.shape[3] ** 0.5), window_size // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (r, r), (r, r), (0, 0)))
    out = np.zeros(x.shape)
    for b, i, j in np.ndindex(batch, height, width):
        window = padded[b, i : i + window_size, j : j + window_size]
        for n, entry in enumerate(np.ndindex(size, size)):
            position = [
                _position(a, offset, size, window_size, grid)
                for a, offset in zip(entry, offsets[b, i, j, n].astype(np.float64), strict=True)
            ]
            rows, cols = (np.maximum(0, 1 - np.abs(p - np.arange(window_size))) for p in position)  # Eq. 6
            out[b, i, j] += weights[b, i, j, n] * np.einsum("y,z,yzc->c", rows, cols, window)
    return out


def _position(a, offset, size, window_size, grid):
    """Where entry a lies in the window, whose first pixel is at 0 and whose centre is the pixel itself."""
    if grid == "centred":
        return window_size // 2 + a - (size - 1) / 2 + offset
    units = window_size // 2 + a + offset  # the code's coordinates run from 0 to d and are normalised by d
    normalised = 2 * units / window_size - 1
    if grid == "compressed":  # -1 and 1 are the centres of the border pixels
        return (normalised + 1) / 2 * (window_size - 1)
    return ((normalised + 1) * window_size - 1) / 2  # -1 and 1 are the outer edges


def dkn(depth, guide, params, options):
    """The 16 passes of the supplement, Sec. 1.1: depth [B,H,W,1] enlarged already, H and W multiples of 4.

    `params` by path; the statistics of the normalisation are its running ones. A stream without parameters is left out,
    and one without an offset head has offsets of 0.
    """
    weights, offsets = (np.zeros((*depth.shape[:3], n * options["kernel_size"] ** 2)) for n in (1, 2))
    images = _seen(depth, guide, params)
    for i, j in np.ndindex(4, 4):
        maps = []
        for name, image in images.items():
            shifted = np.pad(image.astype(np.float64), ((0, 0), (25 - i, 22 + i), (25 - j, 22 + j), (0, 0)))
            maps.append(_stream(shifted, params, name, strides=(1, 2, 1, 2, 1, 1, 1)))
        weights[:, i::4, j::4] = _normalised(np.prod([w for w, _ in maps], axis=0), options["residual"])
        offsets[:, i::4, j::4] = np.prod([o for _, o in maps], axis=0)
    return _averaged(depth, weights, offsets, options)


def fdkn(depth, guide, params, options):
    """One pass over the pixels of 4 x 4 cells as channels; `guide` as the stream sees it, or None."""
    weights, offsets = (np.zeros((*depth.shape[:3], n * options["kernel_size"] ** 2)) for n in (1, 2))
    images = _seen(depth, guide, params)
    maps = []
    for name, image in images.items():
        channels = [image[..., c][:, i::4, j::4] for c in range(image.shape[3]) for i in range(4) for j in range(4)]
        maps.append(_stream(np.stack(channels, -1).astype(np.float64), params, name, padding=1))
    for i, j in np.ndindex(4, 4):
        part = slice(4 * i + j, None, 16)
        weights[:, i::4, j::4] = _normalised(np.prod([w[..., part] for w, _ in maps], axis=0), options["residual"])
        offsets[:, i::4, j::4] = np.prod([o[..., part] if o.ndim else o for _, o in maps], axis=0)
    return _averaged(depth, weights, offsets, options)


def _seen(depth, guide, params):
    """The image of every stream that there is."""
    images = {"depth_stream": depth, "guide_stream": guide}
    return {name: image for name, image in images.items() if any(path.startswith(name) for path in params)}


def _normalised(weights, residual):
    if residual:
        return weights - weights.mean(-1, keepdims=True)
    return weights / weights.sum(-1, keepdims=True)


def _averaged(depth, weights, offsets, options):
    pairs = offsets.reshape(*weights.shape, 2)
    average = deformable_average(depth, weights, pairs, options["window_size"], options["grid"])
    return average + depth if options["residual"] else average


def _stream(x, params, name, strides=(1,) * 6, padding=0):
    """Weights and offsets of one stream: all convolutions, the first, third and fifth with batch normalisation."""
    params = {path.removeprefix(f"{name}."): x for path, x in params.items() if path.startswith(name)}
    for index, stride in enumerate(strides):
        x = _conv(x, params, f"convs.{index}", stride, padding)
        if index in (0, 2, 4):
            mean, var, scale, bias = (params[f"norms.{index // 2}.{key}"] for key in ("mean", "var", "scale", "bias"))
            x = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
        x = np.maximum(x, 0)
    offsets = _conv(x, params, "offset_head") if "offset_head.bias" in params else np.float64(0)
    return 1 / (1 + np.exp(-_conv(x, params, "weight_head"))), offsets


def _conv(x, params, name, stride=1, padding=0):
    kernel, bias = params[f"{name}.kernel"], params[f"{name}.bias"]
    size, border = kernel.shape[0], padding if kernel.shape[0] > 1 else 0
    x = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcyx,yxco->bhwo", patches, kernel, optimize=True) + bias
