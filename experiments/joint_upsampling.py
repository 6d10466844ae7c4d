"""Depth maps upsampled under the guidance of an RGB image (Kundu et al., section IV-A).

train fits one network of Table I; evaluate compares a trained network with the methods without training on a folder
of pairs; demo does both on a small scale, without any download.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.checkpoint import load_model
from experiments.classical import METHODS, Method
from experiments.config import RunConfig, load_config, open_run
from experiments.data import (
    HELD_OUT_SEED,
    RGBD,
    Cached,
    Motorcycle,
    NYUDepthV2,
    PairFolder,
    Scenes,
    Source,
    crop_to_multiple,
    data_dir,
    normalised,
    training_batches,
)
from experiments.errors import InputError
from experiments.report import Comparison, comparison_figure, markdown_table, rmse
from experiments.train import fit
from jaxup.models import DJF, AttentionJointNetwork, make_joint_network

SourceName = Literal["scenes", "nyu", "pairs", "motorcycle"]
Protocol = Literal["grid", "bicubic"]
Table = dict[str, dict[str, float]]  # method -> scale ("8x") -> RMSE

PAPER_RMSE = {"4x": 2.64, "8x": 5.01, "16x": 8.63}
"""SA_M2_F32 on NYU Depth v2 in centimetres, Table II; bicubic there has 8.16, 14.22 and 22.32."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "SA_M2_F32"
    """A name of Table I: SA_M1_F8, SA_M1_F16, SA_M1_F32, SA_M2_F32, DJF, DJF+ or DJFScaled+."""
    widths: tuple[int, int] | None = None
    """Widths of the first two layers of both streams; none: those of Table I."""
    residual: bool = False
    """Let the network predict what to add to the depth itself, upsampled (not in the paper)."""

    def build(self, seed: int) -> AttentionJointNetwork | DJF:
        """The network with its initial weights."""
        widths = {} if self.widths is None else {"widths": self.widths}
        return make_joint_network(self.model, residual=self.residual, **widths, rngs=nnx.Rngs(seed))


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and how their low-resolution depth is made."""

    source: SourceName = "scenes"
    """Generated scenes, NYU Depth v2 (1000 pairs to train, 449 to test), a folder of pairs, or the one real pair of
    scikit-image."""
    data_dir: Path | None = None
    """Folder of the pairs, or of nyu_depth_v2_labeled.mat. None: the environment variable JAXUP_DATA."""
    scales: tuple[int, ...] = (8,)
    """Factors; where there are several, batches alternate between them. Powers of two."""
    protocol: Protocol = "grid"
    """Low-resolution depth: every s-th pixel (the attention paper, DJF), or bicubic downsampling (DKN)."""
    scenes: int = 512
    """Number of generated scenes."""
    scene_size: int = 128
    """Their height and width in pixels."""

    def open(self, split: Literal["train", "test"]) -> Source:
        """The training or test part of the source."""
        if self.source == "scenes":
            return Scenes(self.scenes, self.scene_size, 0 if split == "train" else HELD_OUT_SEED)
        if self.source == "motorcycle":
            return Motorcycle()
        directory = data_dir(self.data_dir)
        return (
            NYUDepthV2(directory / "nyu_depth_v2_labeled.mat", split) if self.source == "nyu" else PairFolder(directory)
        )


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    crop: int = 256
    """Side of the training windows in pixels."""
    batch_size: int = 10
    """Windows in a batch."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by 10."""


def masked_l2(model: nnx.Module, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error over the valid pixels, on normalised depth."""
    error = (model(batch["target"], batch["guide"]) - batch["depth"]) ** 2 * batch["valid"]
    mean = error.sum() / jnp.maximum(batch["valid"].sum(), 1)
    return mean, {"rmse": jnp.sqrt(mean)}


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    source = Cached(config.data.open("train"))
    batches = training_batches(
        source,
        scales=config.data.scales,
        crop=config.crop,
        batch_size=config.batch_size,
        protocol=config.data.protocol,
        seed=config.run.seed,
    )
    network = config.network.build(config.run.seed)
    open_run(config.run.run_dir, config)
    schedule = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, 0.1))
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
    return fit(network, optimizer, masked_l2, batches, config.run)


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which pairs."""

    run_dir: Path | None = None
    """Directory of a training run, whose newest checkpoint joins the table; none: the methods without training."""
    data: DataConfig = DataConfig(source="motorcycle", scales=(4, 8, 16))
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image and scale to `out`."""


def evaluate(config: EvaluateConfig) -> None:
    """Compare a trained network and the methods without training on pairs: a table of RMSE, pictures on request."""
    if config.pictures and config.out is None:
        raise InputError("pictures: expected a directory for them, --out")
    if config.out is not None and config.out.exists():
        raise InputError(f"{config.out}: exists already")
    methods = dict(METHODS)
    if config.run_dir is not None:
        trained = load_config(TrainConfig, config.run_dir)
        network = load_model(config.run_dir, trained.network.build(trained.run.seed))
        methods[trained.network.model] = as_method(network)
    source = config.data.open("test")
    rows = []
    for index in range(len(source)):
        sample = source[index]
        for scale in config.data.scales:
            comparison = compare(sample, scale, config.data.protocol, methods, source.unit)
            rows.append((sample.name, f"{scale}x", comparison))
            if config.pictures and config.out is not None:
                comparison_figure(config.out / f"{sample.name}_{scale}x.png", [comparison])
    table = mean_table([(scale, comparison) for _, scale, comparison in rows])
    text = (
        f"RMSE in {source.unit}, mean of {len(source)} pairs, protocol {config.data.protocol}\n\n{format_table(table)}"
    )
    print(text)
    if config.out is not None:
        images = [{"image": name, "scale": scale, **errors(c)} for name, scale, c in rows]
        save_results(config.out, {"unit": source.unit, "mean": table, "images": images}, text)


def as_method(network: nnx.Module) -> Method:
    """A trained network as a compiled function of normalised depth and guide."""
    graph, state = nnx.split(network)
    run = jax.jit(lambda state, target, guide: nnx.merge(graph, state)(target, guide))
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


def save_results(directory: Path, results: Any, text: str) -> None:
    """Write results.json and table.md."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (directory / "table.md").write_text(text + "\n")


@dataclass(frozen=True)
class DemoConfig:
    """The demo."""

    out: Path = Path("runs/joint-upsampling-demo")
    """Directory of the two training runs, the tables and the figure. A demo that was interrupted goes on."""
    scales: tuple[int, ...] = (4, 8, 16)
    """Factors to compare at. The networks are trained for 8x if it is among them, else for the first: their weights
    do not depend on the factor."""
    seed: int = 0
    """Of weights and order of the data."""
    smoke: bool = False
    """A minute's run that shows that everything works, not how well."""


def demo(config: DemoConfig) -> None:
    """Train small networks on generated scenes, compare on held-out scenes and a real pair, and draw the figure."""
    methods = dict(METHODS)
    for name, run in demo_runs(config).items():
        print(f"training {name} on generated scenes: {run.run.steps} steps", flush=True)
        methods[name] = as_method(train(run))
    held_out = DataConfig(scenes=2 if config.smoke else 16)
    titles = {"held-out generated scenes": held_out, "real pair (Motorcycle)": replace(held_out, source="motorcycle")}
    tables, texts, figures = {}, [], []
    for title, data in titles.items():
        source = data.open("test")
        compared = [
            (f"{scale}x", compare(source[index], scale, data.protocol, methods, source.unit))
            for scale in config.scales
            for index in range(len(source))
        ]
        tables[title] = mean_table(compared)
        texts.append(f"{title}: RMSE in {source.unit}, mean of {len(source)}\n\n{format_table(tables[title])}")
        print(f"\n{texts[-1]}", flush=True)
        figures.append(next(c for scale, c in compared if scale == f"{shown_scale(config)}x"))
    save_results(config.out, tables, "\n\n".join(texts))
    comparison_figure(config.out / "comparison.png", figures)
    print(f"\nfigure: {config.out / 'comparison.png'}")


def shown_scale(config: DemoConfig) -> int:
    """The factor to train for and to draw."""
    return 8 if 8 in config.scales else config.scales[0]


def demo_runs(config: DemoConfig) -> dict[str, TrainConfig]:
    """The two trainings of the demo: narrow streams and residuals, so that minutes are enough."""
    steps = {"DJF-small": 1000, "attention": 3000}
    presets = {"DJF-small": "DJF", "attention": "SA_M1_F8"}
    data = DataConfig(scales=(shown_scale(config),), scenes=16 if config.smoke else 512)
    runs = {}
    for name, preset in presets.items():
        count = 3 if config.smoke else steps[name]
        runs[name] = TrainConfig(
            run=RunConfig(config.out / name, config.seed, count, log_every=100, save_every=500),
            network=NetworkConfig(preset, widths=(16, 8), residual=True),
            data=data,
            crop=64,
            batch_size=math.lcm(4, jax.device_count()),
            learning_rate=4e-3,
            drops=(count * 7 // 10, count * 9 // 10),
        )
    return runs


def short() -> TrainConfig:
    """SA_M1_F16 on generated scenes, an hour on two CPU cores.

    python -m experiments joint-upsampling train --preset short --run-dir runs/short
    """
    run = RunConfig(Path("runs/joint-upsampling-short"), steps=10_000)
    network = NetworkConfig("SA_M1_F16", widths=(32, 16), residual=True)
    return TrainConfig(run, network, DataConfig(scales=(4, 8, 16)), crop=128, batch_size=4, drops=(6000, 8000))


def nyu() -> TrainConfig:
    """SA_M2_F32 on NYU Depth v2 with the paper's schedule: 2000 epochs of 100 batches of ten 256 x 256 crops.

    python -m experiments joint-upsampling train --preset nyu --data-dir FOLDER --scales 8

    Paper, Table II, RMSE in cm on the 449 test pairs: 4x 2.64, 8x 5.01, 16x 8.63. Ours: not measured yet.
    """
    run = RunConfig(Path("runs/joint-upsampling-nyu"), steps=200_000, log_every=500, save_every=2000)
    return TrainConfig(run, NetworkConfig("SA_M2_F32"), DataConfig("nyu"), drops=(120_000, 160_000))


COMMANDS: dict[str, Callable[..., Any]] = {"train": train, "evaluate": evaluate, "demo": demo}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {"train": {"short": short, "nyu": nyu}}
