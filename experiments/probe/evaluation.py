"""Trained probes on test images: mIoU and accuracy, or errors of depth."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.engine.config import RunConfig
from experiments.engine.processes import for_each, share, summed
from experiments.engine.report import Output, beside_paper, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs, parameters, step_costs
from experiments.probe.data import DataConfig
from experiments.probe.drawing import comparison
from experiments.probe.features import Example, Features
from experiments.probe.paper import published
from experiments.probe.training import TrainConfig
from jaxup import metrics
from jaxup.files import InputError

Method = Callable[[Example], tuple[np.ndarray, np.ndarray]]  # -> features [S, S, C], and labels or metres [S, S]
Row = dict[str, Any]
_ERRORS = {"delta1": "d1", "delta2": "d2", "delta3": "d3", "rel": "rel", "rmse": "rmse", "log10": "log10"}
_PICTURES = 4


@dataclass(frozen=True)
class EvaluateConfig:
    """Which probes, on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested; may be given several times, for runs on the same
    data. None: a probe as it is before training, on generated shapes."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the runs, or the environment variable JAXUP_DATA."""
    output: Output = field(default=Output())


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Measure trained probes, beside the published table; pictures on request."""
    with tempfile.TemporaryDirectory() as spare:
        runs = open_runs(config.run_dir, config.data_dir, Path(spare))
        publish(config.output.out, *compare(runs, config.output.folder))


def open_runs(run_dirs: Sequence[Path], data_dir: Path | None, spare: Path) -> list[Run]:
    """Trained probes on the same data; without directories, one as it is before training, with its features in `spare`.

    Raises:
        InputError: no such run, or runs on different data.
    """
    if not run_dirs:
        data = DataConfig(images=2, side=48)
        config = TrainConfig(RunConfig(spare), data, "random")
        return [Run(f"{config.label}, untrained", config, config.build())]
    runs = load_runs(TrainConfig, run_dirs)
    data = replace(runs[0].config.data, data_dir=data_dir or runs[0].config.data.data_dir)
    for run in runs:
        if replace(run.config.data, data_dir=data.data_dir) != data:
            raise InputError(f"run_dir: expected runs on the same data, {run.run_dir} is on {run.config.data.source}")
    return [run._replace(config=replace(run.config, data=data)) for run in runs]


def compare(runs: Sequence[Run], pictures: Path | None) -> tuple[list[Row], str]:
    """Results by probe, and the table as text."""
    rows, config = [], runs[0].config
    for run in runs:
        found = run.config.open_features("test")
        measure = depth_scores if config.data.depth else class_scores
        row: Row = {"method": run.label} | measure(method(run), found)
        rows.append(row | {"parameters": parameters(run.network)} | step_costs(run))
    if pictures is not None:
        shown = range(min(_PICTURES, len(found)))
        comparison(pictures, {run.label: method(run) for run in runs}, [found[i][0] for i in shown], config.data.depth)
    text = markdown_table(beside_paper(rows, published(config, config.open_encoder())))
    return (
        rows,
        f"{text}\n\n{_DEPTH if config.data.depth else _LABELS} {len(found)} images of {config.data.side} pixels.",
    )


_LABELS = "Per cent."
_DEPTH = "Means over the images, of pixels whose depth is between 1 mm and 10 m; d1 to d3 in per cent, rmse in metres."


def method(run: Run) -> Method:
    """A probe with its upsampler as a function of examples."""
    enlarge, probe = run.config.open_upsampler(), jitted(run.network)
    finish: Callable[[Any], Any] = (lambda x: x[..., 0]) if run.config.data.depth else (lambda x: jnp.argmax(x, -1))

    def find(example: Example) -> tuple[np.ndarray, np.ndarray]:
        batch = {name: jnp.asarray(array[None]) for name, array in example.items()}
        fine = enlarge(batch)
        return np.asarray(fine[0]), np.asarray(finish(probe(fine, batch["whole"]))[0])

    return find


def class_scores(find: Method, found: Features) -> Row:
    """mIoU and the share of pixels that are right, of all images together, in per cent."""
    classes = len(found.squares.classes)

    def counted() -> list[np.ndarray]:
        total = np.zeros((classes, classes), np.int64)
        for index in share(len(found)):
            example = found[index][0]
            labels = jnp.asarray(find(example)[1][None]), jnp.asarray(example["truth"][None])
            total += np.asarray(metrics.confusion_matrix(*labels, num_classes=classes))
        return [total]

    scores = metrics.class_scores(summed(counted)[0])
    return {"mIoU": 100 * float(scores["mIoU"]), "accuracy": 100 * float(scores["aAcc"])}


def depth_scores(find: Method, found: Features) -> Row:
    """Means over the images."""

    def errors_of(index: int) -> dict[str, float]:
        example = found[index][0]
        depths = (jnp.asarray(x[None, ..., None]) for x in (find(example)[1], example["truth"]))
        valid = (example["truth"] > 1e-3) & (example["truth"] < 10)
        errors = metrics.depth_errors(*depths, valid=jnp.asarray(valid[None, ..., None]), convention="fastdepth")
        return {name: float(error[0]) for name, error in errors.items()}

    each = for_each(len(found), errors_of)
    errors = {name: np.array([e[name] for e in each]) for name in (*_ERRORS, "pixels")}
    means = metrics.depth_scores(errors, convention="fastdepth")
    return {ours: (100 if name.startswith("delta") else 1) * means[name] for name, ours in _ERRORS.items()}
