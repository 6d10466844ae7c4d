"""Training of an upsampler on the features of a frozen encoder, from photographs alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grain
import numpy as np
import optax
from flax import nnx
from PIL import Image

from experiments.data import images
from experiments.data.batching import batched
from experiments.data.photos import embedded, image_files
from experiments.data.segmentation_batches import discoloured
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.processes import first_alone
from experiments.engine.samples import Named
from experiments.engine.train import fit
from experiments.probe.networks import Encoder, open_encoder, patch_of
from experiments.probe.upsamplers import CROPS, FITS
from jaxup.files import InputError
from jaxup.interop import save_module

_NOISE = 10.0  # of 255


@dataclass(frozen=True)
class FitConfig:
    """Which upsampler, for which encoder, from which photographs."""

    run: RunConfig
    upsampler: Literal["uplift", "naf", "anyup"] = "naf"
    """Which; UPLiFT is for this encoder alone."""
    encoder: str = "efficientnet-lite0"
    """As of `train`: efficientnet-lite0, random, or what `jaxup.load` takes."""
    photographs: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of photographs. None: those in scikit-image's wheel."""
    small: bool = False
    """NAF of 64 channels and windows of 3 x 3, AnyUp of 32 channels, for a CPU; UPLiFT is as published."""
    side: int = 448
    """Of the squares of photographs."""
    zoom: float = 1.0
    """Squares have the shorter side of a photograph, or by chance down to this factor less; then they are resized."""
    batch_size: int = 4
    """Squares in a batch."""
    learning_rate: float = 2e-4
    """Of AdamW, constant."""
    weight_decay: float = 1e-5
    """Of AdamW; 0 is Adam."""

    def check(self) -> None:
        """Refuses what cannot be trained."""
        if self.zoom < 1:
            raise InputError(f"zoom: expected at least 1, got {self.zoom}")
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate: expected a number above 0, got {self.learning_rate}")
        patch = patch_of(self.encoder, self.run.run_dir)
        least, even = 2 * patch * self.least_cells, patch * (1 if self.upsampler == "naf" else 2)
        if self.side < least or self.side % even:
            raise InputError(f"side: expected a multiple of {even} of at least {least}, got {self.side}")

    def open_encoder(self) -> Encoder:
        """The encoder with its weights."""
        return open_encoder(self.encoder, self.run.run_dir)

    @property
    def least_cells(self) -> int:
        """That a side of the coarse map has to have: NAF's windows lie inside of it."""
        return (3 if self.small else 9) if self.upsampler == "naf" else 1

    def options(self) -> dict[str, Any]:
        """Of the upsampler's constructor."""
        return FITS[self.upsampler].options(self.open_encoder(), self.small)

    def build(self) -> nnx.Module:
        """The upsampler with its initial weights."""
        return FITS[self.upsampler].module(**self.options(), rngs=nnx.Rngs(self.run.seed))


def fit_upsampler(config: FitConfig) -> nnx.Module:
    """Train an upsampler on photographs, and leave it as NAME.safetensors, which `jaxup.load` reads; or go on."""
    config.check()
    kind, source = FITS[config.upsampler], Photographs(config.photographs)
    open_run(config.run.run_dir, config)
    encoder, model = config.open_encoder(), config.build()
    batches = training_batches(source, config, encoder.patch_size)
    optimizer = optax.inject_hyperparams(optax.adamw)(config.learning_rate, weight_decay=config.weight_decay)
    model = fit(model, optimizer, kind.loss, batches, config.run, prepare=lambda batch: kind.prepare(encoder, batch))
    path = config.run.run_dir / f"{config.upsampler}.safetensors"
    first_alone(lambda: save_module(path, model, config.options()))
    print(f"{path}: for --upsampler of train and table, and --upsampler-weights of jaxup features", flush=True)
    return model


class Photograph(NamedTuple):
    """A photograph, uint8 [H, W, 3], and its name."""

    image: np.ndarray
    name: str


class Photographs:
    """Those of a folder, decoded when they are asked for, or those in scikit-image's wheel."""

    def __init__(self, folder: Path | None):
        self.files: Sequence[Path] = [] if folder is None else image_files(folder)
        self.kept = [Photograph(image, name) for name, image in embedded("train").items()] if folder is None else []

    def __len__(self) -> int:
        return len(self.kept or self.files)

    def __getitem__(self, index: int) -> Photograph:
        return self.kept[index] if self.kept else Photograph(images.read_rgb(self.files[index]), self.files[index].name)


def training_batches(source: Photographs, config: FitConfig, patch: int) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Endless batches as `experiments.probe.upsamplers` has them, shuffled anew each epoch, restorable to the bit."""

    def example(photograph: Photograph, rng: np.random.Generator) -> dict[str, np.ndarray]:
        found = {"image": view(photograph.image, config.side, config.zoom, rng)}
        if config.upsampler == "anyup":
            half = config.side // 2
            found["corners"] = rng.integers(0, half // patch + 1, (CROPS, 2), dtype=np.int32)
            smaller = np.asarray(Image.fromarray(found["image"]).resize((half, half), Image.Resampling.BILINEAR))
            noisy = discoloured(smaller, rng) + rng.normal(0, _NOISE, smaller.shape)
            found["disturbed"] = np.rint(noisy).clip(0, 255).astype(np.uint8)
        return found

    examples = grain.MapDataset.source(Named(source)).seed(config.run.seed).shuffle().repeat().random_map(example)
    return batched(examples, config.batch_size)


def view(image: np.ndarray, side: int, zoom: float, rng: np.random.Generator) -> np.ndarray:
    """A square of a photograph by chance, mirrored or not, of this size: uint8 [side, side, 3]."""
    own = max(1, round(min(image.shape[:2]) / rng.uniform(1, zoom)))
    top, left = (int(rng.integers(n - own + 1)) for n in image.shape[:2])
    flip = 1 if rng.random() < 0.5 else -1
    part = np.ascontiguousarray(image[top : top + own, left : left + own][:, ::flip])
    return np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR))
