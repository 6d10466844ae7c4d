"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.data.instances_batches import Augmentation
from experiments.engine.config import RunConfig
from experiments.engine.optim import Decayed
from experiments.instances.data import DataConfig
from experiments.instances.evaluation import EvaluateConfig
from experiments.instances.memory import MemoryConfig
from experiments.instances.networks import NetworkConfig
from experiments.instances.pictures import PicturesConfig
from experiments.instances.table import TableConfig
from experiments.instances.training import TrainConfig

_EPOCH = 117_266 // 16  # images with objects over images in a batch


def shapes() -> TrainConfig:
    """Panoptic FPN or Mask R-CNN in small, from random weights, on generated scenes of 96 x 96 pixels: some 3
    to 8 minutes of one CPU core, and one more to compile. Panoptic FPN has both halves of Table XII, AP and panoptic
    quality.

    python -m experiments instances train --run-dir runs/panoptic --upsampler resfu
    python -m experiments instances train --run-dir runs/instances --upsampler resfu --model mask_rcnn
    python -m experiments instances evaluate --run-dir runs/panoptic --images 200

    Ours, 2000 steps of 4 images, three seeds, mask AP and PQ: nearest 2.6, 13.5; bilinear 2.8, 14.3; CARAFE 4.3, 18.3;
    ReSFU 3.6, 16.8 (RESULTS.md).
    """
    return TrainConfig(
        RunConfig(Path("runs/instances-shapes"), steps=1000, log_every=50, save_every=100),
        NetworkConfig("panoptic_fpn", "small", width=48, anchor_scale=3.0, proposals=200),
        DataConfig(images=1000, size=(96, 96)),
        augmentation=Augmentation(None, padded=(96, 96), objects=16),
        batch_size=8,
        optimizer=Decayed(learning_rate=2e-3, warmup=100, weight_decay=1e-4),
        anchors_drawn=128,
        boxes_drawn=32,
    )


def coco_1x() -> TrainConfig:
    """Mask R-CNN or Panoptic FPN with ResNet-50 on COCO: 12 epochs, a tenth as fast from the 9th and the 12th on.

    python -m experiments instances train --preset coco-1x --data-dir FOLDER --upsampler resfu \\
        --backbone-weights resnet50.pth
    python -m experiments instances train --preset coco-1x --data-dir FOLDER --upsampler resfu \\
        --backbone-weights resnet50.pth --model panoptic_fpn --source coco-panoptic --run-dir runs/panoptic-fpn-coco

    ReSFU's paper, Table XII, mask AP: nearest 34.7, CARAFE 35.4, DySample 35.5, ReSFU 36.1; PQ: nearest 40.2, CARAFE
    40.8, DySample 41.1, ReSFU 41.5. The schedule is that of mmdetection: SGD of 0.02 for batches of 16, from weights of
    ImageNet whose norms are fixed, with sides of 800 and at most 1333 pixels. Unlike there, of the backbone only the
    stem is frozen, and not its first stage, weight decay leaves out biases and norms, and images of all shapes are
    padded to one square. Ours: not measured yet.
    """
    return TrainConfig(
        RunConfig(Path("runs/mask-rcnn-coco"), steps=12 * _EPOCH, log_every=50, save_every=1000),
        data=DataConfig("coco"),
        optimizer=Decayed(
            "sgd",
            0.02,
            warmup=500,
            drops=(8 * _EPOCH, 11 * _EPOCH),
            weight_decay=1e-4,
            multipliers=(("stem", 0.0),),
        ),
        fixed_norms=True,
    )


def smoke() -> TrainConfig:
    """A tiny Panoptic FPN on generated scenes, 2 steps, to show that everything works; most of the time it compiles.

    python -m experiments instances train --smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/instances-smoke"), steps=2, log_every=1, save_every=2),
        NetworkConfig("panoptic_fpn", "tiny", width=8, anchor_scale=2.0, proposals=30),
        DataConfig(images=4, size=(48, 64)),
        augmentation=Augmentation(None, padded=(64, 64), objects=8),
        batch_size=math.lcm(2, jax.device_count()),
        anchors_drawn=32,
        boxes_drawn=16,
    )


def shapes_table() -> TableConfig:
    """A network in small on generated scenes with all upsamplers of the paper's Table XII.

    python -m experiments instances table --run-dir runs/table --upsamplers nearest bilinear carafe resfu --seed 1

    Ours: see `train`, and experiments/RESULTS.md.
    """
    return replace(_table(shapes(), "runs/instances-table"), test_images=200)


def coco_1x_table() -> TableConfig:
    """The left half of Table XII, and the right one.

    python -m experiments instances table --preset coco-1x --data-dir FOLDER --backbone-weights resnet50.pth
    python -m experiments instances table --preset coco-1x --data-dir FOLDER --backbone-weights resnet50.pth \\
        --model panoptic_fpn --source coco-panoptic --run-dir runs/panoptic-fpn-table

    Ours: not measured yet.
    """
    return _table(coco_1x(), "runs/mask-rcnn-table")


def smoke_table() -> TableConfig:
    """Two upsamplers in a tiny network.

    python -m experiments instances table --smoke --run-dir runs/smoke-table
    """
    return replace(_table(smoke(), "runs/instances-smoke-table"), upsamplers=("nearest", "bilinear"), test_images=2)


def _table(config: TrainConfig, run_dir: str) -> TableConfig:
    return TableConfig(replace(config, run=replace(config.run, run_dir=Path(run_dir))))


def evaluate_runs() -> EvaluateConfig:
    """The test images of the data that runs were trained on; of COCO those of val2017.

    python -m experiments instances evaluate --run-dir runs/a --run-dir runs/b --out runs/comparison --pictures
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """One generated scene, by a tiny network before training.

    python -m experiments instances evaluate --smoke
    """
    return EvaluateConfig(images=1)


def pictures_of_runs() -> PicturesConfig:
    """Test images with what trained networks find in them.

    python -m experiments instances pictures --run-dir runs/table/nearest --run-dir runs/table/resfu --images 0 7
    """
    return PicturesConfig()


def pictures_smoke() -> PicturesConfig:
    """A generated scene, by a tiny network before training.

    python -m experiments instances pictures --smoke --out pictures
    """
    return PicturesConfig()


def memory() -> MemoryConfig:
    """Mask R-CNN with ResNet-50 for 2 images of 512 x 512 pixels, with the upsamplers of Table XII.

    python -m experiments instances memory
    """
    return MemoryConfig()


def panoptic_memory() -> MemoryConfig:
    """The same of Panoptic FPN.

    python -m experiments instances memory --preset panoptic-fpn
    """
    return MemoryConfig(NetworkConfig("panoptic_fpn"))


def memory_smoke() -> MemoryConfig:
    """A tiny network with one upsampler.

    python -m experiments instances memory --smoke
    """
    network = NetworkConfig("mask_rcnn", "tiny", width=8, anchor_scale=2.0)
    return MemoryConfig(network, ("nearest",), (64, 64), objects=4, anchors_drawn=32, boxes_drawn=16)
