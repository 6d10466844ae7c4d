"""Pictures: images, their depth, and the depth that networks find."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from experiments.data.monocular_batches import Example
from experiments.engine.figures import Panel, panel_figure

_UNMEASURED = 0.65  # grey


def comparison(
    path: Path, methods: Mapping[str, Callable[[Example], np.ndarray]], samples: Sequence[tuple[str, Example]]
) -> None:
    """Draws images, their depth, and what each method finds, a row for each image; near is bright.

    The depths of a row have one scale, which spans the truth; pixels whose depth was not measured are grey.

    Args:
        path: file to write, as PNG; it appears whole or not at all.
        methods: functions of examples -> depth [h, w, 1], by name.
        samples: names and examples.
    """
    rows = []
    for name, sample in samples:
        truth, valid = sample["depth"][..., 0], sample["valid"][..., 0]
        span = (float(truth[valid].min()), float(truth[valid].max())) if valid.any() else (0.0, 1.0)
        row = [Panel(sample["image"], name), Panel(coloured(truth, span, valid), f"{span[0]:.1f} to {span[1]:.1f} m")]
        for label, method in methods.items():
            found = method(sample)[..., 0]
            rms = np.sqrt(np.mean((found - truth)[valid] ** 2)) if valid.any() else np.nan
            row.append(Panel(coloured(found, span), f"{label}\nrms {rms:.2f} m"))
        rows.append(row)
    panel_figure(path, rows)


def coloured(depth: np.ndarray, span: tuple[float, float], valid: np.ndarray | None = None) -> np.ndarray:
    """Depth [h, w] as colours [h, w, 3] from 0 to 1, cut off at the ends of the span."""
    share = (span[1] - depth) / max(span[1] - span[0], 1e-6)
    colours: np.ndarray = colormaps["magma"](share.clip(0, 1))[..., :3]
    return colours if valid is None else np.where(valid[..., None], colours, _UNMEASURED)
