"""Training of one network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import (
    HELD_OUT_SEED,
    Cached,
    First,
    Motorcycle,
    NYUDepthV2,
    PairFolder,
    Pairs,
    Scenes,
    Source,
    by_family,
    data_dir,
    lu,
    middlebury,
    sintel,
    training_batches,
)
from experiments.data.degrade import check_protocol
from experiments.engine.checkpoint import load_model
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.optim import Adam
from experiments.engine.stored import WAS_FLAT
from experiments.engine.train import fit
from experiments.joint_upsampling.networks import Network, NetworkConfig, upsample
from jaxup._checks import check_int
from jaxup.files import InputError

SourceName = Literal["scenes", "nyu", "middlebury", "lu", "sintel", "pairs", "motorcycle"]
Protocol = Literal["grid", "bicubic", "djf", "noise"]
LossName = Literal["l1", "l2"]
Split = Literal["train", "test"]

PAIRS: Mapping[str, Callable[[Path], Pairs | PairFolder]] = {"pairs": PairFolder, "middlebury": middlebury, "lu": lu}


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and how their low-resolution depth is made."""

    source: SourceName = "scenes"
    """Generated scenes, NYU Depth v2 (1000 pairs to train, 449 to test), Middlebury 2001 to 2006, Lu et al., MPI Sintel
    (864 frames to test), a folder of pairs, or the one real pair of scikit-image."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the pairs, of nyu_depth_v2_labeled.mat, or of the unpacked set. None: the environment variable
    JAXUP_DATA."""
    held_out: int = 0
    """Of the sources pairs, middlebury and lu, test on one scene in this many and train on the others; 0: on all."""
    scales: tuple[int, ...] = (8,)
    """Factors; where there are several, batches alternate between them. Powers of two."""
    protocol: Protocol = "grid"
    """Low-resolution depth: every s-th pixel (the attention paper), bicubic downsampling (DKN), or the last pixel of
    each block, with 6 pixels at the borders that do not count (DJF, and the published numbers of classical methods);
    or, with the factor 1, depth in full resolution with noise of variance 0.005 on a scale of 0 to 1."""
    pairs: int | None = None
    """Train on this many pairs, the first ones; none: on all."""
    scenes: int = 512
    """Number of generated scenes."""
    scene_size: int = 128
    """Their height and width in pixels."""

    def check(self, split: Split, usual: "DataConfig | None" = None) -> None:
        """Refuses scales that are none, and options that have no effect; `usual` has the values of a preset."""
        check_protocol(self.protocol, self.scales)
        for scale in self.scales:
            check_int("scales", scale)
        if not self.scales:
            raise InputError("scales: expected at least one")
        if self.held_out < 0 or self.held_out == 1:
            raise InputError(f"held_out: expected 0 or at least 2, got {self.held_out}")
        unused = [*(() if self.source in PAIRS else ("held_out",)), *(("pairs",) if split == "test" else ())]
        unused += ["data_dir"] if self.source in ("scenes", "motorcycle") else ["scenes", "scene_size"]
        for name in unused:
            if getattr(self, name) not in (getattr(DataConfig, name), getattr(usual, name, None)):
                raise InputError(f"{name}: has no effect with the source {self.source} in this command")

    def open(self, split: Split) -> Source:
        """The training or test part of the source."""
        source = self._source(split)
        return source if self.pairs is None or split == "test" else First(source, self.pairs)

    def _source(self, split: Split) -> Source:
        if self.source == "scenes":
            return Scenes(self.scenes, self.scene_size, 0 if split == "train" else HELD_OUT_SEED)
        if self.source == "motorcycle":
            return Motorcycle()
        directory = data_dir(self.data_dir)
        if self.source == "nyu":
            return NYUDepthV2(directory / "nyu_depth_v2_labeled.mat", split)
        if self.source == "sintel":
            return sintel(directory, split)
        pairs = PAIRS[self.source](directory)
        return by_family(pairs, split, self.held_out) if self.held_out else pairs


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
    optimizer: Adam = field(default=Adam(), metadata=WAS_FLAT)

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Network:
        """Its network with the initial weights."""
        return self.network.build(self.run.seed)


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
    config.data.check("train")
    config.network.check(() if config.data.protocol == "noise" else config.data.scales)
    source = Cached(config.data.open("train"))
    batches = training_batches(
        source,
        scales=config.data.scales,
        crop=config.crop,
        batch_size=config.batch_size,
        protocol=config.data.protocol,
        seed=config.run.seed,
    )
    network = config.build()
    if config.start is not None:
        _load(network, config.start)
    open_run(config.run.run_dir, config)
    return fit(network, config.optimizer.build(), partial(masked_loss, config.loss), batches, config.run)


def _load(network: nnx.Module, run_dir: Path) -> None:
    """Take over the weights of a run, free of the device that they were restored to: training spreads them over all."""
    state = nnx.state(load_model(run_dir, network))
    nnx.update(network, jax.tree.map(lambda array: jnp.asarray(np.asarray(array)), state))
