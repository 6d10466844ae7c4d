"""Slow NumPy truth of `ops.reassemble`, pixel by pixel."""

import numpy as np


def reassemble(x, kernels, scale, kernel_size, groups):
    """x [B,h,w,C], kernels [B,H,W,G,K*K]."""
    (batch, height, width, channels), (sy, sx), r = x.shape, scale, kernel_size // 2
    out = np.zeros((batch, sy * height, sx * width, channels))
    for b, i, j, c in np.ndindex(out.shape):
        g = c * groups // channels
        for ky in range(kernel_size):
            for kx in range(kernel_size):
                row, col = i // sy + ky - r, j // sx + kx - r
                if 0 <= row < height and 0 <= col < width:
                    out[b, i, j, c] += kernels[b, i, j, g, ky * kernel_size + kx] * x[b, row, col, c]
    return out
