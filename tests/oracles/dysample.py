"""Slow NumPy truth of `nn.DySample`: the offset of every HR pixel from its own channels, then one bilinear sample."""

import numpy as np

from tests.oracles.sample import sample


def dysample(x, params, scale, style, groups):
    """x [B,h,w,C]; parameters by path, linear kernels [in, out]."""
    (batch, height, width, channels), (sy, sx) = x.shape, scale
    points = np.zeros((batch, sy * height, sx * width, groups, 2))
    for b, i, j, g in np.ndindex(points.shape[:-1]):
        cell, u, v = x[b, i // sy, j // sx], i % sy, j % sx
        if style == "pl":
            cell = cell.reshape(channels // (sy * sx), sy, sx)[:, u, v]
        for axis, centre in ((1, (i + 0.5) / sy - 0.5), (0, (j + 0.5) / sx - 0.5)):
            channel = axis * groups + g
            if style == "lp":
                channel = (channel * sy + u) * sx + v
            offset = cell @ params["offset.kernel"][:, channel] + params["offset.bias"][channel]
            scope = 0.25
            if "scope.kernel" in params:
                scope = 0.5 / (1 + np.exp(-cell @ params["scope.kernel"][:, channel]))
            points[b, i, j, g, 1 - axis] = centre + scope * offset
    return sample(x, points, padding="border")
