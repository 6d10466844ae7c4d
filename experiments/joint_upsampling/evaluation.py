"""Comparison of trained networks and the methods without training: tables of RMSE beside the papers', and figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.data import RGBD, Source, crop_to_multiple, normalised, scored
from experiments.engine.figures import Comparison, comparison_figure
from experiments.engine.processes import for_each
from experiments.engine.report import beside_paper, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs
from experiments.joint_upsampling.classical import FILTERS, METHODS, SLOW, Method
from experiments.joint_upsampling.kernels import deformable, kernels_figure
from experiments.joint_upsampling.networks import upsample
from experiments.joint_upsampling.paper import SCALES, SECONDS, published
from experiments.joint_upsampling.training import DataConfig, Protocol, TrainConfig
from jaxup.files import InputError
from jaxup.metrics import rmse

Table = dict[str, dict[str, float]]  # method -> scale ("8x") -> RMSE
_TIMED = 480, 640


class Score(NamedTuple):
    """What is known of a comparison in all processes."""

    errors: Mapping[str, float]
    """RMSE by method."""
    peak: float
    """The range of the true depth."""


Compared = list[tuple[str, str, Score]]  # image, scale, errors


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which pairs."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint joins the methods without training in the table; may be
    given several times."""
    data: DataConfig = field(default=DataConfig(source="motorcycle", scales=(4, 8, 16)))
    protocols: tuple[Protocol, ...] = ()
    """Several protocols, one table for each; none: `protocol` alone."""
    border: int | None = None
    """Pixels at the borders that do not count; none: 6 with the protocol djf, else 0."""
    solvers: bool = True
    """Compare FGI and FBS, too, which compile for seconds at every new size of an image."""
    slow: bool = False
    """Compare MRF, TGV, Park and SDF, too, which take seconds an image."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image and scale to `out`, and one of the kernels of DKN and FDKN."""
    seconds: bool = False
    """Measure what each method takes for 640 x 480 pixels at the last scale, too: CPU time of all threads, compiled."""


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks and the methods without training on pairs: RMSE beside the papers', pictures on request.

    The papers' numbers stand beside the protocol under which they were made: `--protocols grid bicubic djf`.
    """
    chosen = config.protocols or (config.data.protocol,)
    if config.protocols and config.data.protocol != DataConfig.protocol:
        raise InputError("protocol: has no effect beside protocols")
    if config.border is not None and config.border < 0:
        raise InputError(f"border: expected at least 0, got {config.border}")
    if "noise" in chosen:
        raise InputError("protocol: noise is for the command denoise")
    config.data.check("test", EvaluateConfig.data)
    runs = load_runs(TrainConfig, config.run_dir)
    for run in runs:
        run.config.network.check(config.data.scales)
    methods = (METHODS if config.solvers else FILTERS) | (SLOW if config.slow else {}) | as_methods(runs)
    names = {run.label: run.config.network.published for run in runs}
    source, results, texts = config.data.open("test"), {}, []
    seconds = seconds_of(methods, source[0], config.data.scales[-1]) if config.seconds else {}
    counts = {"parameters": parameters_of(runs)} | ({"seconds": seconds} if seconds else {})
    for protocol in chosen:
        data = replace(config.data, protocol=protocol)
        pictures = config.out / (protocol if config.protocols else "") if config.out and config.pictures else None
        rows = compare_pairs(source, data, methods, pictures, config.border)
        table = mean_table([(scale, score) for _, scale, score in rows])
        images = [{"image": name, "scale": scale, **c.errors} for name, scale, c in rows]
        results[protocol] = {"unit": source.unit, "mean": table, "images": images, **counts}
        if pictures is not None and deformable(runs):
            for index, scale in product(range(len(source)), data.scales):
                sample = source[index]
                path = pictures / f"{sample.name}_{scale}x_kernels.png"
                kernels_figure(path, sample, scale, protocol, deformable(runs))
        heading = f"RMSE in {source.unit}, mean of {len(source)} pairs, protocol {protocol}"
        texts.append(table_text(heading, table, data, names))
    if seconds:
        texts.append(seconds_text(seconds, names))
    publish(config.out, results if config.protocols else results[chosen[0]], "\n\n".join(texts))


def seconds_of(methods: Mapping[str, Method], sample: RGBD, scale: int) -> dict[str, float]:
    """CPU seconds of each method for a pair enlarged to 640 x 480 pixels, the least of two runs after the first."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(_TIMED, sample.depth.shape, strict=False))
    window = np.ix_(rows, columns)
    example = normalised(sample._replace(guide=sample.guide[window], depth=sample.depth[window]), scale, "grid")
    maps = [jnp.asarray(example[name])[None] for name in ("target", "guide")]
    found = {}
    for name, method in methods.items():
        times = []
        for _ in range(3):
            start = time.process_time()
            jax.block_until_ready(method(*maps))
            times.append(time.process_time() - start)
        found[name] = min(times[1:])
    return found


def seconds_text(seconds: Mapping[str, float], names: Mapping[str, str]) -> str:
    """The table as Markdown, beside the paper's."""
    called = {name: name for name in SECONDS} | {paper: name for name, paper in names.items() if paper}
    paper = {called[name]: f"{value:g}" for name, value in SECONDS.items()}
    rows = beside_paper([{"method": name, "seconds": value} for name, value in seconds.items()], {"seconds": paper})
    what = "paper: Table 3, classical methods on one core of an i5 at 3.3 GHz, networks on a Titan XP"
    return f"CPU seconds for 640 x 480 ({what})\n\n{markdown_table(rows, digits=2)}"


def parameters_of(runs: Sequence[Run]) -> dict[str, int]:
    """How many numbers each network has learned."""
    sizes = {run.label: jax.tree.leaves(nnx.state(run.network, nnx.Param)) for run in runs}
    return {label: sum(int(leaf.size) for leaf in leaves) for label, leaves in sizes.items()}


def compare_pairs(
    source: Source,
    data: DataConfig,
    methods: Mapping[str, Method],
    pictures: Path | None = None,
    border: int | None = None,
    keep: Callable[[str, Comparison], None] = lambda scale, comparison: None,
) -> Compared:
    """Compares methods on every pair and scale, which processes share if no pictures are wanted; draws the pictures.

    Each comparison is handed to `keep` in the process that makes it; the first one makes those of the first pair.
    """

    def scores_of(index: int) -> list[tuple[str, str, dict[str, float], float]]:
        sample, found = source[index], []
        for scale in data.scales:
            comparison = compare(sample, scale, data.protocol, methods, source.unit, border)
            keep(f"{scale}x", comparison)
            if pictures is not None:
                comparison_figure(pictures / f"{sample.name}_{scale}x.png", [comparison])
            found.append((sample.name, f"{scale}x", dict(comparison.errors), float(np.ptp(comparison.truth))))
        return found

    each = for_each(len(source), scores_of, alone=pictures is not None)
    return [(name, scale, Score(errors, peak)) for rows in each for name, scale, errors, peak in rows]


def as_methods(runs: Sequence[Run]) -> dict[str, Method]:
    """Trained networks as compiled functions of normalised depth and guide."""
    return {run.label: jitted(run.network, upsample) for run in runs}


def compare(
    sample: RGBD, scale: int, protocol: str, methods: Mapping[str, Method], unit: str, border: int | None = None
) -> Comparison:
    """Lower the resolution of one pair by `scale` and bring it back with every method."""
    sample = crop_to_multiple(sample, scale)
    example = normalised(sample, scale, protocol)
    valid = scored(sample.valid, protocol, border)
    results = {}
    for name, method in methods.items():
        depth = np.asarray(method(jnp.asarray(example["target"])[None], jnp.asarray(example["guide"])[None])[0])
        results[name] = depth * example["range"] + example["offset"]
    low = example["target"] * example["range"] + example["offset"]
    truth, counts = jnp.asarray(sample.depth)[None], jnp.asarray(valid)[None]
    errors = {name: float(rmse(jnp.asarray(x)[None], truth, valid=counts)[0]) for name, x in results.items()}
    return Comparison(f"{sample.name}, {scale}x", sample.guide, low, results, sample.depth, valid, unit, errors)


def mean_table(scores: Sequence[tuple[str, Score]]) -> Table:
    """RMSE by method and scale, the mean over images."""
    table: dict[str, dict[str, list[float]]] = {}
    for scale, score in scores:
        for method, error in score.errors.items():
            table.setdefault(method, {}).setdefault(scale, []).append(error)
    return {method: {scale: float(np.mean(e)) for scale, e in row.items()} for method, row in table.items()}


def table_text(heading: str, table: Table, data: DataConfig, names: Mapping[str, str]) -> str:
    """The table as Markdown, with the papers' numbers beside ours.

    Args:
        heading: what ours are.
        table: ours.
        data: what was tested on.
        names: what the papers call our networks, empty where they have no such network.
    """
    known, what = published(data.source, data.protocol)
    called = {name: name for name in known} | {paper: name for name, paper in names.items() if paper}
    papers: dict[str, dict[str, Any]] = {f"{scale}x": {} for scale in data.scales if scale in SCALES}
    for name, values in known.items():
        for scale, value in zip(SCALES, values, strict=True):
            if f"{scale}x" in papers:
                papers[f"{scale}x"][called[name]] = value
    rows = beside_paper([{"method": method, **row} for method, row in table.items()], papers)
    return f"{heading} (paper: {what})\n\n{markdown_table(rows, digits=3)}"
