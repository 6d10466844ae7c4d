"""Slow NumPy truth of `nn.CARAFE`, written from Eqs. 1 and 2: one HR pixel after the other."""

import numpy as np


def carafe(x, params, scale, kernel_size, groups, dilation):
    """x [B,h,w,C]; parameters by path, convolution kernels [E, E, in, out]."""
    (batch, height, width, channels), (sy, sx), r = x.shape, scale, kernel_size // 2
    compressed = x @ params["compressor.kernel"][0, 0] + params["compressor.bias"]
    kernel, bias = params["encoder.kernel"], params["encoder.bias"]
    size = kernel.shape[0]
    out = np.zeros((batch, sy * height, sx * width, channels))
    for b, i, j, g in np.ndindex(batch, sy * height, sx * width, groups):
        row, col = i // sy, j // sx
        scores = np.zeros(kernel_size**2)
        for n in range(kernel_size**2):
            channel = ((g * kernel_size**2 + n) * sy + i % sy) * sx + j % sx
            scores[n] = bias[channel]
            for a, c in np.ndindex(size, size):
                y, z = row + (a - size // 2) * dilation, col + (c - size // 2) * dilation
                if 0 <= y < height and 0 <= z < width:
                    scores[n] += compressed[b, y, z] @ kernel[a, c, :, channel]
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        part = slice(g * channels // groups, (g + 1) * channels // groups)
        for n, (dy, dx) in enumerate(np.ndindex(kernel_size, kernel_size)):
            y, z = row + dy - r, col + dx - r
            if 0 <= y < height and 0 <= z < width:
                out[b, i, j, part] += weights[n] * x[b, y, z, part]
    return out
