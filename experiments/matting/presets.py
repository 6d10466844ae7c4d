"""Presets: each gives its launch line, the papers' numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.data.matting_batches import Augmentation
from experiments.engine.config import RunConfig
from experiments.engine.optim import Decayed
from experiments.matting.evaluation import EvaluateConfig
from experiments.matting.networks import NetworkConfig
from experiments.matting.pictures import PicturesConfig
from experiments.matting.table import INDEXNET, TableConfig
from experiments.matting.training import DataConfig, TrainConfig

_PRETRAINED = (("encoder", 0.01), ("stem", 0.01), ("stages", 0.01))


def short() -> TrainConfig:
    """A network of half width from scratch on generated hair, smoke and lace, for two CPU cores.

    python -m experiments matting train --preset short --model m2o-nl-c --run-dir runs/m2o
    python -m experiments matting evaluate --run-dir runs/m2o

    Ours, 400 of the 800 steps, seed 1: SAD 13.12, MSE 0.1306, Grad 16.91 on generated images (2 CPU cores, 2026-11-26).
    """
    return TrainConfig(
        RunConfig(Path("runs/matting-short"), steps=800, log_every=10, save_every=50),
        NetworkConfig(width=0.5),
        augmentation=Augmentation(crop=96),
        batch_size=8,
        optimizer=Decayed(learning_rate=3e-3, warmup=20, weight_decay=0.0),
    )


def indexnet() -> TrainConfig:
    """Index Networks on Adobe Image Matting: 30 epochs in batches of 16 crops of 320 pixels, Adam, the encoder slower.

    python -m experiments matting train --preset indexnet --data-dir FOLDER --model m2o-nl-c \\
        --backbone-weights mobilenet_v2.pth
    python -m experiments matting evaluate --run-dir runs/matting-indexnet --tests adobe --data-dir FOLDER

    Paper, Tables 4 and 5, SAD, MSE, Grad: B11 54.9, .017, 33.8; B11-carafe 50.2, .015, 27.9; HMI 56.5, .021, 33.0;
    holistic-nl-c 49.5, .015, 25.6; shared_o2o 48.9, .014, 26.2; m2o-nl-c 45.8, .013, 25.9. Ours: not measured yet.
    """
    return _paper("indexnet", "B11", 43_100 // 16, Augmentation("indexnet", 320))


def a2u() -> TrainConfig:
    """A2U matting on Adobe Image Matting: 30 epochs of 6000 batches of 16 crops of 512 pixels, its augmentation.

    python -m experiments matting train --preset a2u --data-dir FOLDER --backbone-weights resnet34.pth
    python -m experiments matting evaluate --run-dir runs/matting-a2u --tests adobe --data-dir FOLDER

    Its repository, SAD, MSE, Grad, Conn: A2U 32.10, .0078, 16.33, 29.00; A2U-unshared 31.87, .0075, 14.25, 29.17.
    Ours: not measured yet.
    """
    return _paper("a2u", "A2U", 6000, Augmentation("a2u", 512))


def _paper(name: str, model: str, epoch: int, augmentation: Augmentation) -> TrainConfig:
    return TrainConfig(
        RunConfig(Path(f"runs/matting-{name}"), steps=30 * epoch, log_every=100, save_every=epoch),
        NetworkConfig(model),
        DataConfig("adobe"),
        augmentation,
        optimizer=Decayed(
            learning_rate=1e-2, warmup=0, weight_decay=0.0, drops=(20 * epoch, 26 * epoch), multipliers=_PRETRAINED
        ),
        fixed_norms=True,
    )


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: a narrow network on a few generated mattes, 2 steps.

    python -m experiments matting train --preset smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/matting-smoke"), steps=2, log_every=1, save_every=2),
        NetworkConfig("B4", width=1 / 16),
        DataConfig(images=3, size=48),
        Augmentation(crop=32),
        batch_size=math.lcm(2, jax.device_count()),
    )


def short_table() -> TableConfig:
    """Six networks of half width on generated hair, smoke and lace, about an hour of two CPU cores.

    python -m experiments matting table --preset short --run-dir runs/matting-table
    python -m experiments matting table --preset short --run-dir runs/matting-table --tests generated alphamatting \\
        --data-dir FOLDER --baselines trimap closed-form

    Ours, 400 of the 800 steps, SAD on generated images: B11 13.36, B11-carafe 13.13, holistic-nl-c 13.40, shared_o2o
    13.60, A2U 12.90; all rows in RESULTS (2 CPU cores, 2026-11-26).
    """
    return TableConfig(replace(short(), run=replace(short().run, run_dir=Path("runs/matting-table"))))


def indexnet_table() -> TableConfig:
    """All rows of Index Networks' Tables 4 to 6 with its schedule, on Composition-1k.

    python -m experiments matting table --preset indexnet --data-dir FOLDER --run-dir runs/table \\
        --backbone-weights FOLDER
    python -m experiments matting table --preset indexnet --data-dir FOLDER --models B11 m2o-nl-c \\
        --backbone-weights mobilenet_v2.pth

    The folder of weights has mobilenet_v2.pth, and for B3 and B4 vgg16_bn.pth. B11-1.4, for which none are published,
    is not among the rows: train it with --no-fixed-norms. Ours: not measured yet.
    """
    training = replace(indexnet(), run=replace(indexnet().run, run_dir=Path("runs/matting-indexnet-table")))
    return TableConfig(training, tuple(name for name in INDEXNET if name != "B11-1.4"), tests=("adobe",))


def a2u_table() -> TableConfig:
    """A2U matting, shared and unshared, with its schedule, on Composition-1k.

    python -m experiments matting table --preset a2u --data-dir FOLDER --run-dir runs/table \\
        --backbone-weights resnet34.pth

    Its repository, SAD: shared 32.10, unshared 31.87. Ours: not measured yet.
    """
    run = replace(a2u().run, run_dir=Path("runs/matting-a2u-table"))
    training = replace(a2u(), run=run, network=NetworkConfig())
    return TableConfig(training, ("A2U", "A2U-unshared"), tests=("adobe",))


def smoke_table() -> TableConfig:
    """Two narrow networks, on a generated image.

    python -m experiments matting table --preset smoke --run-dir runs/smoke-table
    """
    run = replace(smoke().run, run_dir=Path("runs/matting-smoke-table"))
    training = replace(smoke(), run=run, network=NetworkConfig(width=1 / 16))
    return TableConfig(training, ("B3", "B4"), test_images=1)


def evaluate_generated() -> EvaluateConfig:
    """Thirty generated images, or the sets of --tests.

    python -m experiments matting evaluate --run-dir runs/a --run-dir runs/b --tests generated alphamatting \\
        --data-dir FOLDER --baselines trimap closed-form --out runs/comparison --pictures
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """One generated image, by a narrow network before training.

    python -m experiments matting evaluate --preset smoke
    """
    return EvaluateConfig(images=1, size=48)


def pictures_of_runs() -> PicturesConfig:
    """Test images with the mattes of trained networks, and their index maps, random beside learned.

    python -m experiments matting pictures --run-dir runs/table/holistic-nl-c --run-dir runs/table/m2o-nl-c \\
        --images 0 1 2 --out pictures
    """
    return PicturesConfig()


def pictures_smoke() -> PicturesConfig:
    """A generated image, by a narrow index network before training.

    python -m experiments matting pictures --preset smoke --out pictures
    """
    return PicturesConfig(size=48)
