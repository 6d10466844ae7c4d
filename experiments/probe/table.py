"""One probe on the features of several upsamplers, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace

from experiments.engine.report import publish
from experiments.engine.runs import moved, train_rows
from experiments.probe.evaluation import compare
from experiments.probe.training import TrainConfig, train
from jaxup.files import InputError


@dataclass(frozen=True)
class TableConfig:
    """Which upsamplers, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    upsamplers: tuple[str, ...] = ("bilinear", "fitted")
    """The rows, each in the place of `upsampler`."""
    pictures: bool = True
    """Write features as colours, and what each probe finds, to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train a probe for several upsamplers, and print its scores beside the published ones."""
    given, folder = config.training, config.training.run.run_dir
    if given.upsampler != "bilinear":
        raise InputError("upsampler: has no effect beside upsamplers")
    given = replace(given, features_dir=given.features_dir or folder / "features")
    rows = {}
    for name in config.upsamplers:
        row = replace(given, upsampler=name)
        if row.label in rows:
            raise InputError(f"upsamplers: expected different names, got {row.label} twice")
        row.check()
        rows[row.label] = moved(row, folder / row.label)
    runs = train_rows(train, rows)
    publish(folder, *compare(runs, folder if config.pictures else None))
