"""Training of one network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flax import nnx

from experiments.data.denoising import Images, Patches, batches, cut_patches, grey_images, noisy_patches, owners
from experiments.denoising.networks import MODELS, Network, NetworkConfig
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.optim import Adam
from experiments.engine.stored import WAS_FLAT
from experiments.engine.train import fit, squared_error
from jaxup._checks import check_choice
from jaxup.files import InputError


@dataclass(frozen=True)
class DataConfig:
    """Which images to train on, and how patches are cut from them."""

    source: Literal["photos", "train400", "folder"] = "photos"
    """Photographs in scikit-image's wheel, the 400 images of TNRD and DnCNN, or all images of `data_dir`."""
    data_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Folder of the data, which has denoise/Train400 or denoise/train400.csv. None: the environment variable
    JAXUP_DATA."""
    patch: int = 40
    """Side of the patches, for all networks but dncnn a multiple of 8."""
    stride: int = 10
    """From one patch to the next."""
    scales: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7)
    """Patches are cut from the images at these sizes."""

    def images(self) -> Images:
        """Grey training images by name."""
        return grey_images(self.source, self.data_dir, "train")

    def patches(self, images: Images) -> Patches:
        """The patches of the images."""
        return cut_patches(images, self.patch, self.stride, self.scales)


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
    optimizer: Adam = field(default=Adam(), metadata=WAS_FLAT)

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Network:
        """Its network with the initial weights."""
        return self.network.build(self.run.seed)

    def check(self) -> None:
        """Refuses what cannot be trained."""
        if not 0 < self.sigma <= 255:
            raise InputError(f"sigma: expected a number above 0 and up to 255, got {self.sigma}")
        check_choice("model", self.network.model, MODELS)
        if self.network.model != "dncnn" and self.data.patch % 8:
            raise InputError(f"patch: expected a multiple of 8 for {self.network.model}, got {self.data.patch}")
        if self.data.source == "photos" and self.data.data_dir is not None:
            raise InputError("data_dir: has no effect with the source photos")


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    config.check()
    network = config.build()
    images = config.data.images()
    patches = config.data.patches(images)
    open_run(config.run.run_dir, config)
    return fit(
        network,
        config.optimizer.build(),
        squared_error("noisy", "clean"),  # the paper has half the sum over a patch; Adam does not see the factor
        batches(len(patches.starts), config.batch_size, config.run.seed, owners(images, patches, config.data.scales)),
        config.run,
        prepare=noisy_patches(patches, config.data.patch, config.sigma, config.run.seed),
    )
