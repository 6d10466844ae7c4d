"""The depth that trained networks find."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.data.monocular_batches import examined
from experiments.engine.report import leaves_results
from experiments.engine.runs import load_runs
from experiments.monocular_depth.data import HeldOut, Manner
from experiments.monocular_depth.drawing import comparison
from experiments.monocular_depth.evaluation import method, untrained
from experiments.monocular_depth.training import TrainConfig
from jaxup.files import InputError


@dataclass(frozen=True)
class PicturesConfig:
    """What to draw."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times. None: a tiny network as it is before training, on
    generated rooms."""
    test: HeldOut = field(default=HeldOut())
    images: tuple[int, ...] = (0,)
    """Which of the test images, counted from 0."""
    protocol: Manner | None = None
    """fastdepth or hu; none: that of the first run."""
    out: Path = Path("pictures")
    """Directory for depth.png, which must not exist yet."""


@leaves_results
def pictures(config: PicturesConfig) -> None:
    """Draw test images, their true depth, and the depth that trained networks find."""
    runs = load_runs(TrainConfig, config.run_dir) or [untrained()]
    own = runs[0].config
    source = config.test.open(own.data)
    if not config.images:
        raise InputError("images: expected at least one number")
    for index in config.images:
        if not 0 <= index < len(source):
            raise InputError(f"images: expected numbers from 0 to {len(source) - 1}, got {index}")
    how = config.test.protocol(own.protocol, config.protocol)
    frames = [source[index] for index in config.images]
    samples = [(frame.name, examined(frame, how)) for frame in frames]
    comparison(config.out / "depth.png", {run.label: method(run) for run in runs}, samples)
