"""Several networks, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace

from experiments.engine.report import publish
from experiments.engine.runs import moved, step_costs, train_rows
from experiments.matting.evaluation import EvaluateConfig, baselines, compare, read_tests
from experiments.matting.networks import NetworkConfig
from experiments.matting.paper import RESULTS
from experiments.matting.training import TrainConfig, train
from jaxup.files import InputError

SHORT = ("B11", "B11-carafe", "holistic-nl-c", "shared_o2o", "m2o-nl-c", "A2U")
INDEXNET = tuple(name for name in RESULTS if not name.startswith("A2U"))
"""All rows of Index Networks' Tables 4 to 6."""


@dataclass(frozen=True)
class TableConfig:
    """Which networks, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    models: tuple[str, ...] = SHORT
    """The rows, each in the place of `model`."""
    tests: tuple[str, ...] = ("generated",)
    """generated, adobe, alphamatting or folder; data sets from `data_dir`."""
    test_images: int | None = None
    """Test on the first ones of each set only; none: on all, of generated ones on 30."""
    baselines: tuple[str, ...] = ("trimap",)
    """As of evaluate: trimap, and closed-form, by pymatting."""
    pictures: bool = True
    """Write images, trimaps, mattes and what each network makes of them to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train several networks, and print the tables of their errors and costs with the papers' columns."""
    training, run_dir = config.training, config.training.run.run_dir
    if training.network.model != NetworkConfig.model:
        raise InputError("model: has no effect beside models")
    if not config.models:
        raise InputError("models: expected at least one")
    evaluation = EvaluateConfig(
        tests=config.tests, data_dir=training.data.data_dir, images=config.test_images, size=training.data.size
    )
    generated = training.data.source == "generated"
    if generated and config.tests == ("generated",):
        training.data.open()  # refuses a folder, which nothing would be read from
    data = replace(training.data, data_dir=None) if generated else training.data
    rows = {
        name: moved(training, run_dir / name, network=replace(training.network, model=name), data=data)
        for name in config.models
    }
    for row in rows.values():
        row.check()
    tests, others = read_tests(evaluation), baselines(config.baselines)
    trained = [run._replace(label=run.config.label) for run in train_rows(train, rows)]
    results, text = compare(
        trained, tests, others, config.test_images, run_dir if config.pictures else None, step_costs
    )
    publish(run_dir, results, f"{text} Time and memory are those of a training step.")
