"""Slow NumPy truth of the pixel-adaptive transposed convolution: over the zero-upsampled map, all of the window."""

import numpy as np


def pac_conv_transpose(x, guide, kernel, scale, normalised):
    """x [B,h,w,Cin], guide [B,H,W,G], kernel [K,K,Cin,Cout] or [K,K,1,1]."""
    (batch, height, width), (size, _, _, outputs) = guide.shape[:3], kernel.shape
    if kernel.shape[2:] == (1, 1):
        outputs = x.shape[3]
        kernel = kernel * np.eye(outputs)
    up, held = np.zeros((batch, height, width, x.shape[3])), np.zeros((height, width), bool)
    up[:, :: scale[0], :: scale[1]] = x
    held[:: scale[0], :: scale[1]] = True
    out = np.zeros((batch, height, width, outputs))
    for b, i, j in np.ndindex(batch, height, width):
        total = 0
        for a, c in np.ndindex(size, size):
            row, col = i + a - size // 2, j + c - size // 2
            if 0 <= row < height and 0 <= col < width and held[row, col]:
                likeness = np.exp(-0.5 * ((guide[b, row, col] - guide[b, i, j]) ** 2).sum())
                total += likeness
                out[b, i, j] += likeness * up[b, row, col] @ kernel[a, c]
        if normalised and total > 0:
            out[b, i, j] /= total
    return out
