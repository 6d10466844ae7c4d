"""Training of networks that reconstruct their input, one after the other, and their table."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data.batching import batched
from experiments.data.reconstruction import Split, images, origins
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.optim import Adam
from experiments.engine.processes import shardings
from experiments.engine.runs import moved
from experiments.engine.stored import WAS_FLAT
from experiments.engine.train import fit
from experiments.reconstruction.networks import build, has_indices
from experiments.reconstruction.paper import ROWS
from jaxup.files import InputError
from jaxup.models import ReconstructionNetwork

SourceName = Literal["photos", "fashion-mnist", "tfds"]
Normalization = Literal["sigmoid", "softmax", "softmax+sigmoid", "sigmoid+softmax"]

_INDICES = ("nonlinear", "context", "encoder_normalization", "decoder_normalization")


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
        if self.source == "photos" and self.data_dir is not None:
            raise InputError("data_dir: has no effect with the source photos")
        return images(self.source, self.data_dir, split, self.images)


@dataclass(frozen=True)
class TrainConfig:
    """Training runs, each in the directory of its method below `run_dir`."""

    run: RunConfig
    methods: tuple[str, ...] = tuple(ROWS)
    """How to make maps smaller and larger again, see `jaxup.models.resampling`: by default the rows of the table;
    others are avg-carafe, max-carafe, holistic-max-unpool, unshared_o2o, shared_o2o, a family of index networks with
    -bilinear, a2u-softmax and max-a2u."""
    data: DataConfig = field(default=DataConfig())
    widths: tuple[int, ...] = (32, 64, 128)
    """Of the network's blocks; one downsampling and one upsampling stage for each."""
    nonlinear: bool = True
    """Of index networks: two layers, and not one that is linear."""
    context: bool = True
    """Of index networks: windows of 4 x 4, and not of 2 x 2."""
    encoder_normalization: Normalization = "sigmoid+softmax"
    """Of index maps that make maps smaller (Table 6)."""
    decoder_normalization: Normalization = "sigmoid"
    """Of index maps that make maps larger."""
    batch_size: int = 100
    """Images in a batch."""
    optimizer: Adam = field(default=Adam(0.01), metadata=WAS_FLAT)

    def build(self) -> ReconstructionNetwork:
        """The network of the first method, with its initial weights."""
        return build(self.methods[0], self.widths, self.run.seed, **{name: getattr(self, name) for name in _INDICES})

    @property
    def variant(self) -> str:
        """In what it differs from the paper's table; empty for its networks."""
        if not has_indices(self.methods[0]):
            return ""
        names = [name for name in ("nonlinear", "context") if not getattr(self, name)]
        normalizations = self.encoder_normalization, self.decoder_normalization
        changed = normalizations != (TrainConfig.encoder_normalization, TrainConfig.decoder_normalization)
        return ", ".join([f"not {name}" for name in names] + (["/".join(normalizations)] if changed else []))

    @property
    def label(self) -> str:
        """What tables call the network of the first method."""
        method = self.methods[0]
        return ", ".join(filter(None, [ROWS[method].name if method in ROWS else method, self.variant]))


def runs(config: TrainConfig) -> dict[str, TrainConfig]:
    """The run of each method, by its label."""
    found = [moved(config, config.run.run_dir / method, methods=(method,)) for method in config.methods]
    if not any(has_indices(method) for method in config.methods):
        for name in _INDICES:
            if getattr(config, name) != getattr(TrainConfig, name):
                raise InputError(f"{name}: has no effect on {', '.join(config.methods)}, only on index networks")
    return {run.label: run for run in found}


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
    kept = jax.device_put(images, shardings()[0])
    numbers = grain.MapDataset.range(len(images)).seed(config.run.seed).shuffle().repeat()
    batches = batched(numbers, config.batch_size, threads=0, name=_name(config.data))
    optimizer = config.optimizer.build()
    return fit(config.build(), optimizer, l1_loss, batches, config.run, prepare=lambda index: look_up(kept, index))


def _name(data: DataConfig) -> Callable[[np.integer[Any]], str]:
    """What the number of an image stands for; the files are read again when the first one is asked for."""
    known = functools.cache(lambda: origins(data.source, data.data_dir, "train"))
    return lambda number: known()(int(number))
