"""Slow NumPy truth of `nn.AnyUp` and its operators: one pixel after the other, the official float32 window bounds."""

import numpy as np

from tests.oracles.resfu import group_norm
from tests.oracles.resize import resize


def bounds(i, queries, keys, ratio):
    """First key and the one behind the last, in float32."""
    if ratio == 0:
        return 0, keys
    centre, ratio = (np.float32(i) + np.float32(0.5)) / np.float32(queries), np.float32(ratio)
    low, high = max(centre - ratio, np.float32(0)), min(centre + ratio, np.float32(1))
    return int(np.floor(low * np.float32(keys))), int(np.ceil(high * np.float32(keys)))


def window_attend(query, key, value, ratio, heads):
    (batch, height, width, depth), (h, w) = query.shape, key.shape[1:3]
    out, part = np.zeros((batch, height, width, value.shape[3])), depth // heads
    for b, i, j in np.ndindex(out.shape[:3]):
        rows, cols = slice(*bounds(i, height, h, ratio)), slice(*bounds(j, width, w, ratio))
        keys, values = (x[b, rows, cols].reshape(-1, x.shape[3]) for x in (key, value))
        for m in range(heads):
            own = slice(m * part, (m + 1) * part)
            scores = keys[:, own] @ query[b, i, j, own] / np.sqrt(part)
            weights = np.exp(scores - scores.max())
            out[b, i, j] += weights / weights.sum() @ values / heads
    return out


def unify_features(x, basis):
    (batch, height, width, channels), (size, _, filters) = x.shape, basis.shape
    out = np.zeros((batch, height, width, filters))
    for b, i, j in np.ndindex(out.shape[:3]):
        responses, taps = np.zeros((channels, filters)), 0
        for a, c in np.ndindex(size, size):
            row, col = i + a - size // 2, j + c - size // 2
            if 0 <= row < height and 0 <= col < width:
                responses += np.outer(x[b, row, col], basis[a, c])
                taps += 1
        flat, table = (responses / taps).ravel(), np.zeros((filters, channels))
        for p, m in np.ndindex(filters, channels):
            table[p, m] = flat[p * channels + m]
        weights = np.exp(table - table.max(0))
        out[b, i, j] = (weights / weights.sum(0)).mean(1)
    return out


def rope(x, freqs):
    out, half = np.zeros(x.shape), x.shape[3] // 2
    rows, cols = (np.linspace(0, 1, n) for n in x.shape[1:3])
    for i, j in np.ndindex(x.shape[1:3]):
        angle = rows[i] * freqs[0] + cols[j] * freqs[1]
        turned = np.concatenate([-x[:, i, j, half:], x[:, i, j, :half]], axis=-1)
        out[:, i, j] = x[:, i, j] * np.cos(angle) + turned * np.sin(angle)
    return out


def conv(x, kernel, mode):
    r = kernel.shape[0] // 2
    padded, out = np.pad(x, ((0, 0), (r, r), (r, r), (0, 0)), mode=mode), 0
    for a, c in np.ndindex(kernel.shape[:2]):
        out = out + padded[:, a : a + x.shape[1], c : c + x.shape[2]] @ kernel[a, c]
    return out


def block(x, params, name):
    y = x
    for n in ("1", "2"):
        y = group_norm(y, params, f"{name}.norm{n}", 8)
        y = conv(y / (1 + np.exp(-y)), params[f"{name}.conv{n}.kernel"], "constant")
    shortcut = params.get(f"{name}.shortcut.kernel")
    return y + (x if shortcut is None else conv(x, shortcut, "constant"))


def encoder(x, params, name):
    y = conv(x, params[f"{name}.conv.kernel"], "reflect")
    return block(block(y, params, f"{name}.blocks.0"), params, f"{name}.blocks.1")


def projected(x, params, name):
    """RMS normalisation and a linear layer."""
    x = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + np.finfo(np.float32).eps) * params[f"norm_{name}.scale"]
    return x @ params[f"{name}.kernel"] + params.get(f"{name}.bias", 0)


def anyup(x, guide, params, size, ratio, heads):
    image = rope(encoder(guide, params, "image_encoder"), params["rope.freqs"])
    query = resize(encoder(image, params, "query_encoder"), size, "area")
    query = conv(query, params["mix_query.kernel"], "constant")
    of_image = resize(encoder(image, params, "key_encoder"), x.shape[1:3], "area")
    of_x = unify_features(x / np.linalg.norm(x, axis=-1, keepdims=True), params["unify.basis"])
    of_x = block(block(of_x, params, "feature_blocks.0"), params, "feature_blocks.1")
    key = encoder(np.concatenate([of_image, of_x], axis=-1), params, "aggregation")
    return window_attend(projected(query, params, "query"), projected(key, params, "key"), x, ratio, heads)
