"""Training of one network, and of a table of them."""

from dataclasses import dataclass, field

import optax
from flax import nnx

from experiments.config import RunConfig, open_run
from experiments.denoise.configs import DataConfig, NetworkConfig
from experiments.denoise.data import batches, noisy_patches
from experiments.errors import InputError
from experiments.train import fit, squared_error


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    sigma: float = 25.0
    """Standard deviation of the noise, on a scale of 0 to 255."""
    batch_size: int = 128
    """Patches in a batch."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by ten."""


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    if not 0 < config.sigma <= 255:
        raise InputError(f"sigma: expected a number above 0 and up to 255, got {config.sigma}")
    if config.network.model != "dncnn" and config.data.patch % 8:
        raise InputError(f"patch: expected a multiple of 8 for {config.network.model}, got {config.data.patch}")
    network = config.network.build(config.run.seed)
    patches = config.data.patches()
    open_run(config.run.run_dir, config)
    schedule = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, 0.1))
    return fit(
        network,
        optax.inject_hyperparams(optax.adam)(learning_rate=schedule),
        squared_error("noisy", "clean"),  # the paper has half the sum over a patch; Adam does not see the factor
        batches(len(patches.starts), config.batch_size, config.run.seed),
        config.run,
        prepare=noisy_patches(patches, config.data.patch, config.sigma, config.run.seed),
    )
