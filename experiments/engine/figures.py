"""Figures: pictures in rows and columns, depth maps beside maps of their errors, and kernels of pixels."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.engine.processes import is_first
from jaxup._writing import write_file
from jaxup.files import InputError

Array = np.ndarray
_KERNELS = 10  # in a figure
_WINDOW = 96  # pixels


class Panel(NamedTuple):
    """One picture of a figure."""

    image: Array
    """[H, W] or [H, W, 1] grey, or [H, W, 3] RGB, which is cut off at 0 and 1."""
    title: str = ""
    span: tuple[float, float] = (0.0, 1.0)
    """What is black and what is white."""
    label: str = ""
    """To the left of it."""


def panel_figure(path: Path, rows: Sequence[Sequence[Panel]], *, side: float = 2.0, title: str = "") -> None:
    """Draws pictures in rows and columns, and saves the figure as PNG.

    Args:
        path: file to write; it appears whole or not at all. Its directory is made if need be.
        rows: of pictures; small ones are enlarged to the size of the others by nearest neighbour.
        side: width of a column in inches.
        title: of the whole.
    """
    rows = [[p._replace(title=_wrapped(p.title, side)) for p in row] for row in rows]
    columns = max(map(len, rows))
    heights = [side * max(p.image.shape[0] / p.image.shape[1] for p in row) for row in rows]
    room = sum(heights) + 0.2 * sum(1 + max(p.title.count("\n") for p in row) for row in rows) + 0.3 * bool(title)
    figure = Figure(figsize=(side * columns + 0.3, room), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, row in zip(axes, rows, strict=True):
        for axis in line[len(row) :]:
            axis.set_axis_off()
        for axis, panel in zip(line, row, strict=False):
            grey = panel.image.ndim == 2 or panel.image.shape[2] == 1
            image = panel.image.reshape(panel.image.shape[:2]) if grey else panel.image.clip(0, 1)
            _frame(axis, panel.title)
            axis.set_ylabel(panel.label, fontsize=8)
            axis.imshow(image, cmap="gray", vmin=panel.span[0], vmax=panel.span[1], interpolation="nearest")
    save_figure(figure, path)


def _wrapped(title: str, width: float) -> str:
    """Lines that do not reach over the next picture: some thirteen letters an inch."""
    return "\n".join(textwrap.fill(line, int(13 * width)) for line in title.split("\n"))


def in_rows(panels: Sequence[Panel], columns: int = 6) -> list[Sequence[Panel]]:
    """Rows of at most so many pictures."""
    return [panels[i : i + columns] for i in range(0, len(panels), columns)]


class Comparison(NamedTuple):
    """One sample as a figure shows it: two rows, the depth maps and below them the errors."""

    title: str
    guide: Array
    """[H, W, 3], RGB in [0, 1]."""
    low: Array
    """[h, w, 1], the input depth."""
    results: Mapping[str, Array]
    """By method, [H, W, 1]."""
    truth: Array
    """[H, W, 1]."""
    valid: Array
    """[H, W, 1], bool or zeros and ones: where `truth` was measured."""
    unit: str
    """Of all depths and errors."""
    errors: Mapping[str, float]
    """By method, the RMSE over the valid pixels."""


def comparison_figure(path: Path, panels: Sequence[Comparison]) -> None:
    """Draws samples with the result and the error map of every method, and saves the figure as PNG.

    Two rows for each sample. Above: guide, low-resolution input, results, ground truth; the depths share a
    colour scale that spans the ground truth. Below: |result - truth|; the methods share a colour scale that
    ends at the 99th percentile of all their errors, so that single pixels at depth edges do not darken the
    rest. Pixels without ground truth are grey.

    Args:
        path: file to write; it appears whole or not at all. Its directory is made if need be.
        panels: the samples, all with the same methods.

    Raises:
        InputError: a sample has no valid pixel.
    """
    for panel in panels:
        if not panel.valid.any():
            raise InputError(f"{panel.title}: has no valid pixel")
    columns = 3 + len(panels[0].results)
    heights = [2.0 * p.truth.shape[0] / p.truth.shape[1] for p in panels for _ in range(2)]
    size = (2.0 * columns + 0.9, sum(heights) + 0.4 * len(heights))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(heights), columns + 1, squeeze=False, height_ratios=heights, width_ratios=[1] * columns + [0.05]
    )
    for i, panel in enumerate(panels):
        _draw_depths(axes[2 * i], panel)
        _draw_errors(axes[2 * i + 1], panel)
    save_figure(figure, path)


def kernel_figure(path: Path, image: Array, kernels: Array) -> None:
    """Draws the kernels of some pixels beside the image in which these are numbered, and saves the figure as PNG.

    The pixels are the steepest ones that are not close to each other. All kernels have one grey scale, from 0 to their
    largest entry; the title gives the one of each.

    Args:
        path: file to write; it appears whole or not at all. Its directory is made if need be.
        image: [H, W], grey.
        kernels: [H, W, K*K], not negative.
    """
    pixels = steepest(image, _KERNELS)
    size = round(kernels.shape[-1] ** 0.5)
    highest = max(kernels[pixel].max() for pixel in pixels)
    columns = math.ceil(_KERNELS / 2)
    figure = Figure(figsize=(3.0 + 1.3 * columns, 3.0), layout="constrained")
    names = [["image", *range(1, columns + 1)], ["image", *range(columns + 1, 2 * columns + 1)]]
    axes = figure.subplot_mosaic(names, width_ratios=[3.0] + [1.3] * columns)
    for axis in axes.values():
        axis.set_axis_off()
    whole = axes["image"]
    whole.imshow(image, cmap="gray", interpolation="nearest")
    for number, pixel in enumerate(pixels, 1):
        axis = axes[number]
        whole.text(*pixel[::-1], str(number), color="yellow", fontsize=8, ha="center", va="center")
        axis.imshow(kernels[pixel].reshape(size, size), cmap="gray", vmin=0, vmax=highest, interpolation="nearest")
        axis.set_title(f"{number}: {kernels[pixel].max():.2f}", fontsize=8)
    save_figure(figure, path)


def steepest(image: Array, count: int) -> list[tuple[int, int]]:
    """Pixels at the largest gradients, an eighth of the image or more apart, and half of that from its ends."""
    apart = max(1, min(image.shape) // 8)
    slope = np.full(image.shape, -1.0)
    inner = (slice(apart // 2, -(apart // 2) or None),) * 2
    slope[inner] = np.hypot(*np.gradient(image.astype(np.float64)))[inner]
    pixels: list[tuple[int, int]] = []
    for _ in range(count):
        y, x = (int(i) for i in np.unravel_index(np.argmax(slope), slope.shape))
        if slope[y, x] < 0:  # none is left
            break
        pixels.append((y, x))
        slope[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -1
    return pixels


def busiest_window(image: Array) -> tuple[slice, slice]:
    """The window of 96 x 96 pixels, or less, with the largest standard deviation, at multiples of 16 pixels."""
    height, width = (min(_WINDOW, length) for length in image.shape)
    places = [
        (y, x) for y in range(0, image.shape[0] - height + 1, 16) for x in range(0, image.shape[1] - width + 1, 16)
    ]
    y, x = max(places, key=lambda place: image[place[0] : place[0] + height, place[1] : place[1] + width].std())
    return slice(y, y + height), slice(x, x + width)


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, whole or not at all; its directory is made if need be. The first process does."""
    if not is_first():
        return
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png", bbox_inches="tight", pad_inches=0.05)  # no title is cut off
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


class _Scale(NamedTuple):
    """Values as colours."""

    range: Normalize
    colours: str


def _draw_depths(axes: Sequence[Axes], panel: Comparison) -> None:
    valid = panel.valid.astype(bool)
    known = panel.truth[valid]
    scale = _Scale(Normalize(known.min(), known.max()), "viridis")
    _show(axes[0], np.clip(panel.guide, 0, 1), "guide")
    axes[0].set_ylabel(panel.title)
    low = panel.low
    _show(axes[1], low, f"input, {low.shape[1]} x {low.shape[0]}", scale)
    for axis, (name, result) in zip(axes[2:], panel.results.items(), strict=False):
        _show(axis, result, name, scale)
    _show(axes[-2], panel.truth, "ground truth", scale, valid)
    _colour_bar(axes[-1], scale, f"depth [{panel.unit}]", "neither")


def _draw_errors(axes: Sequence[Axes], panel: Comparison) -> None:
    valid = panel.valid.astype(bool)
    errors = {name: np.abs(result - panel.truth) for name, result in panel.results.items()}
    highest = np.percentile(np.concatenate([error[valid] for error in errors.values()]), 99)
    scale = _Scale(Normalize(0, highest), "inferno")
    for axis, (name, error) in zip(axes[2:], errors.items(), strict=False):
        title = f"RMSE {panel.errors[name]:.4g} {panel.unit}"
        _show(axis, error, title, scale, valid)
    for axis in (axes[0], axes[1], axes[-2]):
        axis.set_axis_off()
    axes[1].text(0.95, 0.5, "|result - truth|", ha="right", va="center", fontsize=9)
    if not valid.all():
        axes[-2].text(0.05, 0.5, "grey: no ground truth", va="center", fontsize=9)
    _colour_bar(axes[-1], scale, f"|error| [{panel.unit}]", "max")


def _show(axis: Axes, image: Array, title: str, scale: _Scale | None = None, valid: Array | None = None) -> None:
    """Draws one picture; a low-resolution one is enlarged by nearest neighbour."""
    _frame(axis, title)
    if scale is None:
        axis.imshow(image, interpolation="nearest")
        return
    shown = image[..., 0] if valid is None else np.ma.masked_where(~valid[..., 0], image[..., 0])
    axis.set_facecolor("0.65")  # where masked
    axis.imshow(shown, cmap=scale.colours, norm=scale.range, interpolation="nearest")


def _frame(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])


def _colour_bar(axis: Axes, scale: _Scale, label: str, extend: str) -> None:
    bar = axis.figure.colorbar(ScalarMappable(scale.range, scale.colours), cax=axis, extend=extend, extendfrac=0.03)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
