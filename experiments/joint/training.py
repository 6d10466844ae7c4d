"""Training of one network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.checkpoint import load_model
from experiments.config import RunConfig, open_run
from experiments.data import Cached, training_batches
from experiments.joint.configs import DataConfig, NetworkConfig, upsample
from experiments.train import fit

LossName = Literal["l1", "l2"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    start: Path | None = None
    """A run of the same network whose newest weights to begin with; none: random weights."""
    crop: int | None = 256
    """Side of the training windows in pixels; none: whole images, not mirrored."""
    batch_size: int = 10
    """Windows in a batch."""
    loss: LossName = "l2"
    """Mean absolute or mean squared error."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by `drop_factor`."""
    drop_factor: float = 10.0
    """See `drops`."""


def masked_loss(
    kind: LossName, network: nnx.Module, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean absolute ("l1") or squared ("l2") error over the valid pixels, on normalised depth."""
    error = (upsample(network, batch["target"], batch["guide"]) - batch["depth"]) * batch["valid"]
    count = jnp.maximum(batch["valid"].sum(), 1)
    square = (error**2).sum() / count
    mean = jnp.abs(error).sum() / count if kind == "l1" else square
    return mean, {"rmse": jnp.sqrt(square)}


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
    if config.start is not None:
        _load(network, config.start)
    open_run(config.run.run_dir, config)
    schedule = optax.piecewise_constant_schedule(
        config.learning_rate, dict.fromkeys(config.drops, 1 / config.drop_factor)
    )
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
    return fit(network, optimizer, partial(masked_loss, config.loss), batches, config.run)


def _load(network: nnx.Module, run_dir: Path) -> None:
    """Take over the weights of a run, free of the device that they were restored to: training spreads them over all."""
    state = nnx.state(load_model(run_dir, network))
    nnx.update(network, jax.tree.map(lambda array: jnp.asarray(np.asarray(array)), state))
