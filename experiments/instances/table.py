"""One network with several upsamplers in its pyramid, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace

from experiments.engine.report import publish
from experiments.engine.runs import moved, train_rows
from experiments.instances.evaluation import EvaluateConfig, compare
from experiments.instances.paper import PAPER
from experiments.instances.training import TrainConfig, train
from jaxup.files import InputError, require


@dataclass(frozen=True)
class TableConfig:
    """Which upsamplers, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    upsamplers: tuple[str, ...] = PAPER
    """The rows, each in the place of `upsampler`."""
    test_images: int | None = None
    """Test on the first ones only; none: on all."""
    pictures: bool = True
    """Write what each network finds, side by side, to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train a network with several upsamplers, and print scores, time and memory with the paper's columns."""
    require("pycocotools.cocoeval")  # before hours of training
    given, folder = config.training, config.training.run.run_dir
    if given.network.upsampler is not None:
        raise InputError("upsampler: has no effect beside upsamplers")
    rows = {
        name: moved(given, folder / name, network=replace(given.network, upsampler=name)) for name in config.upsamplers
    }
    for name, row in rows.items():
        row.check()
        if name not in PAPER:
            row.build()  # refuses an unknown one before anything is trained
    runs = train_rows(train, rows)
    evaluation = EvaluateConfig(images=config.test_images, data_dir=given.data.data_dir)
    results, text = compare(runs, evaluation, folder if config.pictures else None, step=True)
    publish(folder, results, f"{text} Seconds and memory are those of a training step.")
