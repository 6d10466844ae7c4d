"""Training of one network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.monocular_batches import Protocol, training_batches
from experiments.data.sources import Cached
from experiments.engine.checkpoint import has_checkpoint
from experiments.engine.config import RunConfig, open_run
from experiments.engine.optim import Decayed
from experiments.engine.train import Loss, fit
from experiments.engine.weights import WeightsConfig
from experiments.monocular_depth.data import DataConfig
from experiments.monocular_depth.networks import NetworkConfig, depth_of
from jaxup.losses import hu_depth_loss


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    protocol: Protocol = field(default=Protocol())
    loss: Literal["l1", "hu"] = "l1"
    """The mean absolute error, or Hu's, with the errors of gradients and normals."""
    optimizer: Decayed = field(default=Decayed())
    weights: WeightsConfig = field(default=WeightsConfig())
    batch_size: int = 16
    """Images in a batch."""

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Any:
        """Its network with the initial weights."""
        return self.network.build(self.run.seed)


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    source, network = config.data.open("train"), config.build()
    kept = Cached(source) if config.data.source == "scenes" else source
    batches = training_batches(kept, config.protocol, batch_size=config.batch_size, seed=config.run.seed)
    if not has_checkpoint(config.run.run_dir):
        config.weights.load(network.backbone, config.network.usual_weights)
    open_run(config.run.run_dir, config)
    loss, optimizer = loss_of(config.loss, config.network.prepared), config.optimizer.build(config.run.steps)
    return fit(network, optimizer, loss, batches, config.run)


def loss_of(kind: str, prepared: Callable[[jax.Array], jax.Array]) -> Loss:
    """The loss of a batch of "image", "depth" and "valid"; and its root mean squared error."""

    def loss(model: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        truth, valid = batch["depth"], batch["valid"]
        found = depth_of(model, prepared(batch["image"]), truth)
        error = jnp.where(valid, found - truth, 0)
        count = jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
        value = jnp.sum(jnp.abs(error)) / count
        if kind == "hu":
            value = jnp.mean(hu_depth_loss(found, truth, valid=valid))
        return value, {"rms": jnp.sqrt(jnp.sum(error**2) / count)}

    return loss
