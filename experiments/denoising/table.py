"""Several networks, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace

from experiments.data.photos import middles
from experiments.denoising.evaluation import compare, read_tests
from experiments.denoising.networks import MODELS, NetworkConfig
from experiments.denoising.paper import RESULTS
from experiments.denoising.training import TrainConfig, train
from experiments.engine.report import publish
from experiments.engine.runs import moved, train_rows
from jaxup._checks import check_choice
from jaxup.files import InputError

SHORT = ("dncnn", "max-unpool", "max-carafe", "holistic", "modelwise_o2o", "shared_o2o-nl-c", "m2o")
PAPER = tuple(RESULTS)
"""All rows of the paper's table."""


@dataclass(frozen=True)
class TableConfig:
    """Which networks, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    models: tuple[str, ...] = SHORT
    """The rows, each in the place of `model`."""
    sigmas: tuple[float, ...] = ()
    """Levels of noise, each in the place of `sigma`; none: that one alone."""
    tests: tuple[str, ...] = ("photos",)
    """photos, set12, bsd68, or the path of a folder of images; data sets from `data_dir`."""
    images: int | None = None
    """Test on the first ones of each set only; none: on all."""
    crop: int | None = None
    """Test on the middle of each image only, so many pixels wide and high; none: on all of it."""
    pictures: bool = True
    """Write a picture per image, and the index maps of the first stage, to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train several networks one after the other, and print the table of PSNR and SSIM."""
    rows = _rows(config)
    read = read_tests(config.tests, config.training.data.data_dir)
    tests = {name: middles(images, config.images, config.crop) for name, images in read.items()}
    run, trained = config.training.run, []
    for sigma_rows in rows:
        trained += [row._replace(label=row.config.label) for row in train_rows(train, sigma_rows)]
    results, text = compare(trained, tests, run.seed, run.run_dir if config.pictures else None)
    publish(run.run_dir, results, text)


def _rows(config: TableConfig) -> list[dict[str, TrainConfig]]:
    """The trainings by label, of each level of noise; all are checked."""
    training = config.training
    for name, option, rows in (("model", training.network.model, "models"), ("sigma", training.sigma, "sigmas")):
        usual = NetworkConfig.model if name == "model" else TrainConfig.sigma
        if option != usual and getattr(config, rows):
            raise InputError(f"{name}: has no effect beside {rows}")
    for model in config.models:
        check_choice("models", model, MODELS)
    data = replace(training.data, data_dir=None) if training.data.source == "photos" else training.data
    found = []
    for sigma in config.sigmas or (training.sigma,):
        level = f"-sigma-{sigma:g}" if len(config.sigmas) > 1 else ""
        networks = {model: replace(training.network, model=model) for model in config.models}
        found.append(
            {
                f"{network.label}, sigma = {sigma:g}": moved(
                    training, training.run.run_dir / f"{model}{level}", network=network, sigma=sigma, data=data
                )
                for model, network in networks.items()
            }
        )
    for row in found:
        for each in row.values():
            each.check()
    return found
