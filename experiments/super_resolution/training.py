"""Training of one super-resolution network."""

from dataclasses import dataclass, field
from pathlib import Path

import optax
from flax import nnx

from experiments.data.super_resolution import Patches, training_batches, training_photos, validation_batches
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.train import Validation, fit, mean_scores, squared_error
from experiments.super_resolution.networks import NetworkConfig
from jaxup.models import SuperResolutionNetwork


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    train_dirs: tuple[Path, ...] = field(default=(), metadata=MAY_DIFFER)
    """Folders of photographs, such as those of T91 and General100; none: photographs that scikit-image carries."""
    validation_dirs: tuple[Path, ...] = field(default=(), metadata=MAY_DIFFER)
    """Folders of photographs to validate on; none: every tenth of the others is kept back for it."""
    patch: int = 64
    """Side of the patches in high resolution, s*m for the paper's m x m; a multiple of the scale."""
    stride: int = 32
    """From one patch to the next, in high resolution; a multiple of the scale."""
    validation_patches: int = 200
    """How many patches to validate on, at most."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    batch_size: int = 20
    """Patches in a batch."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    validate_every: int = 1000
    """Steps from one validation to the next."""
    patience: int = 5
    """Validations without a lower loss after which the learning rate is multiplied by `decay`."""
    decay: float = 0.8
    """See `patience`."""

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> SuperResolutionNetwork:
        """Its network with the initial weights."""
        return self.network.build(self.run.seed)


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    data, scale = config.data, config.network.scale
    network = config.build()
    learned, held_out = training_photos(data.train_dirs, data.validation_dirs)
    patches = Patches(learned, scale=scale, size=data.patch, stride=data.stride)
    unchanged = Patches(held_out, scale=scale, size=data.patch, stride=data.patch, factors=(1,), turns=1)
    open_run(config.run.run_dir, config)
    scored = validation_batches(unchanged, config.batch_size, data.validation_patches)
    loss = squared_error("low", "high")
    return fit(
        network,
        optax.inject_hyperparams(optax.adam)(learning_rate=config.learning_rate),
        loss,
        training_batches(patches, config.batch_size, config.run.seed),
        config.run,
        validation=Validation(
            config.validate_every,
            mean_scores(loss, scored),
            optax.contrib.reduce_on_plateau(factor=config.decay, patience=config.patience),
        ),
    )
