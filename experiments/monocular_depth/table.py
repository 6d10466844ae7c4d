"""Several networks, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, replace

from flax import nnx

from experiments.engine.report import publish
from experiments.engine.runs import moved, step_costs, train_rows
from experiments.monocular_depth.data import Manner
from experiments.monocular_depth.evaluation import EvaluateConfig, compare
from experiments.monocular_depth.networks import NetworkConfig
from experiments.monocular_depth.paper import RESULTS
from experiments.monocular_depth.training import TrainConfig, train
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models.monocular_depth import MONOCULAR_DEPTH_METHODS

FASTDEPTH = tuple(name for name in RESULTS if name.startswith("fastdepth"))
"""All rows of the paper's Table 10."""
HU = tuple(name for name in RESULTS if name.startswith("hu"))
"""Those of Table 11."""
SHORT = ("fastdepth-nnconv5", "fastdepth-p-nnconv5", "fastdepth-p-carafe") + tuple(
    f"fastdepth-{kind}" for kind in ("holistic", "shared_o2o-nl-c", "unshared_o2o", "m2o")
)


@dataclass(frozen=True)
class TableConfig:
    """Which networks, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    models: tuple[str, ...] = SHORT
    """The rows, each in the place of `model`."""
    protocols: tuple[Manner, ...] = ()
    """Of the test, fastdepth, hu, or both; none: that of the training."""
    test_images: int | None = None
    """Test on the first ones only; none: on all."""
    cost_size: tuple[int, int] = (224, 224)
    """Size of the image for which multiply-adds are counted."""
    pictures: bool = True
    """Write images, truth and the depth of each network to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train several networks one after the other, and print the table of errors and costs with the paper's columns."""
    training, run_dir = config.training, config.training.run.run_dir
    if training.network.model != NetworkConfig.model:
        raise InputError("model: has no effect beside models")
    rows = {}
    for name in config.models:
        check_choice("models", name, MONOCULAR_DEPTH_METHODS)
        rows[name] = moved(training, run_dir / name, network=replace(training.network, model=name))
        nnx.eval_shape(rows[name].build)  # refuses options that do not fit before anything is trained
    training.data.open("test")
    trained = [row._replace(label=row.config.label) for row in train_rows(train, rows)]
    evaluation = EvaluateConfig(protocols=config.protocols, images=config.test_images, cost_size=config.cost_size)
    results, text = compare(trained, evaluation, run_dir if config.pictures else None, step_costs)
    publish(run_dir, results, f"{text} Time and memory are those of a training step.")
