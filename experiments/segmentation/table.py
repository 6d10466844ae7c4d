"""One network with several upsamplers, trained one after the other in the same way, and compared."""

from dataclasses import dataclass, field, replace

from experiments.engine.report import publish
from experiments.engine.runs import Run, moved, step_costs, train_rows
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
    models: tuple[str, ...] = ()
    """Rows in the place of `model`, and then none of `upsamplers`. deeplabv2-crf is not trained where deeplabv2 is
    among them, but tested with that network."""
    inference: Inference = field(default=Inference())
    test_images: int | None = None
    """Test on the first ones only; none: on all."""
    cost_size: tuple[int, int] = (512, 512)
    """Size of the image for which multiply-adds are counted."""
    pictures: bool = True
    """Write predictions side by side to `run_dir`."""


def _trained(rows: dict[str, TrainConfig]) -> list[Run]:
    """All rows in their order, that with a CRF from the one without it."""
    crf, plain = "deeplabv2-crf", "deeplabv2"
    once = {name: config for name, config in rows.items() if not (name == crf and plain in rows)}
    runs = dict(zip(once, train_rows(train, once), strict=True))
    if crf not in runs and crf in rows:
        network = replace(rows[crf].network, model=crf)
        runs[crf] = runs[plain]._replace(label=crf, config=replace(runs[plain].config, network=network))
    return [runs[name] for name in rows]


def table(config: TableConfig) -> None:
    """Train a network with several upsamplers, and print the table of scores and costs with the paper's columns."""
    training, run_dir = config.training, config.training.run.run_dir
    if training.network.upsampler is not None:
        raise InputError("upsampler: has no effect beside upsamplers")
    field_name, names = ("model", config.models) if config.models else ("upsampler", config.upsamplers)
    rows = {
        name: moved(training, run_dir / name, network=replace(training.network, **{field_name: name})) for name in names
    }
    for name in names:
        rows[name].check()
        if name not in PAPER:
            rows[name].build()  # refuses an unknown one before anything is trained
    trained = _trained(rows)
    evaluation = EvaluateConfig(
        inference=config.inference,
        images=config.test_images,
        cost_size=config.cost_size,
        data_dir=training.data.data_dir,
    )
    results, text = compare(trained, evaluation, run_dir if config.pictures else None, step_costs)
    publish(run_dir, results, f"{text} Time and memory are those of a training step.")
