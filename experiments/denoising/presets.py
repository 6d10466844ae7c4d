"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

from dataclasses import replace
from pathlib import Path

from experiments.denoising.table import TableConfig
from experiments.denoising.training import DataConfig, TrainConfig
from experiments.engine.config import RunConfig

_EPOCH = 238_400 // 128  # steps: patches of the 400 images at four scales, in batches


def short() -> TrainConfig:
    """DnCNN on the photographs of scikit-image.

    python -m experiments denoising train --preset short --run-dir runs/dncnn
    python -m experiments denoising evaluate --run-dir runs/dncnn
    """
    run = RunConfig(Path("runs/denoising-short"), steps=300, log_every=10, save_every=50)
    return TrainConfig(run, batch_size=8, drops=(225,))


def paper() -> TrainConfig:
    """One network with the paper's schedule: 60 epochs of Train400 in batches of 128, the rate lowered at 45 and 55.

    python -m experiments denoising train --preset paper --data-dir FOLDER --model shared_o2o-nl-c --sigma 25
    python -m experiments denoising evaluate --run-dir runs/denoising-paper --tests set12 bsd68 --data-dir FOLDER

    Paper, Table 7, PSNR in dB for sigma = 15, 25, 50 on BSD68: dncnn 31.74, 29.22, 26.23; max-unpool 30.74, 28.27,
    24.88; shared_o2o-nl-c 31.22, 29.07, 26.31; m2o 31.22, 29.03, 26.33. On Set12: dncnn 32.87, 30.42, 27.17; max-unpool
    31.91, 28.98, 24.99. Ours: not measured yet.
    """
    run = RunConfig(Path("runs/denoising-paper"), steps=60 * _EPOCH, log_every=100, save_every=_EPOCH)
    return TrainConfig(run, data=DataConfig("train400"), drops=(45 * _EPOCH, 55 * _EPOCH))


def short_table() -> TableConfig:
    """Seven networks for sigma = 25 in a few hundred small batches each.

    python -m experiments denoising table --preset short --run-dir runs/denoising-table
    python -m experiments denoising table --preset short --run-dir runs/denoising-table --source train400 \\
        --tests set12 --data-dir FOLDER

    Ours, PSNR in dB on Set12 with running statistics, and with each image's own: dncnn 27.36, 27.11, max-unpool 25.61,
    25.39, max-carafe 19.81, 20.17, holistic 22.58, 26.96, modelwise_o2o 23.65, 26.98, shared_o2o-nl-c 23.84, 26.68, m2o
    24.57, 27.70 (see experiments/RESULTS.md). Paper, with its own schedule: 30.42, 28.98, 20.19, 30.28, 30.42, 30.41,
    30.42.
    """
    return TableConfig(replace(short(), run=replace(short().run, run_dir=Path("runs/denoising-table"))))


def paper_table() -> TableConfig:
    """The networks of the short table with the paper's schedule, for one level of noise.

    python -m experiments denoising table --preset paper --data-dir FOLDER --sigma 50 --run-dir runs/denoising-50
    """
    run = replace(paper().run, run_dir=Path("runs/denoising-paper-table"))
    return TableConfig(replace(paper(), run=run), tests=("set12", "bsd68"))
