"""Presets: each gives its launch line, the papers' numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.probe.data import DataConfig
from experiments.probe.evaluation import EvaluateConfig
from experiments.probe.fitting import FitConfig
from experiments.probe.pictures import PicturesConfig
from experiments.probe.table import TableConfig
from experiments.probe.training import TrainConfig

_VOC = 20 * 1464 // 2  # 20 epochs of VOC's own 1464 images, in batches of 2
_IMAGENET = 1_281_167


def shapes() -> TrainConfig:
    """A probe on features of EfficientNet-Lite0 for generated shapes of 128 x 128 pixels, or rooms, for a CPU.

    pip install jaxup[experiments,efficientnet] torch
    python -m experiments probe train --run-dir runs/probe --upsampler fitted
    python -m experiments probe train --run-dir runs/probe-depth --upsampler fitted --source rooms
    python -m experiments probe evaluate --run-dir runs/probe --out results --pictures

    Ours, 40 images, 500 steps, one seed, mIoU: bilinear 22.81, fitted 19.85, NAF trained in minutes 26.09 (RESULTS.md).
    """
    return TrainConfig(
        RunConfig(Path("runs/probe"), steps=1000, log_every=50, save_every=250),
        DataConfig(side=128),
        batch_size=8,
        learning_rate=2e-3,
        schedule="steps",
    )


def jafar() -> TrainConfig:
    """JAFAR's protocol: 448 x 448, 20 epochs of batches of 2, the rate in waves, here on VOC 2012 without SBD.

    python -m experiments probe train --preset jafar --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE
    python -m experiments probe train --preset jafar --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE \\
        --source ade20k --steps 202100 --run-dir runs/probe-ade20k
    python -m experiments probe train --preset jafar --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE \\
        --source cityscapes --steps 29750 --run-dir runs/probe-cityscapes
    python -m experiments probe train --preset jafar --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE \\
        --source coco-stuff --steps STEPS --run-dir runs/probe-coco-stuff
    python -m experiments probe train --preset jafar --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE \\
        --source depth-folder --steps STEPS --run-dir runs/probe-depth

    Its README, DINOv2 S/14, mIoU on VOC: bilinear 80.70, FeatUp 81.08, JAFAR 84.44; on ADE20K 39.23, 38.82, 40.49;
    on Cityscapes 59.37, 56.06, 61.47; on COCO-Stuff's 27 groups 59.03, 60.10, 60.78, where STEPS are ten times its
    images; depth, d1: 59.92, 61.69, 62.18. Depth there is what Depth Anything V2 Small finds in the images, as maps in
    depth/train and depth/test. Unlike there, each image is mirrored by itself, not the whole batch; features are kept
    in float16; and ADE20K has 150 classes, what is none of them is ignored. Ours: not measured yet.
    """
    return TrainConfig(
        RunConfig(Path("runs/probe-voc"), steps=_VOC, log_every=100, save_every=2000),
        DataConfig("voc"),
        encoder="dinov2_s14",
        schedule="waves",
    )


def anyup() -> TrainConfig:
    """The same with a rate that falls after each epoch, as AnyUp's authors mended it.

    python -m experiments probe train --preset anyup --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE

    Their table was not at hand. Ours: not measured yet.
    """
    return replace(jafar(), schedule="epochs")


def naf() -> TrainConfig:
    """The same with a rate that falls in each step, as NAF's authors have it.

    python -m experiments probe train --preset naf --data-dir FOLDER --encoder dinov2_s14 --upsampler FILE

    Their table was not at hand. Ours: not measured yet.
    """
    return replace(jafar(), schedule="steps")


def smoke() -> TrainConfig:
    """A probe on features of a narrow random network for a few generated shapes, 2 steps.

    python -m experiments probe train --smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/probe-smoke"), steps=2, log_every=1, save_every=2),
        DataConfig(images=2, side=48),
        encoder="random",
        batch_size=math.lcm(2, jax.device_count()),
    )


def shapes_table() -> TableConfig:
    """Probes on the features of several upsamplers, those that need no weights, or any files of weights.

    python -m experiments probe table --run-dir runs/probes --upsamplers bilinear fitted runs/naf/naf.safetensors
    python -m experiments probe table --run-dir runs/depth-probes --source rooms

    Ours: see experiments/RESULTS.md.
    """
    return _table(shapes(), "runs/probes")


def jafar_table() -> TableConfig:
    """The rows of JAFAR's README that have a network here, its numbers beside them.

    python -m experiments probe table --preset jafar --data-dir FOLDER --run-dir runs/probes-voc \\
        --upsamplers bilinear fitted FOLDER/jafar.pth FOLDER/anyup.pth FOLDER/uplift.safetensors

    Ours: not measured yet.
    """
    return _table(jafar(), "runs/probes-voc")


def smoke_table() -> TableConfig:
    """Two upsamplers on features of a narrow random network.

    python -m experiments probe table --smoke --run-dir runs/smoke-table
    """
    return _table(smoke(), "runs/probes-smoke")


def _table(config: TrainConfig, run_dir: str) -> TableConfig:
    return TableConfig(replace(config, run=replace(config.run, run_dir=Path(run_dir))))


def evaluate_runs() -> EvaluateConfig:
    """The test images of the data that runs were trained on.

    python -m experiments probe evaluate --run-dir runs/probes/bilinear --run-dir runs/probes/fitted --out results
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """Two generated images, by a probe before training.

    python -m experiments probe evaluate --smoke
    """
    return EvaluateConfig()


def pictures_of_runs() -> PicturesConfig:
    """Features of test images as colours, and what probes find in them.

    python -m experiments probe pictures --run-dir runs/probes/bilinear --run-dir runs/probes/fitted --images 0 7
    """
    return PicturesConfig()


def pictures_smoke() -> PicturesConfig:
    """A generated image, by a probe before training.

    python -m experiments probe pictures --smoke --out pictures
    """
    return PicturesConfig()


def fit_short() -> FitConfig:
    """Any of the three, small, for EfficientNet-Lite0 and squares of 128 pixels, for a CPU.

    python -m experiments probe fit-upsampler --upsampler naf --run-dir runs/naf
    python -m experiments probe fit-upsampler --upsampler uplift --learning-rate 1e-3 --run-dir runs/uplift
    python -m experiments probe table --run-dir runs/probes --upsamplers bilinear runs/naf/naf.safetensors

    Ours: not measured yet.
    """
    return FitConfig(
        RunConfig(Path("runs/fit-upsampler"), steps=500, log_every=20, save_every=100), small=True, side=128, zoom=3.0
    )


def fit_uplift() -> FitConfig:
    """UPLiFT: squares of 448, features of them and of halves of them, every doubling compared; Adam, one epoch.

    python -m experiments probe fit-upsampler --preset uplift --photographs FOLDER --encoder dinov2_s14

    There images are squeezed to 448 x 448, here squares of them are taken. Assumed: mirrored at random, and each
    doubling sees the whole image. Ours: not measured yet.
    """
    return FitConfig(
        RunConfig(Path("runs/uplift"), steps=_IMAGENET // 32, log_every=50, save_every=1000),
        "uplift",
        "dinov2_s14",
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.0,
    )


def fit_naf() -> FitConfig:
    """NAF's training: squares of 518 (512 there), features of their halves to theirs, 25,000 steps of 4.

    python -m experiments probe fit-upsampler --preset naf --photographs FOLDER --encoder dinov2_s14

    Left out: the coordinates of its rotation are not scaled at random, and layers compute in float32, not in bfloat16.
    Published: below 2 hours and 8 GB on one A100. Ours: not measured yet.
    """
    run = RunConfig(Path("runs/naf"), steps=25_000, log_every=50, save_every=1000)
    return FitConfig(run, "naf", "dinov2_s14", side=518)


def fit_anyup() -> FitConfig:
    """AnyUp's training: features of 224 x 224 to those of four parts of the image at 448, 100,000 steps of 4.

    python -m experiments probe fit-upsampler --preset anyup --photographs FOLDER --encoder dinov2_s14

    The loss is the published one, with both of its consistencies at 0.1. Assumed: the guide has half of the side, as
    the input has; the second guide has other colours and noise; AdamW as for JAFAR and NAF. Ours: not measured yet.
    """
    run = RunConfig(Path("runs/anyup"), steps=100_000, log_every=50, save_every=1000)
    return FitConfig(run, "anyup", "dinov2_s14")


def fit_smoke() -> FitConfig:
    """UPLiFT for a narrow random network, 2 steps.

    python -m experiments probe fit-upsampler --smoke --run-dir runs/smoke
    """
    return FitConfig(
        RunConfig(Path("runs/fit-upsampler-smoke"), steps=2, log_every=1, save_every=2),
        "uplift",
        "random",
        small=True,
        side=64,
        batch_size=math.lcm(2, jax.device_count()),
    )
