"""What the parts of deformable kernel networks contribute (Kim et al., Table 4)."""

from dataclasses import dataclass, replace
from typing import Any

from experiments.engine.report import beside_paper, markdown_table, publish
from experiments.engine.runs import Run, moved, train_rows
from experiments.joint_upsampling.evaluation import as_methods, compare_pairs, mean_table
from experiments.joint_upsampling.networks import DEFORMABLE, NetworkConfig
from experiments.joint_upsampling.paper import ABLATION, STREAMS
from experiments.joint_upsampling.training import DataConfig, TrainConfig, train
from jaxup._checks import check_choice
from jaxup.files import InputError

_PLAIN = {"guided": True, "from_depth": True, "offsets": True, "residual": False}
_FIXED = {"offsets": False, "window_size": NetworkConfig.window_size}  # which has no effect then
ROWS: dict[str, dict[str, Any]] = {
    "weights from RGB": _PLAIN | {"from_depth": False} | _FIXED,
    "weights from depth": _PLAIN | {"guided": False} | _FIXED,
    "weights from both": _PLAIN | _FIXED,
    "weights and offsets from RGB": _PLAIN | {"from_depth": False},
    "weights and offsets from depth": _PLAIN | {"guided": False},
    "weights and offsets from both": _PLAIN,
    "weights and offsets from both, residual": _PLAIN | {"residual": True},
}
"""The rows of Table 4."""
FIELDS: dict[str, dict[str, Any]] = {
    "receptive field of 23 x 23": {"model": "DKN-23"},
    "no DownConv": {"model": "DKN-plain"},
    "dilated convolutions": {"model": "DKN-dilated"},
}
"""Those of section 4.3, which are of DKN alone, for `--rows`."""


@dataclass(frozen=True)
class AblationConfig:
    """How every network is trained; each has a directory below `run_dir`, and goes on where it stopped."""

    training: TrainConfig
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    """k, the columns of the table."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which networks, by name: those of Table 4; of DKN also "receptive field of 23 x 23", "no DownConv" and "dilated
    convolutions" (section 4.3)."""


def ablation(config: AblationConfig) -> None:
    """Train DKN or FDKN without some of their parts and whole, for several k, and print RMSE beside the paper's."""
    _check(config)
    training = config.training
    model, data = training.network.model, training.data
    source, table = data.open("test"), {}
    for row in config.rows:
        runs = train_rows(train, {f"{model}, {row}, k = {k}": _network(training, row, k) for k in config.kernel_sizes})
        table[row] = {f"{k} x {k}": _error(run) for k, run in zip(config.kernel_sizes, runs, strict=True)}
    lines = beside_paper([{"method": row, **cells} for row, cells in table.items()], _paper(config))
    scales = ", ".join(f"{scale}x" for scale in data.scales)
    text = f"{model}, RMSE in {source.unit}, {scales}, protocol {data.protocol} (paper: cm, NYU Depth v2, 8x, bicubic)"
    publish(training.run.run_dir, table, f"{text}\n\n{markdown_table(lines, digits=3)}")


def _check(config: AblationConfig) -> None:
    """Refuses what cannot be done and what has no effect, before anything is trained."""
    network = config.training.network
    if network.model not in DEFORMABLE:
        raise InputError(f"model: expected one of {', '.join(DEFORMABLE)}, got {network.model}")
    for row in config.rows:
        check_choice("rows", row, (*ROWS, *(FIELDS if network.model == "DKN" else ())))
    for name in ("guided", "from_depth", "offsets", "residual", "kernel_size"):
        if getattr(network, name) != getattr(NetworkConfig, name):
            raise InputError(f"{name}: has no effect in ablation, whose rows and kernel_sizes decide it")
    config.training.data.check("train")


def _network(training: TrainConfig, row: str, size: int) -> TrainConfig:
    """The training of one cell of the table."""
    name = f"{row.replace(',', '').replace(' ', '-')}-{size}"
    network = replace(training.network, **({"kernel_size": size} | (ROWS | FIELDS)[row]))
    return moved(training, training.run.run_dir / name, network=network)


def _error(run: Run) -> float:
    """RMSE of one trained network, the mean over test pairs and scales."""
    data: DataConfig = run.config.data
    compared = compare_pairs(data.open("test"), data, as_methods([run]))
    return mean_table([("all", score) for _, _, score in compared])[run.label]["all"]


def _paper(config: AblationConfig) -> dict[str, dict[str, str]]:
    """The chosen cells of the paper's table."""
    model = config.training.network.model
    columns = ABLATION[model]
    if model == "DKN":
        columns = columns | {"3 x 3": columns["3 x 3"] | STREAMS}
    chosen = {f"{k} x {k}": columns.get(f"{k} x {k}", {}) for k in config.kernel_sizes}
    return {k: {row: value for row, value in column.items() if row in config.rows} for k, column in chosen.items()}
