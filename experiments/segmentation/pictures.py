"""Pictures: images, labels and predictions side by side, and label maps as files."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.data.segmentation import IGNORED, Source
from experiments.engine.figures import Panel, panel_figure

_ROWS = 6


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
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(palette().tobytes())
    image.save(path, "PNG")


def comparison(folder: Path, methods: Mapping[str, Callable[[np.ndarray], np.ndarray]], source: Source) -> None:
    """Draws the first images, their labels, and what each method finds."""
    rows = []
    for index in range(min(_ROWS, len(source))):
        sample = source[index]
        panels = [Panel(sample.image / 255, sample.name), Panel(coloured(sample.labels), "labels")]
        rows.append(panels + [Panel(coloured(find(sample.image)), name) for name, find in methods.items()])
    panel_figure(folder / "predictions.png", rows)
