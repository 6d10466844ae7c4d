"""Pictures: mattes side by side, and index maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.matting import Matted
from experiments.engine.figures import Panel, busiest_window, panel_figure
from jaxup.nn.indexnet import IndexMaps


class Sample(NamedTuple):
    """A test image, and what methods made of it."""

    truth: Matted
    mattes: Mapping[str, np.ndarray]
    """[H, W], 0 .. 255."""
    errors: Mapping[str, float]
    """SAD."""


def matte_figure(path: Path, samples: Sequence[Sample]) -> None:
    """Draws images, trimaps, true mattes and those of each method, and below them a window of each."""
    rows = []
    for (image, trimap, alpha, name), mattes, errors in samples:
        whole = {name: image, "trimap": trimap, "truth": alpha}
        whole |= {f"{method}\nSAD {errors[method]:.3g}": matte for method, matte in mattes.items()}
        window = busiest_window(alpha)
        rows.append([Panel(picture / 255, title) for title, picture in whole.items()])
        rows.append([Panel(picture[window] / 255) for picture in whole.values()])
    panel_figure(path, rows, side=1.8)


class Indexed(NamedTuple):
    """An image and the index maps that a network makes of it, [h, w, C] or [h, w, 1]."""

    image: np.ndarray
    label: str
    random: IndexMaps
    """With its initial weights."""
    learned: IndexMaps


def index_figure(path: Path, rows: Sequence[Indexed]) -> None:
    """Draws index maps, random beside learned, of the encoder and of the decoder: means over the channels."""
    figure = []
    for row in rows:
        panels = [Panel(row.image / 255, label=row.label.replace(", ", "\n"))]
        for kind in ("encoder", "decoder"):
            for when, maps in (("random", row.random), ("learned", row.learned)):
                mean = np.asarray(getattr(maps, kind)).mean(axis=2)
                span = float(mean.min()), float(mean.max())
                panels.append(Panel(mean, f"{kind}, {when}\n{span[0]:.2f} to {span[1]:.2f}", span))
        figure.append(panels)
    panel_figure(path, figure)
