"""What upsamplers and probes make of test images, side by side."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.engine.report import leaves_results
from experiments.probe.drawing import comparison
from experiments.probe.evaluation import method, open_runs
from jaxup.files import InputError


@dataclass(frozen=True)
class PicturesConfig:
    """What to draw."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times, for runs on the same data. None: a probe as it is before
    training, on generated shapes."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the runs, or the environment variable JAXUP_DATA."""
    images: tuple[int, ...] = (0,)
    """Which of the test images, counted from 0."""
    out: Path = Path("pictures")
    """Directory for features.png and probes.png, which must not exist yet."""


@leaves_results
def pictures(config: PicturesConfig) -> None:
    """Draw the features of test images as colours by every upsampler, and what the probes find in them."""
    with tempfile.TemporaryDirectory() as spare:
        runs = open_runs(config.run_dir, config.data_dir, Path(spare))
        found = runs[0].config.open_features("test")
        wrong = [index for index in config.images if not 0 <= index < len(found)]
        if wrong or not config.images:
            raise InputError(f"images: expected numbers from 0 to {len(found) - 1}, got {config.images}")
        examples = [found[index][0] for index in config.images]
        comparison(config.out, {run.label: method(run) for run in runs}, examples, runs[0].config.data.depth)
