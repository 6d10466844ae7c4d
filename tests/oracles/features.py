"""Slow NumPy truth of what enlarges features under an image: one pixel after the other."""

import numpy as np

from tests.oracles.resize import resize


def neighbours(i, queries, keys, size):
    """The cells that one query looks at along one axis, some twice."""
    step = max(1, queries // keys)
    own = list(range(i % step, queries, step))  # of its residue
    size = min(size, len(own))
    start = min(max(i // step - size // 2, 0), len(own) - size)
    return [int((place + 0.5) * keys / queries) for place in own[start : start + size]]


def neighbourhood_attend(query, key, value, size, heads):
    (batch, height, width, depth), (h, w) = query.shape, key.shape[1:3]
    out = np.zeros((batch, height, width, value.shape[3]))
    for b, i, j in np.ndindex(out.shape[:3]):
        cells = [(r, c) for r in neighbours(i, height, h, size) for c in neighbours(j, width, w, size)]
        rows, cols = np.transpose(cells)
        for q, k, v, o in zip(*(np.split(x, heads, -1) for x in (query, key, value, out)), strict=True):
            scores = k[b, rows, cols] @ q[b, i, j] / np.sqrt(depth // heads)
            weights = np.exp(scores - scores.max())
            o[b, i, j] = weights / weights.sum() @ v[b, rows, cols]
    return out


def anisotropic(x, guide, sigma_x, sigma_y, theta, sigma_range, scale, radius, reach, centre):
    (batch, h, w, _), (height, width) = x.shape, guide.shape[1:3]
    out = np.zeros((batch, height, width, x.shape[3]))
    low = resize(guide, (h, w), "bilinear")
    widest = resize(np.maximum(sigma_x, sigma_y), (height, width), "bilinear")
    for b, i, j in np.ndindex(out.shape[:3]):
        reached = min(max(np.ceil(reach * widest[b, i, j, 0]), 1), radius)
        own = [(p + 0.5) / s - 0.5 for p, s in zip((i, j), scale, strict=True)]
        own = [
            int(np.clip((np.rint if centre == "nearest" else np.floor)(p), 0, n - 1))
            for p, n in zip(own, (h, w), strict=True)
        ]
        logs, values = [], []
        for dy, dx in np.ndindex(2 * radius + 1, 2 * radius + 1):
            dy, dx = dy - radius, dx - radius
            if dy**2 + dx**2 > reached**2:
                continue
            u, v = np.clip(own[0] + dy, 0, h - 1), np.clip(own[1] + dx, 0, w - 1)
            down, right = (p - ((c + 0.5) * s - 0.5) for p, c, s in zip((i, j), (u, v), scale, strict=True))
            cos, sin = np.cos(theta[b, u, v, 0]), np.sin(theta[b, u, v, 0])
            terms = [
                ((right * cos + down * sin), sigma_x[b, u, v, 0]),
                ((down * cos - right * sin), sigma_y[b, u, v, 0]),
                (np.linalg.norm(guide[b, i, j] - low[b, u, v]), sigma_range[b, u, v, 0]),
            ]
            logs.append(-sum(t**2 / (2 * s**2 + 1e-8) for t, s in terms))
            values.append(x[b, u, v])
        weights = np.exp(np.array(logs) - max(logs))
        out[b, i, j] = weights / weights.sum() @ np.array(values)
    return out
