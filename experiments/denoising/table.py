"""Several networks, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.data.denoising import Images
from experiments.denoising.evaluation import Trained, compare, read_test
from experiments.denoising.networks import MODELS
from experiments.denoising.training import TrainConfig, train
from experiments.engine.config import RunConfig
from experiments.engine.report import save_results
from jaxup._checks import check_choice


@dataclass(frozen=True)
class TableConfig:
    """Which networks, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    models: tuple[str, ...] = (
        "dncnn",
        "max-unpool",
        "max-carafe",
        "holistic",
        "modelwise_o2o",
        "shared_o2o-nl-c",
        "m2o",
    )
    """The rows, each in the place of `model`."""
    tests: tuple[str, ...] = ("photos",)
    """photos, set12, bsd68, or the path of a folder of images; data sets from `data_dir`."""
    pictures: bool = True
    """Write a picture per image, and the index maps of the first stage, to `run_dir`."""
    smoke: bool = False
    """A minute's run of narrow networks on parts of two images, which shows that everything works, not how well."""


def table(config: TableConfig) -> None:
    """Train several networks one after the other, and print the table of PSNR and SSIM."""
    for model in config.models:
        check_choice("models", model, MODELS)
    training, tests = config.training, _tests(config)
    if config.smoke:
        training = _smoke(training)
    runs = []
    for model in config.models:
        run = replace(training.run, run_dir=training.run.run_dir / model)
        row = replace(training, run=run, network=replace(training.network, model=model))
        print(f"training {row.network.label}, sigma = {row.sigma:g}: {run.steps} steps", flush=True)
        network: Any = train(row)
        runs.append(Trained(row.network.label, row, network, run.run_dir))
    pictures = training.run.run_dir if config.pictures else None
    results, text = compare(runs, tests, training.run.seed, pictures)
    print(f"\n{text}")
    save_results(training.run.run_dir, results, text)


def _tests(config: TableConfig) -> dict[str, Images]:
    """The test sets by name, read before anything is trained."""
    tests = {Path(name).name: read_test(name, config.training.data.data_dir) for name in config.tests}
    if config.smoke:
        parts = {name: list(images.items())[:2] for name, images in tests.items()}
        tests = {name: {key: image[-53:, -70:] for key, image in images} for name, images in parts.items()}
    return tests


def _smoke(training: TrainConfig) -> TrainConfig:
    run: RunConfig = replace(training.run, steps=4, log_every=2, save_every=4)
    return replace(training, run=run, network=replace(training.network, features=4), batch_size=8, drops=(3,))
