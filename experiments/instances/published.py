"""Published networks on COCO: which numbers their classes have, and what their files are of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.instances import Source
from experiments.engine.config import RunConfig
from experiments.engine.runs import Run
from experiments.engine.trained import Trained
from experiments.engine.weights import parse, published
from experiments.instances.data import DataConfig
from experiments.instances.networks import NetworkConfig
from experiments.instances.training import TrainConfig
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models.segmentation import PanopticFPN

_MMDET: Mapping[str, Any] = {
    "backbone": {"type": "ResNet", "depth": 50},
    "roi_head": {"bbox_head": {"num_classes": 80}},
}
CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "maskrcnn_resnet50_fpn": {"num_classes": 91, "norm_epsilon": 0.0},
        "mmdet.MaskRCNN": _MMDET,
        "mmdet.PanopticFPN": {**_MMDET, "semantic_head": {"num_stuff_classes": 53}},
    }
)
"""Of the files that are published for COCO, by the name of their class in `jaxup.interop.OPERATORS`."""


@dataclass(frozen=True)
class CheckpointConfig:
    """A published network in the place of training runs, tested on COCO."""

    checkpoint: Path | None = None
    """Its file, .safetensors or of PyTorch."""
    name: str = "maskrcnn_resnet50_fpn"
    """The name of its class: maskrcnn_resnet50_fpn (torchvision), mmdet.MaskRCNN or mmdet.PanopticFPN, which is tested
    on panoptic maps."""
    config: str | None = None
    """Its configuration as JSON, see `jaxup.interop`; none: that of the files for COCO, with ResNet-50."""

    def open(self, data_dir: Path | None) -> list[Run]:
        """The network, for the classes that COCO's folder there has; none without a file.

        Raises:
            InputError: there is no such file, it is of something else, or has other classes.
        """
        if self.checkpoint is None:
            if self != CheckpointConfig():
                raise InputError("name, config: have no effect without a checkpoint")
            return []
        check_choice("name", self.name, CONFIGS)
        options = CONFIGS[self.name] if self.config is None else parse("config", self.config)
        network: Any = published(self.checkpoint, self.name, options)
        network.eval()
        panoptic = isinstance(network, PanopticFPN)
        data = DataConfig("coco-panoptic" if panoptic else "coco", data_dir)
        model = NetworkConfig("panoptic_fpn" if panoptic else "mask_rcnn")
        numbered = Numbered(network, classes(network, data.open("test")))
        return [Run(self.checkpoint.stem, TrainConfig(RunConfig(Path()), model, data), Trained(numbered, 0))]


class Numbered(nnx.Module):
    """A network whose labels are changed to the classes of the data; what has none is not found.

    Args:
        network: Mask R-CNN or Panoptic FPN.
        labels: for each of its classes that of the data, or -1.
    """

    def __init__(self, network: Any, labels: tuple[int, ...]):
        self.network, self.labels = network, labels

    @property
    def whole_pixels(self) -> bool:
        """How its masks are pasted."""
        return bool(getattr(self.network, "instances", self.network).convention.whole_pixels)

    def __call__(self, x: jax.Array, limits: jax.Array) -> dict[str, jax.Array]:
        """The detections in images."""
        found: dict[str, jax.Array] = self.network(x, limits)
        table = jnp.array((*self.labels, -1), jnp.int32)  # -1, which is none, is its last entry
        return found | {"labels": table[found["labels"]]}


def classes(network: Any, source: Source) -> tuple[int, ...]:
    """For each class of a published network that of a source of COCO, or -1.

    torchvision's networks have a class for each number that COCO gives, from 1 on, of which ten are not used; others
    have the classes of the data in the order of these numbers.

    Raises:
        InputError: it has other classes.
    """
    instances = getattr(network, "instances", network)
    count, things = instances.num_classes, len(source.things)
    stuff = getattr(network, "stuff_classes", 0)
    if stuff not in (0, len(source.stuff)):
        raise InputError(f"checkpoint: expected {len(source.stuff)} classes of stuff, got {stuff}")
    if instances.convention_name == "torchvision":
        place = {number: n for n, number in enumerate(source.ids)}
        if max(place) > count:
            raise InputError(f"checkpoint: expected classes for the numbers up to {max(place)}, got {count}")
        return tuple(place.get(number, -1) for number in range(1, count + 1))
    if count != things:
        raise InputError(f"checkpoint: expected {things} classes, as many as the data have, got {count}")
    return tuple(range(things))
