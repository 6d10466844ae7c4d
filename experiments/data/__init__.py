"""RGB-D sources, the making of low-resolution depth, and the training input pipeline.

Arrays of a sample are NumPy, H x W x C and without a batch axis; batches are [B, H, W, C].
"""

from experiments.data.benchmarks import Pairs, by_family, lu, middlebury, saliency, sintel
from experiments.data.degrade import crop_to_multiple, low_resolution, scored
from experiments.data.pipeline import normalised, training_batches
from experiments.data.rgbd import RGBD, Cached, First, Motorcycle, NYUDepthV2, PairFolder, Source, data_dir
from experiments.data.scenes import HELD_OUT_SEED, Scenes

__all__ = [
    "RGBD",
    "Source",
    "Cached",
    "First",
    "Motorcycle",
    "NYUDepthV2",
    "PairFolder",
    "Pairs",
    "Scenes",
    "lu",
    "middlebury",
    "saliency",
    "sintel",
    "by_family",
    "HELD_OUT_SEED",
    "crop_to_multiple",
    "data_dir",
    "low_resolution",
    "normalised",
    "scored",
    "training_batches",
]
