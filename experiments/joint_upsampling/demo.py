"""The demo: small networks on generated scenes, beside the filters, in minutes."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.engine.report import comparison_figure, save_results
from experiments.joint_upsampling.classical import FILTERS
from experiments.joint_upsampling.evaluation import as_method, compare, format_table, mean_table
from experiments.joint_upsampling.networks import NetworkConfig
from experiments.joint_upsampling.training import DataConfig, TrainConfig, train


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
    methods = dict(FILTERS)
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
