"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.engine.optim import Adam
from experiments.reconstruction.evaluation import EvaluateConfig
from experiments.reconstruction.training import DataConfig, TrainConfig


def short() -> TrainConfig:
    """All rows on patches of scikit-image's photographs, a quarter of an hour on two CPU cores.

    python -m experiments reconstruction train --preset short --run-dir runs/reconstruction-short

    The same on Fashion-MNIST: --source fashion-mnist --data-dir FOLDER. Ours there, PSNR in dB on all test
    images: average pooling and nearest interpolation 18.95, max unpooling 25.40, index networks 29.64 (modelwise),
    30.09 (holistic) and 34.75 (many to one), see experiments/RESULTS.md. Paper, Table 3, with 60,000 steps: 25.88,
    29.33, 37.83, 45.93 and 48.37.
    """
    run = RunConfig(Path("runs/reconstruction-short"), steps=400, log_every=50, save_every=200)
    return TrainConfig(run, batch_size=32, optimizer=Adam(0.01, drops=(250, 350)))


def paper() -> TrainConfig:
    """All rows on Fashion-MNIST with the paper's schedule: 100 epochs of 600 batches of 100.

    python -m experiments reconstruction train --preset paper --data-dir FOLDER --run-dir runs/reconstruction

    or, with a data set that TensorFlow Datasets has prepared as ArrayRecord, --source tfds. The paper does not name the
    optimiser of this task: here it is Adam, as in its other networks without pretrained parts. Paper, Table 3, PSNR in
    dB (SSIM): AvgPool-NN 25.88 (0.9811), Conv/2-Bilinear 24.45 (0.9726), S2D-D2S 28.93 (0.9901), Conv/2-Deconv/2 28.75
    (0.9903), Conv/2-CARAFE 25.55 (0.9798), MaxPool-MaxUnpool 29.33 (0.9920), IP-IU modelwise O2O 37.83 (0.9989), HIN
    45.93 (0.9998), M2O 48.37 (0.9999). Ours: not measured yet.
    """
    run = RunConfig(Path("runs/reconstruction"), steps=60_000, log_every=600, save_every=6000)
    optimizer = Adam(0.01, drops=(30_000, 42_000, 51_000))
    return TrainConfig(run, data=DataConfig("fashion-mnist"), optimizer=optimizer)


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: three rows, as few steps, images and features as it takes.

    python -m experiments reconstruction train --preset smoke --run-dir runs/smoke
    """
    run = RunConfig(Path("runs/reconstruction-smoke"), steps=2, log_every=2, save_every=2)
    batch_size, data = math.lcm(4, jax.device_count()), DataConfig(images=16)
    return TrainConfig(run, ("conv-carafe", "max-unpool", "holistic"), data, widths=(4,), batch_size=batch_size)


def evaluate_trained() -> EvaluateConfig:
    """The images of the training.

    python -m experiments reconstruction evaluate --run-dir runs/reconstruction
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """Some of the images.

    python -m experiments reconstruction evaluate --preset smoke --run-dir runs/smoke
    """
    return EvaluateConfig(images=16)
