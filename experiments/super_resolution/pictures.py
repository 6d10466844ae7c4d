"""Regions of photographs side by side: the truth and what each method makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.engine.report import save_figure

_SIDE = 80


class Picture(NamedTuple):
    """Luminances on a scale of 0 to 255, all of the same size."""

    title: str
    truth: np.ndarray
    results: Mapping[str, np.ndarray]
    """By heading."""


def draw(path: Path, picture: Picture) -> None:
    """Draw the region in which the results differ most, of the truth and of each result, as PNG.

    Args:
        path: file to write; it appears whole or not at all. Its directory is made if need be.
        picture: what to draw.
    """
    region = most_different(list(picture.results.values()), picture.truth)
    panels = {"truth": picture.truth, **picture.results}
    figure = Figure(figsize=(2.4 * len(panels), 2.8), layout="constrained")
    figure.suptitle(picture.title, fontsize=9)
    for axis, (title, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.imshow(image[region], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
    save_figure(figure, path)


def most_different(results: list[np.ndarray], truth: np.ndarray) -> tuple[slice, slice]:
    """The window of at most 80 x 80 pixels in which the last two results differ most, or the only one and the truth."""
    first, second = (results if len(results) > 1 else [results[0], truth])[-2:]
    total = np.pad(np.abs(first - second), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = (min(_SIDE, n) for n in truth.shape)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(np.argmax(sums), sums.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
