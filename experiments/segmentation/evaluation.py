"""Trained networks on test images: whole or in windows, mIoU, mAcc and boundary IoU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

from experiments.data.segmentation import First, Source
from experiments.engine.config import RunConfig
from experiments.engine.processes import share, summed
from experiments.engine.report import Output, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs
from experiments.engine.trained import Trained
from experiments.segmentation.data import DataConfig
from experiments.segmentation.drawing import comparison
from experiments.segmentation.networks import NetworkConfig, costs, normalised
from experiments.segmentation.paper import paper_cells
from experiments.segmentation.training import TrainConfig
from jaxup import metrics
from jaxup.files import InputError
from jaxup.models.segmentation import slide, whole
from jaxup.ops import resize
from jaxup.solvers import dense_crf

Method = Callable[[np.ndarray], jax.Array]  # uint8 [H, W, 3] -> logits [1, H, W, K]
Row = dict[str, Any]
_PICTURES = 6


@dataclass(frozen=True)
class Inference:
    """How images are brought to a network."""

    window: tuple[int, int] | None = None
    """Height and width of the windows in which it sees them; none: whole images."""
    stride: tuple[int, int] | None = None
    """From one window to the next; none: two thirds of them."""
    test_side: int | None = None
    """Images are first brought to this size of their shorter side, and the logits back; none: they keep their own."""

    def method(self, network: Any, normalise: Callable[[jax.Array], jax.Array] = normalised) -> Method:
        """A network as a function of images of any size, which it sees after `normalise`."""
        if self.stride is not None and self.window is None:
            raise InputError("stride: has no effect without a window")
        for name, sides in (("window", self.window), ("stride", self.stride), ("test_side", (self.test_side or 1,))):
            if sides is not None and min(sides) < 1:
                raise InputError(f"{name}: expected at least 1, got {min(sides)}")
        fn, crop = jitted(network), self.window
        cell = getattr(network.network if isinstance(network, Trained) else network, "cell", None)
        stride = self.stride or (crop and (max(1, 2 * crop[0] // 3), max(1, 2 * crop[1] // 3)))

        def logits(image: np.ndarray) -> jax.Array:
            x = normalise(jnp.asarray(shorter(image, self.test_side)[None]))
            if crop is None or stride is None:
                found = whole(fn, x, cell=cell)
            else:
                found = slide(fn, x, crop=crop, stride=stride, cell=cell)
            return resize(found, size=image.shape[:2], method="bilinear")

        return logits


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested on its own data; may be given several times. None:
    a tiny network as it is before training, on generated shapes."""
    data_dir: Path | None = None
    """Folder of the data. None: that of the runs, or the environment variable JAXUP_DATA."""
    inference: Inference = field(default=Inference())
    crf: bool = False
    """A further row for each network, with a dense CRF after it, which deeplabv2-crf always has."""
    images: int | None = None
    """Test on the first ones only; none: on all."""
    cost_size: tuple[int, int] = (512, 512)
    """Size of the image for which multiply-adds are counted."""
    output: Output = field(default=Output())


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks by mIoU, mAcc and boundary IoU, beside the paper's; pictures on request."""
    runs = load_runs(TrainConfig, config.run_dir) or [untrained()]
    rows, text = compare(runs, config, config.output.folder)
    publish(config.output.out, rows, text)


def untrained(upsampler: str | None = None) -> Run:
    """A tiny network with its initial weights."""
    tiny = NetworkConfig("segformer", "tiny", upsampler)
    config = TrainConfig(RunConfig(Path()), tiny, DataConfig(images=1, size=(48, 64)))
    network = config.build()
    network.eval()
    return Run(f"{config.label}, untrained", config, network)


def compare(
    runs: Sequence[Run],
    config: EvaluateConfig,
    pictures: Path | None,
    measured: Callable[[Run], Row] = lambda run: {},
) -> tuple[list[Row], str]:
    """Results by network, with what else was measured of each, and the table as text."""
    rows, methods = [], {}
    for run in runs:
        source = test_images(run.config, config.data_dir, config.images)
        for label, (network, method) in _variants(run, config).items():
            methods[label] = method
            row: Row = {"network": label, **scores(method, source)}
            row |= costs(network, len(source.classes), config.cost_size)
            rows.append(row | measured(run) | paper_cells(network))
    if pictures is not None:
        samples = [source[index] for index in range(min(_PICTURES, len(source)))]
        comparison(pictures, {name: partial(classes, method) for name, method in methods.items()}, samples)
    shown = [{k: v for k, v in row.items() if k not in ("IoU", "boundary IoU")} for row in rows]
    columns = [key for key in max(shown, key=len) if any(row.get(key, "") != "" for row in shown)]
    size = "{} x {}".format(*config.cost_size)
    return rows, f"{markdown_table(shown, columns)}\n\nPer cent; multiply-adds for {size} pixels, by XLA's count."


def _variants(run: Run, config: EvaluateConfig) -> dict[str, tuple[NetworkConfig, Method]]:
    """A network, and the same with a CRF where that was asked for: by label, as which network, and the method."""
    network, method = run.config.network, config.inference.method(run.network)
    if network.model == "deeplabv2-crf":
        return {run.label: (network, with_crf(method))}
    found = {run.label: (network, method)}
    if config.crf:
        other = replace(network, model="deeplabv2-crf") if network.model == "deeplabv2" else network
        found[f"{run.label}, CRF"] = other, with_crf(method)
    return found


def with_crf(method: Method) -> Method:
    """What a dense CRF makes of a method's logits: probabilities."""

    def probabilities(image: np.ndarray) -> jax.Array:
        return dense_crf(method(image), jnp.asarray(image[None] / np.float32(255)))

    return probabilities


def test_images(config: TrainConfig, data_dir: Path | None, images: int | None = None) -> Source:
    """Those of a run's data set, in this folder or its own; only the first ones."""
    directory = data_dir or config.data.data_dir
    data = config.data if config.data.source == "shapes" else replace(config.data, data_dir=directory)
    source = data.open("test")
    return source if images is None else First(source, min(images, len(source)))


def scores(method: Method, source: Source) -> Row:
    """Per cent, of counts over all images at their own sizes."""
    count = len(source.classes)

    def counts() -> tuple[np.ndarray, np.ndarray]:
        confusion, areas = np.zeros(()), np.zeros(())
        for index in share(len(source)):
            sample = source[index]
            found, labels = jnp.argmax(method(sample.image), -1), jnp.asarray(sample.labels[None])
            confusion = confusion + np.asarray(metrics.confusion_matrix(found, labels, num_classes=count))
            areas = areas + np.asarray(metrics.boundary_areas(found, labels, num_classes=count))
        return confusion, areas

    confusion, areas = summed(counts)
    result, boundary = metrics.class_scores(confusion), metrics.boundary_iou(areas)
    row: Row = {name: 100 * float(result[name]) for name in ("mIoU", "mAcc", "aAcc", "mDice")}
    row["bIoU"] = 100 * float(np.nanmean(boundary))
    for name, values in (("IoU", result["IoU"]), ("boundary IoU", boundary)):
        pairs: Mapping[str, float] = dict(zip(source.classes, values.tolist(), strict=True))
        row[name] = {k: None if np.isnan(v) else v for k, v in pairs.items()}
    return row


def classes(method: Method, image: np.ndarray) -> np.ndarray:
    """What a method finds, [H, W]."""
    return np.asarray(jnp.argmax(method(image), -1))[0]


def shorter(image: np.ndarray, side: int | None) -> np.ndarray:
    """An image with this size of its shorter side."""
    if side is None:
        return image
    height, width = (max(1, round(n * side / min(image.shape[:2]))) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
