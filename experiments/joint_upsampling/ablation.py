"""What the parts of deformable kernel networks contribute (Kim et al., Table 4)."""

from dataclasses import dataclass, replace
from typing import Any

from experiments.engine.report import markdown_table, save_results
from experiments.joint_upsampling.evaluation import Table, as_method, compare, mean_table
from experiments.joint_upsampling.networks import DEFORMABLE
from experiments.joint_upsampling.training import TrainConfig, train
from jaxup._checks import check_choice
from jaxup.files import InputError

_PLAIN = {"guided": True, "from_depth": True, "offsets": True, "residual": False}
ROWS: dict[str, dict[str, Any]] = {
    "weights from RGB": _PLAIN | {"from_depth": False, "offsets": False},
    "weights from depth": _PLAIN | {"guided": False, "offsets": False},
    "weights from both": _PLAIN | {"offsets": False},
    "weights and offsets from RGB": _PLAIN | {"from_depth": False},
    "weights and offsets from depth": _PLAIN | {"guided": False},
    "weights and offsets from both": _PLAIN,
    "weights and offsets from both, residual": _PLAIN | {"residual": True},
}
"""The rows of Table 4."""


@dataclass(frozen=True)
class AblationConfig:
    """How every network is trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    """k, the columns of the table."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which networks: some of `ROWS`, by name."""


def ablation(config: AblationConfig) -> None:
    """Train DKN or FDKN without some of their parts and whole, for several k, and print the table of RMSE."""
    model = config.training.network.model
    if model not in DEFORMABLE:
        raise InputError(f"model: expected one of {', '.join(DEFORMABLE)}, got {model}")
    for row in config.rows:
        check_choice("rows", row, tuple(ROWS))
    table: Table = {}
    for row in config.rows:
        for size in config.kernel_sizes:
            name = f"{row.replace(',', '').replace(' ', '-')}-{size}"
            print(f"training {model}, {row}, k = {size}: {config.training.run.steps} steps", flush=True)
            table.setdefault(row, {})[f"{size} x {size}"] = _error(
                replace(
                    config.training,
                    run=replace(config.training.run, run_dir=config.training.run.run_dir / name),
                    network=replace(config.training.network, kernel_size=size, **ROWS[row]),
                )
            )
    data, unit = config.training.data, config.training.data.open("test").unit
    rows = [{"learned": row, **cells} for row, cells in table.items()]
    scales = ", ".join(f"{scale}x" for scale in data.scales)
    text = f"{model}, RMSE in {unit}, {scales}, protocol {data.protocol}\n\n"
    text += markdown_table(rows, list(rows[0]), digits=3)
    print(f"\n{text}")
    save_results(config.training.run.run_dir, table, text)


def _error(config: TrainConfig) -> float:
    """RMSE of one trained network, the mean over test pairs and scales."""
    method, source = {"it": as_method(train(config))}, config.data.open("test")
    compared = [
        ("all", compare(source[index], scale, config.data.protocol, method, source.unit))
        for index in range(len(source))
        for scale in config.data.scales
    ]
    return mean_table(compared)["it"]["all"]
