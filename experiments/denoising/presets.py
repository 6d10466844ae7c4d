"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.denoising.evaluation import EvaluateConfig
from experiments.denoising.networks import NetworkConfig
from experiments.denoising.table import PAPER, TableConfig
from experiments.denoising.training import DataConfig, TrainConfig
from experiments.engine.config import RunConfig
from experiments.engine.optim import Adam

_EPOCH = 238_400 // 128  # steps: patches of the 400 images at four scales, in batches


def short() -> TrainConfig:
    """DnCNN on the photographs of scikit-image, in batches whose statistics hold for whole images.

    python -m experiments denoising train --preset short --run-dir runs/dncnn
    python -m experiments denoising evaluate --run-dir runs/dncnn
    """
    run = RunConfig(Path("runs/denoising-short"), steps=300, log_every=10, save_every=50)
    return TrainConfig(run, batch_size=48, optimizer=Adam(drops=(225,)))


def paper() -> TrainConfig:
    """One network with the paper's schedule: 60 epochs of Train400 in batches of 128, the rate lowered at 45 and 55.

    python -m experiments denoising train --preset paper --data-dir FOLDER --model shared_o2o-nl-c --sigma 25
    python -m experiments denoising evaluate --run-dir runs/denoising-paper --tests set12 bsd68 --data-dir FOLDER

    Paper, Table 7, PSNR in dB for sigma = 15, 25, 50 on BSD68: dncnn 31.74, 29.22, 26.23; max-unpool 30.74, 28.27,
    24.88; shared_o2o-nl-c 31.22, 29.07, 26.31; m2o 31.22, 29.03, 26.33. On Set12: dncnn 32.87, 30.42, 27.17; max-unpool
    31.91, 28.98, 24.99. Ours: not measured yet.
    """
    run = RunConfig(Path("runs/denoising-paper"), steps=60 * _EPOCH, log_every=100, save_every=_EPOCH)
    return TrainConfig(run, data=DataConfig("train400"), optimizer=Adam(drops=(45 * _EPOCH, 55 * _EPOCH)))


def short_table() -> TableConfig:
    """Seven networks for sigma = 25 in a few hundred batches each.

    python -m experiments denoising table --preset short --run-dir runs/denoising-table
    python -m experiments denoising table --preset short --run-dir runs/denoising-table --source train400 \\
        --tests set12 --data-dir FOLDER

    Ours with batches of 8, PSNR in dB on Set12 with running statistics, and with each image's own: dncnn 27.36, 27.11,
    max-unpool 25.61, 25.39, max-carafe 19.81, 20.17, holistic 22.58, 26.96, modelwise_o2o 23.65, 26.98,
    shared_o2o-nl-c 23.84, 26.68, m2o 24.57, 27.70 (see experiments/RESULTS.md). Paper, with its own schedule: 30.42,
    28.98, 20.19, 30.28, 30.42, 30.41, 30.42.
    """
    return TableConfig(replace(short(), run=replace(short().run, run_dir=Path("runs/denoising-table"))))


def paper_table() -> TableConfig:
    """All rows of the paper's table with its schedule, for three levels of noise, on both test sets.

    python -m experiments denoising table --preset paper --data-dir FOLDER --run-dir runs/denoising
    python -m experiments denoising table --preset paper --data-dir FOLDER --sigmas 50 --models dncnn m2o-nl-c

    Ours: not measured yet.
    """
    run = replace(paper().run, run_dir=Path("runs/denoising-paper-table"))
    return TableConfig(replace(paper(), run=run), PAPER, (15.0, 25.0, 50.0), tests=("set12", "bsd68"))


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: a narrow network, 4 steps.

    python -m experiments denoising train --preset smoke --run-dir runs/smoke
    """
    run = RunConfig(Path("runs/denoising-smoke"), steps=4, log_every=2, save_every=4)
    batch_size = math.lcm(8, jax.device_count())
    return TrainConfig(run, NetworkConfig(features=4), batch_size=batch_size, optimizer=Adam(drops=(3,)))


def smoke_table() -> TableConfig:
    """Two narrow networks, on parts of two images.

    python -m experiments denoising table --preset smoke --run-dir runs/smoke-table
    """
    run = replace(smoke().run, run_dir=Path("runs/denoising-smoke-table"))
    return TableConfig(replace(smoke(), run=run), ("dncnn", "shared_o2o"), images=2, crop=53)


def evaluate_photos() -> EvaluateConfig:
    """Two photographs in scikit-image's wheel, or the sets of --tests.

    python -m experiments denoising evaluate --run-dir runs/dncnn --tests set12 bsd68 --data-dir FOLDER
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """A part of one image.

    python -m experiments denoising evaluate --preset smoke
    """
    return EvaluateConfig(images=1, crop=53)
