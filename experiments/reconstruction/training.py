"""Training of networks that reconstruct their input, one after the other, and their table."""

from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.data.reconstruction import Split, images
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.train import fit
from experiments.reconstruction.networks import build
from experiments.reconstruction.paper import ROWS
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models import ReconstructionNetwork
from jaxup.models.resampling import RESAMPLINGS

SourceName = Literal["photos", "fashion-mnist", "tfds"]


@dataclass(frozen=True)
class DataConfig:
    """Which images."""

    source: SourceName = "photos"
    """Patches of the photographs that scikit-image carries; Fashion-MNIST from a folder (official idx files, or sheets
    of tiles), or as prepared by TensorFlow Datasets (ArrayRecord)."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the files, else the environment variable JAXUP_DATA; for tfds its directory of data sets, else its
    default one."""
    images: int | None = None
    """Use the first ones of each split only; none: all."""

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise InputError(f"images: expected at least 1, got {self.images}")

    def open(self, split: Split) -> np.ndarray:
        """The images of a split, uint8 [N, 32, 32, 1]."""
        return images(self.source, self.data_dir, split, self.images)


@dataclass(frozen=True)
class TrainConfig:
    """Training runs, each in the directory of its method below `run_dir`."""

    run: RunConfig
    methods: tuple[str, ...] = tuple(ROWS)
    """How to make maps smaller and larger again, see `jaxup.models.resampling`: the rows of the table."""
    data: DataConfig = field(default=DataConfig())
    widths: tuple[int, ...] = (32, 64, 128)
    """Of the network's blocks; one downsampling and one upsampling stage for each."""
    batch_size: int = 100
    """Images in a batch."""
    learning_rate: float = 0.01
    """Of Adam, at the start."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by ten."""
    smoke: bool = field(default=False, metadata=MAY_DIFFER)
    """A run of seconds that shows that everything works, not how well."""

    def build(self) -> ReconstructionNetwork:
        """The network of the first method, with its initial weights."""
        return build(self.methods[0], self.widths, self.run.seed)


def smoked(config: TrainConfig) -> TrainConfig:
    """As few steps, images and features as it takes."""
    if not config.smoke:
        return config
    return replace(
        config,
        run=replace(config.run, steps=2),
        data=replace(config.data, images=16),
        widths=(4,),
        batch_size=lcm(4, jax.device_count()),
        smoke=False,
    )


def runs(config: TrainConfig) -> dict[str, TrainConfig]:
    """The run of each method."""
    for method in config.methods:
        check_choice("methods", method, RESAMPLINGS)
    return {
        method: replace(config, methods=(method,), run=replace(config.run, run_dir=config.run.run_dir / method))
        for method in config.methods
    }


def l1_loss(network: nnx.Module, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean absolute difference of the reconstruction and its input."""
    return jnp.mean(jnp.abs(network(images) - images)), {}


@jax.jit
def look_up(images: jax.Array, index: jax.Array) -> jax.Array:
    """Images as floats from 0 to 1."""
    return images[index].astype(jnp.float32) / 255


def train_one(config: TrainConfig, images: np.ndarray) -> nnx.Module:
    """Train one network; the images stay on the devices, and batches of their numbers come from the host."""
    open_run(config.run.run_dir, config)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    kept = jax.device_put(images, NamedSharding(mesh, PartitionSpec()))
    numbers = grain.MapDataset.range(len(images)).seed(config.run.seed).shuffle().repeat()
    batches = numbers.batch(config.batch_size, drop_remainder=True).to_iter_dataset()
    schedule = optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, 0.1))
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
    return fit(
        build(config.methods[0], config.widths, config.run.seed),
        optimizer,
        l1_loss,
        batches,
        config.run,
        prepare=lambda index: look_up(kept, index),
    )
