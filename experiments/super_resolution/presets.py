"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.super_resolution.evaluation import EvaluateConfig
from experiments.super_resolution.networks import NetworkConfig
from experiments.super_resolution.training import DataConfig, TrainConfig


def short() -> TrainConfig:
    """Half the width, with a residual, on patches of 24 x 24 (at 2x), minutes on two CPU cores.

    python -m experiments super-resolution train --preset short --train-dirs T91 --run-dir runs/attention
    python -m experiments super-resolution train --preset short --train-dirs T91 --upsampler deconvolution \\
        --run-dir runs/deconvolution
    python -m experiments super-resolution evaluate --run-dir runs/attention --run-dir runs/deconvolution \\
        --test-dirs Set5 Set14 BSDS100

    Ours, T91, mean of three seeds, PSNR in dB on Set5, Set14 and BSDS100 at 2x: attention 35.96, 31.87, 30.90,
    deconvolution 36.01, 31.92, 30.91, bicubic 33.68, 30.23, 29.56 (see experiments/RESULTS.md). Paper, with its own
    schedule and twice the width: see paper.
    """
    return TrainConfig(
        RunConfig(Path("runs/super-resolution-short"), steps=1500, save_every=500),
        NetworkConfig(features=64, residual=True),
        DataConfig(patch=48, stride=24, validation_patches=100),
        batch_size=10,
        validate_every=100,
        patience=1,
    )


def paper() -> TrainConfig:
    """The paper's network, Adam with 1e-3 times 0.8 on plateaus, batches of 20; three seeds for each table entry.

    python -m experiments super-resolution train --preset paper --train-dirs T91 General100 --scale 4 \\
        --upsampler attention --seed 0 --run-dir runs/attention-4x-0
    python -m experiments super-resolution evaluate --run-dir runs/attention-4x-0 --run-dir runs/attention-4x-1 \\
        --run-dir runs/attention-4x-2 --test-dirs Set5 Set14 BSDS100

    Left open by the paper, and chosen here: squared error, patches of 64 x 64 pixels at every 32 (in high resolution),
    200,000 steps, a validation every 1000 on every tenth photograph, and 5 of them without improvement as a plateau.

    Paper, PSNR in dB at 2x, 4x and 8x, trained on T91 and General100 (Table IV): attention Set5 36.88, 30.66, 25.56,
    Set14 32.52, 27.48, 23.87, BSDS100 33.22, 27.84, 24.72; deconvolution Set5 36.86, 30.44, 25.42, Set14 32.52, 27.37,
    23.81, BSDS100 33.19, 27.76, 24.60. Trained on BSDS200 (Table V): attention Set5 36.84, 30.51, 25.43, Set14 32.51,
    27.45, 23.87, BSDS100 33.28, 27.82, 24.80; deconvolution Set5 36.86, 30.41, 25.34, Set14 32.48, 27.37, 23.82,
    BSDS100 33.25, 27.78, 24.74. Ours: not measured yet.
    """
    return TrainConfig(RunConfig(Path("runs/super-resolution"), steps=200_000, log_every=500, save_every=2000))


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: narrow layers and 4 steps on small patches.

    python -m experiments super-resolution train --preset smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/super-resolution-smoke"), steps=4, log_every=2, save_every=4),
        NetworkConfig(features=8, residual=True),
        DataConfig(patch=16, stride=16, validation_patches=8),
        batch_size=math.lcm(4, jax.device_count()),
        validate_every=2,
    )


def evaluate_photos() -> EvaluateConfig:
    """Photographs that scikit-image carries, or those of --test-dirs.

    python -m experiments super-resolution evaluate --run-dir runs/attention --test-dirs Set5 Set14 BSDS100
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """The middle of one photograph of each folder.

    python -m experiments super-resolution evaluate --preset smoke
    """
    return EvaluateConfig(images=1, crop=96)
