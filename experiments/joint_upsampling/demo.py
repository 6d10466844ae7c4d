"""The demo: small networks on generated scenes, beside the filters, in minutes."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.engine.figures import Comparison, comparison_figure
from experiments.engine.optim import Adam
from experiments.engine.processes import is_first
from experiments.engine.report import save_results
from experiments.engine.runs import train_rows
from experiments.joint_upsampling.classical import FILTERS
from experiments.joint_upsampling.evaluation import as_methods, compare_pairs, mean_table, table_text
from experiments.joint_upsampling.networks import NetworkConfig
from experiments.joint_upsampling.training import DataConfig, TrainConfig, train

_MODELS = {"DJF-small": "DJF", "attention": "SA_M1_F8"}
_PAPER = {"DJF-small": "DJF", "attention": "SA_M2_F32"}  # whose whole networks they stand for


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
    steps: int = 3000
    """Of the attention network; DJF has a third."""
    scenes: int = 512
    """Generated scenes to train on."""
    test_scenes: int = 16
    """Generated scenes to compare on."""


def demo(config: DemoConfig) -> None:
    """Train small networks on generated scenes, compare on held-out scenes and a real pair, and draw the figure."""
    rows = demo_runs(config)
    held_out = DataConfig(scenes=config.test_scenes, scales=config.scales)
    for run in rows.values():
        held_out.check("test")
        run.network.check(config.scales)
    methods = FILTERS | as_methods(train_rows(train, rows))
    titles = {"held-out generated scenes": held_out, "real pair (Motorcycle)": replace(held_out, source="motorcycle")}
    tables, texts, figures = {}, [], list[Comparison]()
    for title, data in titles.items():
        source = data.open("test")
        kept: list[Comparison] = []

        def keep(scale: str, comparison: Comparison, kept: list[Comparison] = kept) -> None:
            if scale == f"{shown_scale(config)}x" and not kept:
                kept.append(comparison)

        compared = compare_pairs(source, data, methods, keep=keep)
        tables[title] = mean_table([(scale, score) for _, scale, score in compared])
        heading = f"{title}: RMSE in {source.unit}, mean of {len(source)}"
        texts.append(table_text(heading, tables[title], data, _PAPER))
        figures += kept
        if is_first():
            print(f"\n{texts[-1]}", flush=True)
    save_results(config.out, tables, "\n\n".join(texts))
    if is_first():
        comparison_figure(config.out / "comparison.png", figures)
        print(f"\nfigure: {config.out / 'comparison.png'}")


def shown_scale(config: DemoConfig) -> int:
    """The factor to train for and to draw."""
    return 8 if 8 in config.scales else config.scales[0]


def demo_runs(config: DemoConfig) -> dict[str, TrainConfig]:
    """The two trainings of the demo: narrow streams and residuals, so that minutes are enough."""
    data = DataConfig(scales=(shown_scale(config),), scenes=config.scenes)
    runs = {}
    for name, model in _MODELS.items():
        steps = config.steps if name == "attention" else max(1, config.steps // 3)
        drops = sorted({step for step in (steps * 7 // 10, steps * 9 // 10) if step})
        runs[name] = TrainConfig(
            run=RunConfig(config.out / name, config.seed, steps, log_every=100, save_every=500),
            network=NetworkConfig(model, widths=(16, 8), residual=True),
            data=data,
            crop=64,
            batch_size=math.lcm(4, jax.device_count()),
            optimizer=Adam(4e-3, tuple(drops)),
        )
    return runs
