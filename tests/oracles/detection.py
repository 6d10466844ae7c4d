"""Slow NumPy truth of the operators of detection, box by box and point by point."""

import numpy as np


def roi_align(x, boxes, size, stride, sampling_ratio, aligned):
    """x [B,h,w,C], boxes [B,N,4] -> [B,N,H,W,C]; sampling_ratio 0 is adaptive."""
    out = np.zeros((*boxes.shape[:2], *size, x.shape[-1]))
    for b, n in np.ndindex(*boxes.shape[:2]):
        x1, y1, x2, y2 = boxes[b, n].astype(np.float64) / stride - (0.5 if aligned else 0)
        sides = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1.0), max(x2 - x1, 1.0)]
        counts = [sampling_ratio or max(0, int(np.ceil(s / m))) for s, m in zip(sides, size, strict=True)]
        for i, j in np.ndindex(*size):
            for u, v in np.ndindex(*counts):
                y = y1 + (i + (u + 0.5) / counts[0]) * sides[0] / size[0]
                z = x1 + (j + (v + 0.5) / counts[1]) * sides[1] / size[1]
                out[b, n, i, j] += _read(x[b], y, z) / (counts[0] * counts[1])
    return out


def _read(image, y, x):
    """Bilinear; the border up to one pixel beyond it, and then nothing."""
    height, width = image.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for row in range(height):
        for col in range(width):
            total = total + max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - col)) * image[row, col]
    return total


def level(box, count, canonical=224, number=2):
    root = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return int(np.clip(np.floor(number + np.log2(root / canonical) + 1e-6), 0, count - 1))


def iou(a, b):
    """Of two boxes."""
    sides = [max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in (0, 1)]
    common = sides[0] * sides[1]
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def nms(boxes, scores, labels, threshold):
    """The numbers of all boxes that stay, by falling score."""
    kept = []
    for n in sorted(range(len(scores)), key=lambda n: (-scores[n], n)):
        if all(labels[n] != labels[m] or iou(boxes[n], boxes[m]) <= threshold for m in kept):
            kept.append(n)
    return kept


def matches(table, high, low, low_quality):
    """table [T,N] of IoU -> the row of each column, -1 or -2."""
    found = []
    for column in table.T:
        best = int(np.argmax(column))
        fits = column[best] >= high or (low_quality and any(column == table.max(1)))
        found.append(best if fits else -1 if column[best] < low else -2)
    return np.array(found)


def paste(mask, box, size):
    """torchvision's form: the mask in a border of zeros, stretched over whole pixels."""
    side = len(mask) + 2
    padded = np.pad(mask, 1)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * side / (side - 2)
    (x1, y1), (x2, y2) = np.trunc(centre - half).astype(int), np.trunc(centre + half).astype(int)
    height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    out = np.zeros(size)
    for y, x in np.ndindex(*size):
        if y1 <= y < y1 + height and x1 <= x < x1 + width:
            out[y, x] = _read(padded, (y - y1 + 0.5) * side / height - 0.5, (x - x1 + 0.5) * side / width - 0.5)
    return out
