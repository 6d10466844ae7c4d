"""Comparison of trained networks and the methods without training: tables of RMSE, and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.data import RGBD, crop_to_multiple, normalised
from experiments.engine.checkpoint import load_model
from experiments.engine.config import load_config
from experiments.engine.report import Comparison, check_out, comparison_figure, markdown_table, rmse, save_results
from experiments.joint_upsampling.classical import METHODS, Method
from experiments.joint_upsampling.networks import upsample
from experiments.joint_upsampling.training import DataConfig, TrainConfig
from jaxup.files import InputError

Table = dict[str, dict[str, float]]  # method -> scale ("8x") -> RMSE


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which pairs."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint joins the methods without training in the table; may be
    given several times."""
    data: DataConfig = field(default=DataConfig(source="motorcycle", scales=(4, 8, 16)))
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image and scale to `out`."""


def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks and the methods without training on pairs: a table of RMSE, pictures on request."""
    if config.data.protocol == "noise":
        raise InputError("protocol: noise is for the command denoise")
    rows, unit, count = compare_pairs(config, METHODS)
    table = mean_table([(scale, comparison) for _, scale, comparison in rows])
    text = f"RMSE in {unit}, mean of {count} pairs, protocol {config.data.protocol}\n\n{format_table(table)}"
    print(text)
    if config.out is not None:
        images = [{"image": name, "scale": scale, **errors(c)} for name, scale, c in rows]
        save_results(config.out, {"unit": unit, "mean": table, "images": images}, text)


def compare_pairs(
    config: EvaluateConfig, methods: Mapping[str, Method]
) -> tuple[list[tuple[str, str, Comparison]], str, int]:
    """(image, scale, comparison) of every test pair and scale with these methods and the trained ones, the unit, and
    the number of pairs; draws the pictures."""
    check_out(config.out, config.pictures)
    methods = {**methods, **trained_methods(config.run_dir)}
    source = config.data.open("test")
    rows = []
    for index in range(len(source)):
        sample = source[index]
        for scale in config.data.scales:
            comparison = compare(sample, scale, config.data.protocol, methods, source.unit)
            rows.append((sample.name, f"{scale}x", comparison))
            if config.pictures and config.out is not None:
                comparison_figure(config.out / f"{sample.name}_{scale}x.png", [comparison])
    return rows, source.unit, len(source)


def trained_methods(run_dirs: Sequence[Path]) -> dict[str, Method]:
    """The networks of training runs, by model, and where that is not enough, by directory as well."""
    configs = [load_config(TrainConfig, run_dir) for run_dir in run_dirs]
    labels = [config.network.label for config in configs]
    methods = {}
    for run_dir, config, label in zip(run_dirs, configs, labels, strict=True):
        network = load_model(run_dir, config.network.build(config.run.seed))
        place = run_dir.name if [d.name for d in run_dirs].count(run_dir.name) == 1 else run_dir
        methods[label if labels.count(label) == 1 else f"{label} ({place})"] = as_method(network)
    return methods


def as_method(network: nnx.Module) -> Method:
    """A trained network as a compiled function of normalised depth and guide."""
    graph, state = nnx.split(network)
    run = jax.jit(lambda state, target, guide: upsample(nnx.merge(graph, state), target, guide))
    return lambda target, guide: run(state, target, guide)


def compare(sample: RGBD, scale: int, protocol: str, methods: Mapping[str, Method], unit: str) -> Comparison:
    """Lower the resolution of one pair by `scale` and bring it back with every method."""
    sample = crop_to_multiple(sample, scale)
    example = normalised(sample, scale, protocol)
    results = {}
    for name, method in methods.items():
        depth = np.asarray(method(jnp.asarray(example["target"])[None], jnp.asarray(example["guide"])[None])[0])
        results[name] = depth * example["range"] + example["offset"]
    low = example["target"] * example["range"] + example["offset"]
    return Comparison(f"{sample.name}, {scale}x", sample.guide, low, results, sample.depth, sample.valid, unit)


def errors(comparison: Comparison) -> dict[str, float]:
    """RMSE by method."""
    return {name: rmse(depth, comparison.truth, comparison.valid) for name, depth in comparison.results.items()}


def mean_table(comparisons: Sequence[tuple[str, Comparison]]) -> Table:
    """RMSE by method and scale, the mean over images."""
    table: dict[str, dict[str, list[float]]] = {}
    for scale, comparison in comparisons:
        for method, error in errors(comparison).items():
            table.setdefault(method, {}).setdefault(scale, []).append(error)
    return {method: {scale: float(np.mean(e)) for scale, e in row.items()} for method, row in table.items()}


def format_table(table: Table) -> str:
    """The table as Markdown."""
    rows = [{"method": method, **row} for method, row in table.items()]
    return markdown_table(rows, list(rows[0]), digits=3)
