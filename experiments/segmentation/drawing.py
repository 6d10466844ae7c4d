"""Pictures: images, labels and predictions side by side, and label maps as files."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from experiments.data.segmentation import IGNORED, Labelled
from experiments.engine.figures import Panel, panel_figure
from experiments.engine.processes import is_first
from jaxup._writing import write_file

RINGS = {"orange": (1.0, 0.55, 0.0), "cyan": (0.0, 0.9, 0.9), "pink": (1.0, 0.3, 0.8), "yellow": (0.95, 0.9, 0.0)}
"""Colours of rings around pixels."""


def palette() -> np.ndarray:
    """A colour for each label, uint8 [256, 3], as PASCAL VOC has them: the bits of the label spread over R, G and B."""
    label, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((label >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit) if bit < 3 else 0
    colours[IGNORED] = 224, 224, 192
    return colours


def coloured(labels: np.ndarray) -> np.ndarray:
    """Labels as colours from 0 to 1."""
    return palette()[labels].astype(np.float32) / 255


def save_labels(path: Path, labels: np.ndarray) -> None:
    """Writes a label map as PNG with a palette, whose indices are the labels."""
    if not is_first():
        return
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def comparison(
    folder: Path, methods: Mapping[str, Callable[[np.ndarray], np.ndarray]], samples: Sequence[Labelled]
) -> None:
    """Draws images, their labels, and what each method finds."""
    rows = []
    for sample in samples:
        panels = [Panel(sample.image / 255, sample.name), Panel(coloured(sample.labels), "labels")]
        rows.append(panels + [Panel(coloured(find(sample.image)), name) for name, find in methods.items()])
    panel_figure(folder / "predictions.png", rows)


def in_colours(*maps: np.ndarray) -> list[np.ndarray]:
    """Features [h, w, C] as colours: their first three principal components, of all maps together, as R, G and B.

    The projection is the same for all maps, and so is the scale of each component: from the lowest 1st to the highest
    99th percentile in a map.
    """
    flat = [y.reshape(-1, y.shape[-1]).astype(np.float64) for y in maps]
    mean = np.concatenate(flat).mean(axis=0)
    axes = np.linalg.eigh(np.cov(np.concatenate(flat) - mean, rowvar=False))[1][:, ::-1][:, :3]
    projected = [(y - mean) @ axes for y in flat]
    low, high = (pick([np.percentile(y, q, axis=0) for y in projected], 0) for pick, q in ((np.min, 1), (np.max, 99)))
    scaled = (np.clip((y - low) / np.maximum(high - low, 1e-12), 0, 1) for y in projected)
    return [y.reshape(*of.shape[:2], 3) for y, of in zip(scaled, maps, strict=True)]


def ringed(image: np.ndarray, pixels: Sequence[tuple[int, int]]) -> np.ndarray:
    """An image [H, W, 3] with rings around pixels, in the order of `RINGS`."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    size, result = max(4, min(image.shape[:2]) // 25), image.copy()
    for (y, x), colour in zip(pixels, RINGS.values(), strict=False):
        result[np.abs(np.hypot(rows - y, columns - x) - size) < max(1, size / 4)] = colour
    return result


def edge_and_plain(image: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """The pixel of an image [H, W, 3] around which it is steepest, and the one around which it is flattest."""
    side = max(3, min(image.shape[:2]) // 16)
    slope = uniform_filter(np.hypot(*np.gradient(image.mean(axis=2))), side, mode="nearest")
    margin = side if min(image.shape[:2]) > 2 * side else 0
    inner = slope[margin : slope.shape[0] - margin, margin : slope.shape[1] - margin]
    found = (np.unravel_index(pick(inner), inner.shape) for pick in (np.argmax, np.argmin))
    first, second = ((int(y) + margin, int(x) + margin) for y, x in found)
    return first, second
