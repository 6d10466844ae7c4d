"""Pictures: windows of images side by side, and the index maps of a network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.engine.figures import Panel, busiest_window, in_rows, panel_figure
from jaxup.nn.indexnet import IndexMaps


def comparison(path: Path, results: Mapping[str, np.ndarray], truth: np.ndarray, decibels: Mapping[str, float]) -> None:
    """Draws a window of every result and of the truth, the one with the most contrast, and saves them as PNG."""
    window = busiest_window(truth)
    panels = [Panel(image[window], f"{name}\n{decibels[name]:.2f} dB") for name, image in results.items()]
    panel_figure(path, in_rows([*panels, Panel(truth[window], "truth")]), side=2.2)


def index_figure(path: Path, noisy: np.ndarray, maps: Mapping[str, IndexMaps]) -> None:
    """Draws index maps: for each network the decoder's and the encoder's, their mean over the channels and the channel
    whose map varies most. Nothing is drawn without maps.
    """
    if maps:
        panel_figure(path, [[Panel(noisy, name), *_views(index)] for name, index in maps.items()], side=2.1)


def _views(index: IndexMaps) -> list[Panel]:
    views = []
    for kind, map_ in (("decoder", index.decoder), ("encoder", index.encoder)):
        image = np.asarray(map_)
        channel = int(np.argmax(np.std(image, axis=(0, 1))))
        for name, view in (("mean", image.mean(axis=2)), (f"channel {channel}", image[..., channel])):
            span = float(view.min()), float(view.max())
            views.append(Panel(view, f"{kind}, {name}\n{span[0]:.2f} to {span[1]:.2f}", span))
    return views
