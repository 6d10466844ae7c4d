"""Pictures: reconstructions side by side, and index maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.engine.figures import Panel, panel_figure
from jaxup.nn.a2u import KernelPair
from jaxup.nn.indexnet import IndexMaps

Stages = Sequence[IndexMaps | KernelPair]

_CHANNELS = 8


def reconstruction_figure(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Draws images in columns, one row per image.

    Args:
        path: the PNG to write.
        columns: titles and their images, [N, H, W, 1] from 0 to 1.
    """
    titles = [t.replace(", ", ",\n") if ", " in t else t.replace("-", "-\n", 1) for t in columns]
    first, *others = zip(*columns.values(), strict=True)
    headed = [Panel(image, title) for image, title in zip(first, titles, strict=True)]
    panel_figure(path, [headed, *([Panel(image) for image in row] for row in others)], side=1.5)


def memory_figure(path: Path, image: np.ndarray, stages: Stages, random: Stages | None = None) -> None:
    """Draws what the stages remember of an image: for each two rows, of its two maps.

    These are the encoder's and the decoder's indices, or for each pixel the entries of the kernels that make maps
    smaller and larger. As in the paper, first the mean over the channels, with random weights and as learned; then the
    first channels. Each row has its own grey scale, whose ends its label gives.

    Args:
        path: the PNG to write.
        image: [H, W, 1] from 0 to 1.
        stages: pairs of maps [1, h, w, C] or [1, h, w, 1].
        random: the same of the network before its training, where there is something to learn.
    """
    rows = []
    for n, stage in enumerate(stages):
        for kind, maps in stage._asdict().items():
            learned = np.asarray(maps[0])
            shown = {}
            if random is not None:
                shown = {"random": np.asarray(getattr(random[n], kind)[0]).mean(-1), "learned": learned.mean(-1)}
            if learned.shape[-1] > 1 or random is None:
                shown |= {f"channel {i}": learned[..., i] for i in range(min(_CHANNELS, learned.shape[-1]))}
            span = min(x.min() for x in shown.values()), max(x.max() for x in shown.values())
            label = f"stage {n + 1}\n{kind}\n{span[0]:.2f} to {span[1]:.2f}"
            rows.append([Panel(image, label=label), *(Panel(x, title, span) for title, x in shown.items())])
    panel_figure(path, rows, side=1.6)
