"""Training of one network."""

from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

from experiments.data.instances import Cached
from experiments.data.instances_batches import Augmentation, training_batches
from experiments.engine.checkpoint import has_checkpoint
from experiments.engine.config import RunConfig, open_run
from experiments.engine.optim import Decayed
from experiments.engine.train import Loss, fit
from experiments.engine.trained import Trained
from experiments.engine.weights import Published, WeightsConfig
from experiments.instances.data import DataConfig
from experiments.instances.networks import NetworkConfig, seen
from jaxup.files import InputError


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    weights: WeightsConfig = field(default=WeightsConfig())
    fixed_norms: bool = False
    """The norms of the backbone keep the statistics that came with its weights, as batches are small."""
    batch_size: int = 16
    """Images in a batch."""
    augmentation: Augmentation = field(default=Augmentation())
    anchors_drawn: int = 256
    """Anchors of an image that the loss of the first stage is of."""
    boxes_drawn: int = 512
    """Proposals of an image that the losses of the second stage are of."""
    optimizer: Decayed = field(default=Decayed())

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Trained:
        """Its network with the initial weights, and the source of the draws of its losses."""
        fixed = ("backbone",) if self.fixed_norms else ()
        return Trained(self.network.build(self.data.open("train"), self.run.seed), self.run.seed + 1, fixed)

    def check(self) -> None:
        """Refuses what cannot be trained."""
        self.network.check()
        if min(self.anchors_drawn, self.boxes_drawn) < 1:
            raise InputError(f"anchors_drawn, boxes_drawn: expected 1, got {(self.anchors_drawn, self.boxes_drawn)}")
        if self.fixed_norms and self.weights.backbone_weights is None:
            raise InputError("fixed_norms: expected backbone_weights, whose statistics they keep, or --no-fixed-norms")


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    config.check()
    model, scenes = config.build(), config.data.open("train")
    if not has_checkpoint(config.run.run_dir):
        config.weights.load(model.network.backbone, Published(config.network.backbone, {}))
    open_run(config.run.run_dir, config)
    kept = Cached(scenes) if config.data.source == "shapes" else scenes
    options = dict(batch_size=config.batch_size, seed=config.run.seed)
    batches = training_batches(kept, config.augmentation, **options)
    loss = loss_of(config.anchors_drawn, config.boxes_drawn)
    return fit(model, config.optimizer.build(config.run.steps), loss, batches, config.run)


def loss_of(anchors_drawn: int, boxes_drawn: int) -> Loss:
    """The published losses of a batch, added up.

    What is drawn of anchors and proposals follows from the random state of the model, which is part of checkpoints, so
    that a run that goes on draws the same.
    """

    def loss(model: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        drawn: dict[str, Any] = dict(anchors_drawn=anchors_drawn, boxes_drawn=boxes_drawn)
        image, key = seen(batch["image"], batch["limits"]), model.random()
        parts = model.network.losses(image, batch, key, limits=batch["limits"], **drawn)
        total, *others = parts.values()
        return sum(others, start=total), parts

    return loss
