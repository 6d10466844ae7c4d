"""Pictures: features as colours, and what probes make of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.figures import Panel, panel_figure
from experiments.probe.features import Example
from experiments.segmentation.drawing import coloured
from jaxup.cli.feature_pictures import components

Array = np.ndarray


def comparison(
    folder: Path,
    methods: Mapping[str, Callable[[Example], tuple[Array, Array]]],
    examples: Sequence[Example],
    depth: bool,
) -> None:
    """Draws features.png, before upsampling and by each method, and probes.png, what each finds beside the truth.

    Colours are the three strongest directions of the encoder's features, each from their least to their largest value,
    also in what upsamplers make of them: equal features have equal colours.
    """
    features, probes = [], []
    for example in examples:
        coarse, image = example["features"], example["image"] / np.float32(255)
        shown: Any = _depth(example["truth"]) if depth else coloured
        first, second = [Panel(image), Panel(_colours(coarse, coarse), "encoder")], [Panel(image)]
        second.append(Panel(shown(example["truth"]), "truth"))
        for name, find in methods.items():
            fine, found = find(example)
            first.append(Panel(_colours(fine, coarse), name))
            second.append(Panel(shown(found), name))
        features.append(first)
        probes.append(second)
    panel_figure(folder / "features.png", features)
    panel_figure(folder / "probes.png", probes)


def _colours(fine: Array, coarse: Array) -> Array:
    low, high = (f(components(coarse, coarse), axis=(0, 1)) for f in (np.min, np.max))
    scaled: Array = np.clip((components(fine, coarse) - low) / np.maximum(high - low, 1e-12), 0, 1)
    return scaled


def _depth(truth: Array) -> Callable[[Array], Array]:
    """Depth as colours on the scale of the truth; what was not measured is grey."""
    from matplotlib import colormaps

    known = truth[truth > 0]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)

    def shown(x: Array) -> Array:
        picture = colormaps["viridis"](np.clip((x - low) / max(high - low, 1e-6), 0, 1))[..., :3]
        return np.where((x > 0)[..., None], picture, 0.65)

    return shown
