"""Pictures: reconstructions side by side, and index maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.engine.report import save_figure
from jaxup.nn.a2u import KernelPair
from jaxup.nn.indexnet import IndexMaps

_CHANNELS = 8


def reconstruction_figure(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Draws images in columns, one row per image.

    Args:
        path: the PNG to write.
        columns: titles and their images, [N, H, W, 1] from 0 to 1.
    """
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.5 * len(columns), 1.4 * count + 0.4), layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        broken = title.replace(", ", ",\n") if ", " in title else title.replace("-", "-\n", 1)
        axes[0, column].set_title(broken, fontsize=8)
        for axis, image in zip(axes[:, column], images, strict=True):
            _show(axis, image)
    save_figure(figure, path)


def memory_figure(path: Path, image: np.ndarray, stages: Sequence[IndexMaps | KernelPair]) -> None:
    """Draws what the stages remember of an image: in two rows for each the first channels of its two maps.

    These are the encoder's and the decoder's indices, or for each pixel the entries of the kernels that make maps
    smaller and larger. Each row has its own grey scale, whose ends its label gives.

    Args:
        path: the PNG to write.
        image: [H, W, 1] from 0 to 1.
        stages: pairs of maps [1, h, w, C] or [1, h, w, 1].
    """
    rows = [(f"stage {n}\n{kind}", np.asarray(maps[0]))
            for n, stage in enumerate(stages, 1) for kind, maps in stage._asdict().items()]  # fmt: skip
    columns = 1 + min(_CHANNELS, max(maps.shape[-1] for _, maps in rows))
    figure = Figure(figsize=(1.6 * columns + 0.8, 1.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (label, maps) in zip(axes, rows, strict=True):
        shown = maps[..., : columns - 1]
        span = float(shown.min()), float(shown.max())
        row[0].set_ylabel(f"{label}\n{span[0]:.2f} to {span[1]:.2f}", fontsize=8)
        _show(row[0], image)
        for axis in row[1 + shown.shape[-1] :]:
            axis.set_axis_off()
        for axis, channel in zip(row[1:], np.moveaxis(shown, -1, 0), strict=False):
            _show(axis, channel, span)
    save_figure(figure, path)


def _show(axis: Axes, image: np.ndarray, span: tuple[float, float] = (0, 1)) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.imshow(image, cmap="gray", vmin=span[0], vmax=span[1], interpolation="nearest")
