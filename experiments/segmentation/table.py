"""One network with several upsamplers, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, field, replace

from experiments.engine.report import publish
from experiments.engine.runs import moved, step_costs, train_rows
from experiments.segmentation.evaluation import EvaluateConfig, Inference, compare
from experiments.segmentation.training import TrainConfig, train
from jaxup.files import InputError

PAPER = (
    "bilinear",
    "deconvolution",
    "pixel_shuffle",
    "stack_jbu",
    "carafe",
    "indexnet",
    "fade",
    "sapa",
    "dysample",
    "a2u",
    "resfu",
)


@dataclass(frozen=True)
class TableConfig:
    """Which upsamplers, and how all are trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    upsamplers: tuple[str, ...] = PAPER
    """The rows, each in the place of `upsampler`."""
    inference: Inference = field(default=Inference())
    test_images: int | None = None
    """Test on the first ones only; none: on all."""
    cost_size: tuple[int, int] = (512, 512)
    """Size of the image for which multiply-adds are counted."""
    pictures: bool = True
    """Write predictions side by side to `run_dir`."""


def table(config: TableConfig) -> None:
    """Train a network with several upsamplers, and print the table of scores and costs with the paper's columns."""
    training, run_dir = config.training, config.training.run.run_dir
    if training.network.upsampler is not None:
        raise InputError("upsampler: has no effect beside upsamplers")
    rows = {
        name: moved(training, run_dir / name, network=replace(training.network, upsampler=name))
        for name in config.upsamplers
    }
    for name in config.upsamplers:
        if name not in PAPER:
            rows[name].build()  # refuses an unknown one before anything is trained
    trained = train_rows(train, rows)
    evaluation = EvaluateConfig(
        inference=config.inference,
        images=config.test_images,
        cost_size=config.cost_size,
        data_dir=training.data.data_dir,
    )
    results, text = compare(trained, evaluation, run_dir if config.pictures else None, step_costs)
    publish(run_dir, results, f"{text} Time and memory are those of a training step.")
