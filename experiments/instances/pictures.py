"""What trained networks find, beside the truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.engine.report import leaves_results
from experiments.engine.runs import load_runs
from experiments.instances.drawing import comparison
from experiments.instances.evaluation import method, test_scenes, untrained
from experiments.instances.training import TrainConfig
from jaxup.files import InputError


@dataclass(frozen=True)
class PicturesConfig:
    """What to draw."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times, for runs on the same data. None: a tiny network as it is
    before training, on generated scenes."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the first run, or the environment variable JAXUP_DATA."""
    images: tuple[int, ...] = (0,)
    """Which of the test images, counted from 0."""
    out: Path = Path("pictures")
    """Directory for objects.png and panoptic.png, which must not exist yet."""


@leaves_results
def pictures(config: PicturesConfig) -> None:
    """Draw the objects that trained networks find with a score of at least 0.5, and their panoptic maps."""
    runs = load_runs(TrainConfig, config.run_dir) or [untrained()]
    source = test_scenes(runs[0].config, config.data_dir)
    wrong = [index for index in config.images if not 0 <= index < len(source)]
    if wrong or not config.images:
        raise InputError(f"images: expected numbers from 0 to {len(source) - 1}, got {config.images}")
    scenes = [source[index] for index in config.images]
    comparison(config.out, {run.label: method(run, source) for run in runs}, scenes, source)
