"""What a trained network finds, its features before and after upsampling, and the kernels of its upsampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.engine.figures import Panel, panel_figure
from experiments.engine.report import leaves_results
from experiments.engine.runs import load_runs
from experiments.segmentation.drawing import RINGS, comparison, edge_and_plain, in_colours, ringed
from experiments.segmentation.evaluation import Inference, classes, shorter, test_images, untrained
from experiments.segmentation.inside import Seen, observe
from experiments.segmentation.networks import normalised
from experiments.segmentation.training import TrainConfig
from jaxup.files import InputError

Pixel = tuple[int, int]


@dataclass(frozen=True)
class PicturesConfig:
    """What to draw."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times, for runs on the same data. None: a tiny network with
    SAPA as it is before training, on generated shapes."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the runs, or the environment variable JAXUP_DATA."""
    images: tuple[int, ...] = (0,)
    """Which of the test images, counted from 0."""
    pixels: tuple[Pixel, ...] = ()
    """Rows and columns of at most four pixels whose kernels are shown; none: one at an edge and one in a plain part."""
    test_side: int | None = None
    """Images are first brought to this size of their shorter side; none: they keep their own."""
    out: Path = Path("pictures")
    """Directory for predictions.png, features.png and kernels.png, which must not exist yet."""


@leaves_results
def pictures(config: PicturesConfig) -> None:
    """Draw predictions, features before and after upsampling, and similarity scores and kernels of trained networks."""
    runs = load_runs(TrainConfig, config.run_dir) or [untrained("sapa")]
    source = test_images(runs[0].config, config.data_dir)
    for index in config.images:
        if not 0 <= index < len(source):
            raise InputError(f"images: expected numbers from 0 to {len(source) - 1}, got {index}")
    if len(config.pixels) > len(RINGS):
        raise InputError(f"pixels: expected at most {len(RINGS)}, got {len(config.pixels)}")
    samples = [source[index] for index in config.images]
    for sample in samples:
        for y, x in config.pixels:
            if not (0 <= y < sample.image.shape[0] and 0 <= x < sample.image.shape[1]):
                raise InputError(f"pixels: expected some inside of {sample.image.shape[:2]}, got {(y, x)}")
    inference = Inference(test_side=config.test_side)
    methods = {run.label: partial(classes, inference.method(run.network)) for run in runs}
    comparison(config.out, methods, samples)
    features, kernels = [], []
    for sample in samples:
        shown = sample.image / 255
        pixels = config.pixels or edge_and_plain(shown)
        for run in runs:
            label = run.label.replace(", ", "\n")
            seen = observe(run.network, normalised(jnp.asarray(shorter(sample.image, config.test_side)[None])))
            if seen is None:
                print(f"{run.label}: has no upsampler to look into")
                continue
            colours = in_colours(*(np.asarray(y[0], np.float32) for y in (seen.before, seen.after)))
            sizes = ["{} x {}".format(*y.shape[:2]) for y in colours]
            titles = (f"before, {sizes[0]}", f"after, {sizes[1]}")
            features.append([Panel(shown, label=label), *map(Panel, colours, titles)])
            if seen.weights:
                kernels.append([Panel(ringed(shown, pixels), label=label), *_kernels(seen, shown, pixels)])
    for name, rows in (("features", features), ("kernels", kernels)):
        if rows:
            panel_figure(config.out / f"{name}.png", rows)


def _kernels(seen: Seen, image: np.ndarray, pixels: Sequence[Pixel]) -> list[Panel]:
    """Of each pixel its scores and then its kernel, those of one kind in one grey scale."""
    chosen: dict[str, list[np.ndarray]] = {}
    for name, values in sorted(seen.weights.items(), key=lambda item: item[0] == "kernel"):
        size = round(values.shape[3] ** 0.5)
        places = ((y * values.shape[1] // image.shape[0], x * values.shape[2] // image.shape[1]) for y, x in pixels)
        chosen[name] = [np.asarray(values[0, y, x], np.float32).reshape(size, size) for y, x in places]
    panels = []
    for i, colour in zip(range(len(pixels)), RINGS, strict=False):
        for name, windows in chosen.items():
            span = (0.0 if name == "kernel" else float(np.min(windows))), float(np.max(windows))
            title = f"{colour}, {name}\n{windows[i].min():.3g} to {windows[i].max():.3g}"
            panels.append(Panel(windows[i], title, span))
    return panels
