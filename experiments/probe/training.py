"""Training of one linear probe on upsampled features."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.train import fit
from experiments.probe.data import DataConfig
from experiments.probe.features import Features, open_features, training_batches
from experiments.probe.networks import (
    BARE,
    SMALL,
    DepthProbe,
    Encoder,
    Segmenter,
    load_upsampler,
    open_encoder,
    open_upsampler,
)
from experiments.segmentation.training import cross_entropy
from jaxup import solvers
from jaxup.cli.feature_networks import PLAIN
from jaxup.files import InputError
from jaxup.interop.load import FEATURE_UPSAMPLERS

Batch = dict[str, jax.Array]
_EPOCHS, _WARMUP = 20, 100


@dataclass(frozen=True)
class TrainConfig:
    """A linear probe."""

    run: RunConfig
    data: DataConfig = field(default=DataConfig())
    encoder: str = "efficientnet-lite0"
    """efficientnet-lite0 (ImageNet's weights, which the extra `efficientnet` brings) or random, a narrow one, both at
    stride 16; or what `jaxup.load` takes: dinov2_s14 and others by name, a file of weights, a folder of Hugging Face's
    form, or hf://owner/repository."""
    upsampler: str = "bilinear"
    """bilinear, or fitted (Upsample Anything), which need no weights; or what `jaxup.load` takes, as a file of weights
    of anyup, uplift, naf, jafar or loftup, official ones or those that fit-upsampler leaves."""
    features_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Where features are kept, for several runs. None: in the run directory."""
    batch_size: int = 2
    """Images in a batch."""
    learning_rate: float = 5e-4
    """Of AdamW at the start."""
    weight_decay: float = 1e-5
    """Of AdamW."""
    schedule: Literal["steps", "epochs", "waves"] = "epochs"
    """The rate falls to zero along half a cosine, in every step (NAF), or 20 times (AnyUp: once in each of 20 epochs);
    or it falls and rises along one, with a period of 40 steps (JAFAR)."""

    @property
    def label(self) -> str:
        """What tables call it: the kind of upsampler where the name of its file says it."""
        stem = Path(self.upsampler).stem
        return next((kind for kind in (*FEATURE_UPSAMPLERS, *PLAIN) if kind in stem.lower()), stem)

    @property
    def folder(self) -> Path:
        """Of the features."""
        return self.features_dir or self.run.run_dir / "features"

    def check(self) -> None:
        """Refuses what cannot be trained, before anything is written."""
        self.data.open("train")
        self.optimizer()
        if self.encoder not in SMALL:  # whose weights are kept in the run directory
            self.open_upsampler()
        elif self.upsampler not in PLAIN:
            load_upsampler(self.upsampler)

    def open_encoder(self) -> Encoder:
        """The encoder with its weights."""
        return open_encoder(self.encoder, self.folder)

    def build(self) -> nnx.Module:
        """The probe with its initial weights."""
        classes, channels = len(self.data.open("train").classes), self.open_encoder().channels
        rngs = nnx.Rngs(self.run.seed)
        return DepthProbe(channels, rngs) if self.data.depth else Segmenter(channels, classes, rngs)

    def open_features(self, split: Literal["train", "test"]) -> Features:
        """Of the images of a split."""
        fits = self.upsampler == "fitted"
        return open_features(self.data, split, self.open_encoder(), self.encoder, self.folder, fits=fits)

    def open_upsampler(self) -> Callable[[Batch], jax.Array]:
        """With its weights, as a function of batches of features and images; for depth it sees colours as they are."""
        upsample = open_upsampler(self.upsampler, self.open_encoder(), BARE if self.data.depth else None)

        def enlarge(batch: Batch) -> jax.Array:
            image = batch["image"].astype(jnp.float32) / 255
            if self.upsampler == "fitted" and "fit" in batch:
                return from_fit(batch["fit"], batch["features"], image)
            return upsample(batch["features"], image, (image.shape[1], image.shape[2]))

        return enlarge

    def rate(self, step: Any) -> jax.Array:
        """The learning rate of a step, counted from 0."""
        turn = {
            "steps": step / self.run.steps,
            "epochs": jnp.floor(_EPOCHS * step / self.run.steps) / _EPOCHS,
            "waves": step / _EPOCHS,
        }[self.schedule]
        return self.learning_rate * 0.5 * (1 + jnp.cos(math.pi * turn))

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW; all weights decay, as PyTorch's do."""
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate: expected a number above 0, got {self.learning_rate}")
        return optax.inject_hyperparams(optax.adamw)(learning_rate=self.rate, weight_decay=self.weight_decay)


def train(config: TrainConfig) -> nnx.Module:
    """Train a linear probe on upsampled features; started again on the same run directory, it goes on."""
    config.check()
    open_run(config.run.run_dir, config)
    upsample, optimizer, model = config.open_upsampler(), config.optimizer(), config.build()
    batches = training_batches(config.open_features("train"), config.batch_size, config.run.seed)
    loss = depth_loss if config.data.depth else segmentation_loss
    return fit(model, optimizer, loss, batches, config.run, prepare=enlarged(upsample))


def enlarged(enlarge: Callable[[Batch], jax.Array]) -> Callable[[Batch], Batch]:
    """Batches with features of the images' size, outside of what is differentiated."""
    return lambda batch: {"features": enlarge(batch), "whole": batch["whole"], "truth": batch["truth"]}


@jax.jit
def from_fit(fit: jax.Array, x: jax.Array, image: jax.Array) -> jax.Array:
    """Features enlarged by the filters [B, h, w, 4] that were fitted to their images."""
    sigma_x, sigma_y, theta, colour = jnp.split(fit, 4, axis=3)
    return solvers.BilateralFit(sigma_x, sigma_y, theta, colour, jnp.zeros(0)).apply(x, image)


def segmentation_loss(model: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy, without ignored pixels."""
    return cross_entropy(model(batch["features"], batch["whole"]), batch["truth"].astype(jnp.int32)), {}


def depth_loss(model: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of the logarithms of depth, over 0 < t <= 10 m of the batch.

        L = sqrt(var g + 0.15 (mean g)^2),   g = ln(x + 0.001) - ln(t + 0.001)

    without the variance in the first hundred steps. JAFAR's code adds a loss of gradients, which is zero for two
    images, because it takes differences along the batch.
    """
    found, truth = model(batch["features"], batch["whole"])[..., 0], batch["truth"]
    value = sig_loss(found, truth, warm=model.calls[...] < _WARMUP)
    model.calls[...] += 1
    return value, {}


def sig_loss(x: jax.Array, truth: jax.Array, *, warm: jax.Array | bool = False) -> jax.Array:
    """See `depth_loss`."""
    valid = (truth > 0) & (truth <= 10)
    count = jnp.maximum(jnp.sum(valid), 2).astype(jnp.float32)
    g = jnp.where(valid, jnp.log(jnp.where(valid, x, 1) + 1e-3) - jnp.log(jnp.where(valid, truth, 1) + 1e-3), 0)
    mean = jnp.sum(g) / count
    variance = jnp.sum(jnp.where(valid, (g - mean) ** 2, 0)) / (count - 1)
    square = jnp.where(warm, 0, variance) + 0.15 * mean**2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
