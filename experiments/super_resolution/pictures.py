"""Regions of photographs side by side: the truth and what each method makes of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.engine.figures import Panel, panel_figure

_SIDE = 80


def draw(path: Path, title: str, truth: np.ndarray, results: Mapping[str, np.ndarray]) -> None:
    """Draw the region in which the results differ most, of the truth and of each result, as PNG.

    Args:
        path: file to write; it appears whole or not at all. Its directory is made if need be.
        title: of the whole.
        truth: luminance on a scale of 0 to 255.
        results: by heading, in the same size.
    """
    region = most_different(list(results.values()), truth)
    panels = [Panel(image[region], name, (0, 255)) for name, image in {"truth": truth, **results}.items()]
    panel_figure(path, [panels], side=2.4, title=title)


def most_different(results: list[np.ndarray], truth: np.ndarray) -> tuple[slice, slice]:
    """The window of at most 80 x 80 pixels in which the last two results differ most, or the only one and the truth."""
    first, second = (results if len(results) > 1 else [results[0], truth])[-2:]
    total = np.pad(np.abs(first - second), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = (min(_SIDE, n) for n in truth.shape)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(np.argmax(sums), sums.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
