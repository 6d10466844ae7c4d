"""Slow NumPy truth of `ops.attention_upsample`, written from Eqs. 4 and 7 to 15: zero-upsample, mask, softmax."""

import numpy as np

from tests.oracles.resize import zero_upsample


def attention_upsample(query, key, value, scale, kernel_size, positions=None, num_heads=1, scaled=False):
    """query [B,H,W,D], key [B,h,w,D] or [B,H,W,D], value [B,h,w,Cv] -> [B,H,W,Cv]."""
    maps = []
    for q, k, v in zip(query, key, value, strict=True):
        k_up = k if k.shape[:2] == q.shape[:2] else zero_upsample(k[None], *scale)[0]
        heads = [
            _one_head(*parts, scale, kernel_size, scaled)
            for parts in zip(
                np.split(q, num_heads, -1),
                np.split(k_up, num_heads, -1),
                np.split(zero_upsample(v[None], *scale)[0], num_heads, -1),
                np.split(_table(positions, kernel_size, q.shape[-1]), num_heads, -1),
                strict=True,
            )
        ]
        maps.append(np.concatenate(heads, -1))
    return np.stack(maps)


def _table(positions, kernel_size, channels):
    p = np.zeros((kernel_size, kernel_size, channels))
    if positions is not None:
        for a, b in np.ndindex(kernel_size, kernel_size):
            p[a, b] = np.concatenate([positions[0][a], positions[1][b]])
    return p


def _one_head(q, k_up, v_up, p, scale, kernel_size, scaled):
    (height, width, depth), r = q.shape, kernel_size // 2
    out = np.zeros((height, width, v_up.shape[-1]))
    for i, j in np.ndindex(height, width):
        scores, values = [], []
        for a in range(max(0, i - r), min(height, i + r + 1)):
            for b in range(max(0, j - r), min(width, j + r + 1)):
                if a % scale[0] == 0 and b % scale[1] == 0:  # elsewhere the mask is -inf
                    scores.append(q[i, j] @ (k_up[a, b] + p[a - i + r, b - j + r]))
                    values.append(v_up[a, b])
        if scores:
            scores = np.array(scores) / (np.sqrt(depth) if scaled else 1.0)
            weights = np.exp(scores - scores.max())
            out[i, j] = weights @ np.array(values) / weights.sum()
    return out
