"""Runs: networks trained one after the other or read from their directories, and as compiled functions.

The configuration of a task's training has the fields and methods of `Training`.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.engine.checkpoint import load_model
from experiments.engine.config import RunConfig, load_config
from experiments.engine.processes import is_first
from experiments.engine.progress import read_metrics
from jaxup.interop.keys import unfilled


class Training(Protocol):
    """A configuration of a training run."""

    @property
    def run(self) -> RunConfig:
        """Its directory and length."""

    @property
    def label(self) -> str:
        """What tables call its network."""

    def build(self) -> nnx.Module:
        """Its network with the initial weights."""


AnyTraining = TypeVar("AnyTraining", bound=Training)


class Run(NamedTuple):
    """A trained network, with its name in tables."""

    label: str
    config: Any
    network: Any

    @property
    def run_dir(self) -> Path:
        """Where it was trained."""
        return self.config.run.run_dir


def load_runs(
    cls: type, run_dirs: Sequence[Path], *, best: bool = False, key: Callable[[Any], Hashable] | None = None
) -> list[Run]:
    """Reads the newest or the best weights of training runs.

    Args:
        cls: the task's `Training`.
        run_dirs: their directories, which may have been moved.
        best: the weights that were best in a validation.
        key: what of a configuration must not be the same, where that is more than the label.

    Returns:
        One for each, in evaluation mode, under labels that differ: see `unique`.

    Raises:
        InputError: no such run, or one of another task.
    """
    configs = [load_config(cls, run_dir) for run_dir in run_dirs]
    configs = [moved(config, run_dir) for config, run_dir in zip(configs, run_dirs, strict=True)]
    labels = unique([config.label for config in configs], run_dirs, None if key is None else list(map(key, configs)))
    networks = (load_model(config.run.run_dir, unfilled(config.build), best=best) for config in configs)
    return [Run(*fields) for fields in zip(labels, configs, networks, strict=True)]


def unique(labels: Sequence[str], run_dirs: Sequence[Path], among: Sequence[Hashable] | None = None) -> list[str]:
    """Labels, where several are the same with the name of the directory behind them, or if need be its path.

    Args:
        labels: of runs.
        run_dirs: their directories.
        among: what must not be the same, where that is more than the label.
    """
    counts, places = Counter(labels if among is None else among), Counter(run_dir.name for run_dir in run_dirs)
    return [
        label if counts[key] == 1 else f"{label} ({place.name if places[place.name] == 1 else place})"
        for label, key, place in zip(labels, labels if among is None else among, run_dirs, strict=True)
    ]


def moved(config: AnyTraining, run_dir: Path, **changes: Any) -> AnyTraining:
    """The same training in another directory, and with these changes."""
    return replace(config, run=replace(config.run, run_dir=run_dir), **changes)  # type: ignore[type-var]


def train_rows(train: Callable[[Any], Any], rows: Mapping[str, Training]) -> list[Run]:
    """Trains one network after the other, by label; those that were trained before are only read."""
    runs = []
    for label, config in rows.items():
        if is_first():
            print(f"training {label}: {config.run.steps} steps", flush=True)
        runs.append(Run(label, config, train(config)))
    return runs


def jitted(network: nnx.Module, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A network as a compiled function of arrays; networks of one structure share it.

    Args:
        network: in evaluation mode, or in training mode, whose changes to the network are lost.
        function: what to do with it, (network, *arrays); always the same one, not made anew. None: call it.
    """
    graph, state = nnx.split(network)
    return partial(_apply, function, graph, state)


@partial(jax.jit, static_argnums=(0, 1))
def _apply(function: Callable[..., Any] | None, graph: nnx.GraphDef, state: nnx.State, *inputs: jax.Array) -> Any:
    network: Any = nnx.merge(graph, state, copy=True)
    return network(*inputs) if function is None else function(network, *inputs)


def parameters(network: nnx.Module) -> int:
    """The number of weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def costs(build: Callable[[], nnx.Module], *shapes: Sequence[int]) -> tuple[int, float]:
    """The number of weights of a network, and its multiply-adds for inputs of these shapes, by XLA's analysis of it.

    XLA counts no products with zeros around an image, and counts sums, norms and activations as well. Nothing is
    computed.
    """
    network = nnx.eval_shape(build)
    network.eval()
    graph, state = nnx.split(network)
    inputs = [jax.ShapeDtypeStruct(tuple(shape), jnp.float32) for shape in shapes]
    with jax.default_matmul_precision("highest"):  # else convolutions with less products than papers count
        analysis: Any = jax.jit(lambda state, *xs: nnx.merge(graph, state)(*xs)).lower(state, *inputs).cost_analysis()
    return parameters(network), float(analysis["flops"]) / 2


def step_costs(run: Run) -> dict[str, float]:
    """Seconds per step, the median of the lines after the first, which compiles; and its memory on a device."""
    lines = read_metrics(run.run_dir)
    if not lines:
        return {"s/step": math.nan}
    steps = np.diff([0, *(line["step"] for line in lines)])
    seconds = [line["seconds"] / n for line, n in zip(lines, steps, strict=True)]
    memory = {"GiB": lines[-1]["memory"] / 2**30} if "memory" in lines[-1] else {}
    return {"s/step": float(np.median(seconds[min(1, len(lines) - 1) :])), **memory}
