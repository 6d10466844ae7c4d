"""Slow NumPy truth of `ops.reassemble`, pixel by pixel."""

import numpy as np


def reflected(p, n):
    """Where a position outside 0 .. n-1 lands when the image is mirrored at its border pixels."""
    while not 0 <= p < n:
        p = 0 if n == 1 else -p if p < 0 else 2 * (n - 1) - p
    return p


def reassemble(x, kernels, scale, kernel_size, groups, border="zeros"):
    """x [B,h,w,C], kernels [B,H,W,G,K*K]."""
    (batch, height, width, channels), (sy, sx), r = x.shape, scale, kernel_size // 2
    out = np.zeros((batch, sy * height, sx * width, channels))
    for b, i, j, c in np.ndindex(out.shape):
        g = c * groups // channels
        for ky in range(kernel_size):
            for kx in range(kernel_size):
                row, col = i // sy + ky - r, j // sx + kx - r
                if border == "edge":
                    row, col = min(max(row, 0), height - 1), min(max(col, 0), width - 1)
                elif border == "reflect":
                    row, col = reflected(row, height), reflected(col, width)
                if 0 <= row < height and 0 <= col < width:
                    out[b, i, j, c] += kernels[b, i, j, g, ky * kernel_size + kx] * x[b, row, col, c]
    return out
