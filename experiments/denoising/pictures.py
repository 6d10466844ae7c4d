"""Pictures: windows of images side by side, and the index maps of a network."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.engine.report import busiest_window, save_figure
from jaxup.nn.indexnet import IndexMaps


def comparison(path: Path, results: Mapping[str, np.ndarray], truth: np.ndarray, decibels: Mapping[str, float]) -> None:
    """Draws a window of every result and of the truth, the one with the most contrast, and saves them as PNG."""
    window = busiest_window(truth)
    panels = {f"{name}\n{decibels[name]:.2f} dB": image[window] for name, image in results.items()}
    panels["truth"] = truth[window]
    columns = min(len(panels), 6)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.2 * columns, 2.55 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes, panels.items(), strict=False):
        _show(axis, image, title)
    save_figure(figure, path)


def index_figure(path: Path, noisy: np.ndarray, maps: Mapping[str, IndexMaps]) -> None:
    """Draws index maps: for each network the decoder's and the encoder's, their mean over the channels and the channel
    whose map varies most. Nothing is drawn without maps.
    """
    if not maps:
        return
    figure = Figure(figsize=(10.5, 2.35 * len(maps)), layout="constrained")
    for axes, (name, index) in zip(figure.subplots(len(maps), 5, squeeze=False), maps.items(), strict=True):
        _show(axes[0], noisy, name)
        for axis, (title, image) in zip(axes[1:], _views(index).items(), strict=True):
            _show(axis, image, f"{title}\n{image.min():.2f} to {image.max():.2f}", (image.min(), image.max()))
    save_figure(figure, path)


def _views(index: IndexMaps) -> dict[str, np.ndarray]:
    views = {}
    for kind, map_ in (("decoder", index.decoder), ("encoder", index.encoder)):
        image = np.asarray(map_)
        channel = int(np.argmax(np.std(image, axis=(0, 1))))
        views[f"{kind}, mean"] = image.mean(axis=2)
        views[f"{kind}, channel {channel}"] = image[..., channel]
    return views


def _show(axis: Axes, image: np.ndarray, title: str, span: tuple[float, float] = (0.0, 1.0)) -> None:
    axis.set_title(title, fontsize=7)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.imshow(image, cmap="gray", vmin=span[0], vmax=span[1], interpolation="nearest")
