"""An image, segmented by a network of a training run or of a published checkpoint.

Networks see colours with the mean and deviation of ImageNet, checkpoints of Segmenter colours of -1 to 1, those of
DeepLab-v2 colours of 0 to 255 minus their mean.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.data.images import read_rgb
from experiments.data.photos import middles
from experiments.engine.runs import load_runs
from experiments.engine.weights import parse, published
from experiments.segmentation.drawing import save_labels
from experiments.segmentation.evaluation import Inference, untrained
from experiments.segmentation.networks import centred, halved, normalised
from experiments.segmentation.training import TrainConfig
from jaxup import interop
from jaxup._checks import check_choice
from jaxup.files import InputError

_COLOURS = {"segm.Segmenter": halved, "mmseg.Segmenter": halved, "MS_Deeplab": centred}


@dataclass(frozen=True)
class PredictConfig:
    """Which image, and which network."""

    image: Path | None = None
    """The image file; none: a cup of coffee that scikit-image carries."""
    out: Path = Path("labels.png")
    """PNG to write, whose indices are the classes; it must not exist yet."""
    side: int | None = None
    """Only the middle of the image, so many pixels wide and high; none: all of it."""
    run_dir: Path | None = None
    """Directory of a training run, or"""
    checkpoint: Path | None = None
    """a file of a published checkpoint, .safetensors or of PyTorch, with"""
    name: str | None = None
    """the name of its class, a key of `jaxup.interop.OPERATORS`, and"""
    config: str = "{}"
    """its configuration as JSON. With neither, a tiny network as it is before training."""
    inference: Inference = field(default=Inference())


def predict(config: PredictConfig) -> None:
    """Segment an image and write its classes, by a network of a training run or of a published checkpoint."""
    if os.path.lexists(config.out):
        raise InputError(f"{config.out}: exists already")
    if config.out.suffix.lower() != ".png":
        raise InputError(f"{config.out}: expected a name that ends in .png")
    if config.side is not None and config.side < 1:
        raise InputError(f"side: expected at least 1, got {config.side}")
    if not config.out.parent.is_dir():
        raise InputError(f"{config.out.parent}: no such folder")
    network = _network(config)
    image = next(iter(middles({"image": _image(config)}, 1, config.side).values()))
    normalise = normalised if config.checkpoint is None else _COLOURS.get(config.name or "", normalised)
    method = config.inference.method(network, normalise)
    try:
        classes = np.asarray(jnp.argmax(method(image), -1))[0]
    except ValueError as error:  # too small for the network, or not of its only size
        raise InputError(f"{config.image or 'the image'}: {error}") from error
    save_labels(config.out, classes)
    counts = sorted(((int((classes == k).sum()), int(k)) for k in np.unique(classes)), reverse=True)
    print(", ".join(f"class {k}: {count / classes.size:.1%}" for count, k in counts[:8]))


def _image(config: PredictConfig) -> np.ndarray:
    if config.image is not None:
        return read_rgb(config.image)
    from skimage import data  # here, because it is slow to import

    return data.coffee()


def _network(config: PredictConfig) -> Any:
    if config.run_dir is not None and config.checkpoint is not None:
        raise InputError("run_dir: has no effect beside a checkpoint")
    if config.run_dir is not None:
        return load_runs(TrainConfig, [config.run_dir])[0].network
    if config.checkpoint is None:
        return untrained().network
    if config.name is None:
        raise InputError("name: expected the class of the checkpoint, a key of jaxup.interop.OPERATORS")
    check_choice("name", config.name, interop.OPERATORS)
    options = parse("config", config.config)
    if config.name == "MS_Deeplab" and options.get("dgf"):
        raise InputError("config: expected a network without dgf, whose filter sees other colours than the network")
    network = published(config.checkpoint, config.name, options)
    network.eval()
    return network
