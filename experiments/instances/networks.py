"""Which network finds the objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.instances import Source
from experiments.engine.trained import Trained
from experiments.segmentation.networks import normalised
from jaxup._checks import check_choice, check_int
from jaxup.files import InputError
from jaxup.models.backbones import ResNet
from jaxup.models.segmentation import MaskRCNN, PanopticFPN

_own = partial(ResNet, depth=(1,) * 4, bottleneck=False)
_OWN = {
    "small": partial(_own, widths=(32, 64, 128, 256), stem_features=32),
    "tiny": partial(_own, widths=(6, 8, 10, 12), stem_features=4),
}
NETWORKS: Mapping[str, Callable[..., Any]] = {"mask_rcnn": MaskRCNN, "panoptic_fpn": PanopticFPN}


@dataclass(frozen=True)
class NetworkConfig:
    """Which network; all else is as in mmdetection, whose networks the paper has."""

    model: str = "mask_rcnn"
    """mask_rcnn, or panoptic_fpn for stuff as well."""
    backbone: str = "resnet50"
    """resnet18 to resnet152; small: one of ten layers for generated scenes; tiny: one for tests."""
    upsampler: str | None = None
    """A name of `jaxup.nn.UPSAMPLERS`, of the pyramid; None: nearest, as it was published."""
    width: int = 256
    """Channels of the pyramid and the mask head; the box head has four times as many, and the semantic branch half."""
    anchor_scale: float = 8.0
    """Sides of anchors in strides of their map."""
    proposals: int = 1000
    """Proposals of an image in evaluation."""

    def check(self) -> None:
        """Refuses what is not there."""
        check_choice("model", self.model, NETWORKS)
        check_int("width", self.width, 2)
        check_int("proposals", self.proposals)
        if not self.anchor_scale > 0:
            raise InputError(f"anchor_scale: expected a number above 0, got {self.anchor_scale}")

    def build(self, source: Source, seed: int) -> Any:
        """The network for the classes of a source, with its initial weights."""
        self.check()
        options: dict[str, Any] = {}
        if self.model == "panoptic_fpn":
            if not source.stuff:
                raise InputError("source: expected one with stuff for panoptic_fpn, as coco-panoptic")
            options = {"stuff_classes": len(source.stuff), "semantic_features": self.width // 2}
        return NETWORKS[self.model](
            len(source.things),
            backbone=_OWN.get(self.backbone, self.backbone),
            features=self.width,
            hidden=4 * self.width,
            mask_layers=(self.width,) * 4,
            mask_features=self.width,
            anchor_scale=self.anchor_scale,
            upsampler=self.upsampler or "nearest",
            convention="mmdet",
            proposals=self.proposals,
            **options,
            rngs=nnx.Rngs(seed),
        )

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.model}, {self.backbone}, {self.upsampler or 'nearest'}"


def detect(model: Trained, images: jax.Array, limits: jax.Array) -> dict[str, jax.Array]:
    """What a network finds in images uint8 [B, H, W, 3]; always this one function, so that it is compiled once."""
    return model.network(seen(images, limits), limits)


def seen(images: jax.Array, limits: jax.Array) -> jax.Array:
    """Images uint8 [B, H, W, 3] as networks see them: normalised, and zero where they are padding, as in both codes."""
    rows, columns = (
        jnp.arange(n, dtype=limits.dtype)[None] < limits[:, k, None] for k, n in enumerate(images.shape[1:3])
    )
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], normalised(images), 0)
