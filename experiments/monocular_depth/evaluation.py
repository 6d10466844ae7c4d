"""Trained networks on test images, in the protocols of FastDepth and of Hu et al.: a table beside the paper's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.data.monocular import Source
from experiments.data.monocular_batches import Example, Protocol, examined
from experiments.engine.config import RunConfig
from experiments.engine.processes import for_each
from experiments.engine.report import Output, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs
from experiments.monocular_depth.data import DataConfig, HeldOut, Manner
from experiments.monocular_depth.drawing import comparison
from experiments.monocular_depth.networks import LEAST, NetworkConfig, depth_of
from experiments.monocular_depth.paper import paper_cells
from experiments.monocular_depth.training import TrainConfig
from jaxup.metrics import depth_errors, depth_scores

Method = Callable[[Example], np.ndarray]  # -> depth [h, w, 1] in metres, of the size of the example's
Row = dict[str, Any]
_NAMES = {"rmse": "rms", "rel": "rel", "log10": "log10", "delta1": "delta1", "delta2": "delta2", "delta3": "delta3"}
_PICTURES = 6


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested; may be given several times. None: a tiny network
    as it is before training."""
    test: HeldOut = field(default=HeldOut())
    output: Output = field(default=Output())
    images: int | None = None
    """Test on the first ones only; none: on all."""
    protocols: tuple[Manner, ...] = ()
    """fastdepth, hu, or both, a table for each; none: that of the first run."""
    cost_size: tuple[int, int] = (224, 224)
    """Size of the image for which multiply-adds are counted."""


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks by rms, rel, log10 and deltas, beside the paper's; pictures on request."""
    runs = load_runs(TrainConfig, config.run_dir) or [untrained()]
    results, text = compare(runs, config, config.output.folder)
    publish(config.output.out, results, text)


def compare(
    runs: Sequence[Run],
    config: EvaluateConfig,
    pictures: Path | None,
    measured: Callable[[Run], Row] = lambda run: {},
) -> tuple[dict[str, list[Row]], str]:
    """Results by protocol and network, with what else was measured of each, and the tables as text."""
    source = config.test.open(runs[0].config.data, config.images)
    costs = {run.label: run.config.network.costs(config.cost_size) | measured(run) for run in runs}
    own: Protocol = runs[0].config.protocol
    results: dict[str, list[Row]] = {}
    texts = []
    for manner in dict.fromkeys(config.protocols or (own.manner,)):
        how = config.test.protocol(own, manner)
        methods = {"best constant": constant(source, how)} | {run.label: method(run) for run in runs}
        rows: list[Row] = [{"network": label} | scores(method, source, how) for label, method in methods.items()]
        for row, run in zip(rows[1:], runs, strict=True):
            row |= costs[run.label] | paper_cells(run.config.network)
        if pictures is not None:
            frames = [source[index] for index in range(min(_PICTURES, len(source)))]
            found = {run.label: methods[run.label] for run in runs}
            comparison(pictures / f"depth-{manner}.png", found, [(f.name, examined(f, how)) for f in frames])
        results[manner] = rows
        columns = [key for key in max(rows, key=len) if any(row.get(key, "") != "" for row in rows)]
        texts.append(f"Protocol: {manner}, {len(source)} images\n\n{markdown_table(rows, columns)}")
    return results, "\n\n".join([*texts, _NOTE.format(*config.cost_size)])


_NOTE = """\
Metres, over the pixels whose depth was measured; predictions below 1 mm count as 1 mm. Errors are means over images; of
rms, FastDepth's protocol takes the mean, Hu's the root of the mean of squares, and rms (pixels) is one root over all
pixels of all images. best constant: the mean depth of these images everywhere. GFLOPs: 2^30 multiply-adds for {} x {}
pixels, by XLA's count. Columns "paper": Lu et al., Tables 10 and 11, on NYU Depth v2."""


def method(run: Run) -> Method:
    """A trained network as a function of examples."""
    fn, prepared = jitted(run.network, _at_least), run.config.network.prepared

    def depth(example: Example) -> np.ndarray:
        image, truth = (jnp.asarray(example[name][None]) for name in ("image", "depth"))
        return np.asarray(fn(prepared(image), truth)[0])

    return depth


def _at_least(network: Any, x: Any, like: Any) -> Any:
    return jnp.maximum(depth_of(network, x, like), LEAST)


def constant(source: Source, how: Protocol) -> Method:
    """The mean depth of all measured pixels, everywhere: what a network has to beat."""

    def sums(index: int) -> tuple[float, int]:
        example = examined(source[index], how)
        return float(example["depth"].sum(dtype=np.float64)), int(example["valid"].sum())

    total, count = map(sum, zip(*for_each(len(source), sums), strict=True))
    mean = np.float32(total / max(count, 1))
    return lambda example: np.full_like(example["depth"], max(mean, LEAST))


def scores(method: Method, source: Source, how: Protocol) -> Row:
    """Means over the images as the protocol has them, and the rms of all their pixels."""

    def errors_of(index: int) -> dict[str, float]:
        example = examined(source[index], how)
        depths = (jnp.asarray(x[None]) for x in (method(example), example["depth"]))
        found = depth_errors(*depths, valid=jnp.asarray(example["valid"][None]), convention=how.manner)
        return {name: float(error[0]) for name, error in found.items()}

    each = for_each(len(source), errors_of)
    errors: Mapping[str, np.ndarray] = {name: np.array([e[name] for e in each]) for name in each[0]}
    means = depth_scores(errors, convention=how.manner)
    row: Row = {ours: means[name] for name, ours in _NAMES.items()}
    return row | {"rms (pixels)": depth_scores(errors, convention="pixels")["rmse"]}


def untrained() -> Run:
    """A tiny network with its initial weights, for generated rooms."""
    config = TrainConfig(
        RunConfig(Path()),
        NetworkConfig(features=32),
        DataConfig(images=2, size=(48, 64)),
        Protocol(height=32),
    )
    network = config.build()
    network.eval()
    return Run(f"{config.label}, untrained", config, network)
