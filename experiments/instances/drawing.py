"""Pictures of objects and of panoptic maps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import hsv_to_rgb

from experiments.data.instances import Scene, Source, segments_of
from experiments.engine.figures import Panel, panel_figure
from experiments.segmentation.drawing import palette
from jaxup.metrics import Segment

_LEAST_SCORE = 0.5
_TURN = 0.6180339887498949  # golden: hues of neighbouring numbers are far apart, and no two are the same


def outlined(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] with masks [N, H, W] in colours of their own over it, the first one on top: 0 to 1."""
    shown = image / 255
    for number, mask in reversed(list(enumerate(masks))):
        inner = mask.copy()
        for axis in (0, 1):
            for shift in (-1, 1):
                inner &= np.roll(mask, shift, axis)
        colour = palette()[number % 200 + 1] / 255
        shown[mask] = 0.5 * shown[mask] + 0.5 * colour
        shown[mask & ~inner] = colour
    return shown


def panoptic(segments: np.ndarray, listed: Sequence[Segment], things: int) -> np.ndarray:
    """A map of segments as colours from 0 to 1: dull for each kind of stuff, bright for each thing; black is none."""
    shown = np.zeros((*segments.shape, 3))
    for segment in listed:
        stuff = segment.category >= things
        hue = (segment.category - things if stuff else segment.id) * _TURN % 1
        shown[segments == segment.id] = hsv_to_rgb((hue, 0.35, 0.5) if stuff else (hue, 0.8, 1.0))
    return shown


def comparison(
    folder: Path, methods: Mapping[str, Callable[[np.ndarray], Any]], scenes: Sequence[Scene], source: Source
) -> None:
    """Draws the objects of scenes, and their panoptic maps where there are some, beside what each method finds."""
    objects, maps = [], []
    for scene in scenes:
        image = Panel(scene.image / 255, scene.name)
        objects.append([image, Panel(outlined(scene.image, scene.masks), "objects")])
        truth = panoptic(*segments_of(scene, len(source.things), len(source.stuff)), len(source.things))
        maps.append([image, Panel(truth, "segments")])
        for name, find in methods.items():
            found = find(scene.image)
            sure = found.objects["scores"] >= _LEAST_SCORE
            objects[-1].append(Panel(outlined(scene.image, found.objects["masks"][sure]), name))
            if found.segments is not None:
                maps[-1].append(Panel(panoptic(found.segments, found.listed, len(source.things)), name))
    panel_figure(folder / "objects.png", objects)
    if any(len(row) > 2 for row in maps):
        panel_figure(folder / "panoptic.png", maps)
