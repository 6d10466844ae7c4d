"""Training of one network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data import data_dir
from experiments.data.matting import Generated, LayerSource
from experiments.data.matting_batches import Augmentation, training_batches
from experiments.data.matting_sets import TRAINING
from experiments.data.sources import Cached
from experiments.engine.checkpoint import has_checkpoint
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.optim import Decayed
from experiments.engine.train import Loss, fit
from experiments.engine.trained import Trained
from experiments.engine.weights import WeightsConfig
from experiments.matting import weights
from experiments.matting.networks import NetworkConfig, encoder_parts, loss_margin, network_input
from jaxup.files import InputError
from jaxup.losses import alpha_loss, composition_loss


@dataclass(frozen=True)
class DataConfig:
    """Which foregrounds to train on, over which backgrounds."""

    source: Literal["generated", "adobe", "folder"] = "generated"
    """Generated hair, smoke and lace over photographs in scikit-image's wheel; Adobe Image Matting by its lists; or
    any foregrounds over any backgrounds, in the folders fg, alpha and bg of `data_dir` or of its folder train."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the data. None: the environment variable JAXUP_DATA."""
    images: int = 300
    """How many are generated; of other sources all are taken."""
    size: int = 256
    """Height and width of generated ones."""

    def open(self) -> LayerSource:
        """The layers."""
        if self.source == "generated":
            if self.data_dir is not None:
                raise InputError("data_dir: has no effect with the source generated")
            return Cached(Generated(self.images, self.size))
        return TRAINING[self.source](data_dir(self.data_dir))


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    augmentation: Augmentation = field(default=Augmentation())
    batch_size: int = 16
    """Images in a batch."""
    optimizer: Decayed = field(default=Decayed(learning_rate=1e-2, warmup=0, weight_decay=0.0))
    weights: WeightsConfig = field(default=WeightsConfig())
    fixed_norms: bool = False
    """The encoder's norms keep the statistics that came with its weights, as both papers have it; the codes of both
    mean to fix them, and train them."""

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Trained:
        """Its network with the initial weights."""
        network = self.network.build(self.run.seed)
        return Trained(network, self.run.seed + 1, encoder_parts(network) if self.fixed_norms else ())

    def check(self) -> None:
        """Refuses what cannot be trained."""
        self.network.check()
        weights.check(self.weights, self.network)
        if self.fixed_norms and self.weights.backbone_weights is None:
            raise InputError("fixed_norms: expected backbone_weights, whose statistics they keep, or --no-fixed-norms")


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    config.check()
    source, network = config.data.open(), config.build()
    if not has_checkpoint(config.run.run_dir):
        weights.load(config.weights, network.network, config.network)
    batches = training_batches(source, config.augmentation, batch_size=config.batch_size, seed=config.run.seed)
    open_run(config.run.run_dir, config)
    optimizer = config.optimizer.build(config.run.steps)
    return fit(network, optimizer, loss_of(loss_margin(config.network)), batches, config.run)


def loss_of(margin: float) -> Loss:
    """Half of the alpha loss and half of the composition loss in the unknown region, means over the images of a batch
    that have one."""

    def loss(model: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        unknown = batch["unknown"]
        alpha = model.dropped(network_input(batch["image"], batch["trimap"]))
        colours = (batch[name] for name in ("image", "foreground", "background"))
        parts = {
            "alpha_loss": alpha_loss(alpha, batch["alpha"], unknown=unknown, margin=margin),
            "composition_loss": composition_loss(alpha, *colours, unknown=unknown, margin=margin),
        }
        known = jnp.any(unknown, axis=(1, 2, 3))
        count = jnp.maximum(jnp.sum(known), 1).astype(jnp.float32)
        means = {name: jnp.sum(jnp.where(known, part, 0)) / count for name, part in parts.items()}
        return (means["alpha_loss"] + means["composition_loss"]) / 2, means

    return loss
