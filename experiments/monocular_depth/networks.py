"""Which network, and what it makes of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.engine import runs
from experiments.engine.weights import Published
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.matting import MEAN, STD
from jaxup.models.monocular_depth import MONOCULAR_DEPTH_METHODS, FastDepth, make_monocular_depth_network
from jaxup.ops import resize

LEAST = 1e-3
"""Metres; predictions below count as this: the published networks may give zeros, or less."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "fastdepth-nnconv5"
    """fastdepth-nnconv5, fastdepth-carafe, either with -p- for max pooling, fastdepth-skip-add, fastdepth-skip-concat,
    fastdepth- and a family of index networks: holistic, modelwise_o2o, shared_o2o, unshared_o2o or m2o, also with -nl
    nonlinear, with -nl-c with context, too; hu, hu-indexnet, hu-senet154 or hu-densenet161."""
    resampling: str | None = None
    """Of FastDepth, any other pair of down- and upsampling: a name of `jaxup.models.resampling.RESAMPLINGS`."""
    features: int | None = None
    """Of FastDepth, the channels of its coarsest map, a multiple of 32, to which MobileNet's widths are in proportion.
    None: 1024, as published."""
    backbone: str | None = None
    """In the place of the published one: resnet18 to resnet152 or efficientnet_lite0; for Hu also senet154 and
    densenet161. FastDepth has pooling, index networks and added skips with mobilenet_v1 only."""

    def build(self, seed: int) -> Any:
        """The network with its initial weights."""
        check_choice("model", self.model, MONOCULAR_DEPTH_METHODS)
        chosen = {"resampling": self.resampling, "features": self.features, "backbone": self.backbone}
        options = {name: value for name, value in chosen.items() if value is not None}
        for name in ("resampling", "features"):
            if not self.small and name in options:
                raise InputError(f"{name}: has no effect on {self.model}")
        return make_monocular_depth_network(self.model, **options, rngs=nnx.Rngs(seed))

    @property
    def small(self) -> bool:
        """Whether it is a FastDepth."""
        return MONOCULAR_DEPTH_METHODS[self.model][0] is FastDepth

    @property
    def published(self) -> bool:
        """Whether it is as published."""
        return self.resampling is None and self.features in (None, 1024) and self.backbone is None

    @property
    def label(self) -> str:
        """What tables call it."""
        width = None if self.features is None else f"{self.features} features"
        return ", ".join(part for part in (self.model, self.resampling, self.backbone, width) if part is not None)

    def prepared(self, image: jax.Array) -> jax.Array:
        """Colours of 0 to 1 as the network wants them: FastDepth as they are, Hu by ImageNet's mean and deviation."""
        if self.backbone == "efficientnet_lite0":
            return (255 * image - 127) / 128
        if self.small:
            return image
        return (image - MEAN[None, None, None]) / STD[None, None, None]

    @property
    def usual_weights(self) -> Published:
        """The class of published weights for its backbone."""
        options = MONOCULAR_DEPTH_METHODS[self.model][1]
        name = self.backbone or options.get("backbone", "mobilenet_v1" if self.small else "resnet50")
        special = {"mobilenet_v1": "imagenet.MobileNet", "efficientnet_lite0": "efficientnet-lite0"}
        return Published(special.get(name, name), {})

    def costs(self, size: tuple[int, int]) -> dict[str, Any]:
        """Parameters, and 2^30 multiply-adds for an image of this size: see `runs.costs`."""
        parameters, multiply_adds = runs.costs(lambda: self.build(0), (1, *size, 3))
        return {"parameters": parameters, "GFLOPs": multiply_adds / 2**30}


def depth_of(network: Callable[[jax.Array], jax.Array], x: jax.Array, like: jax.Array) -> jax.Array:
    """What a network makes of prepared images, float32, brought to the size of `like` as it interpolates."""
    y = network(x).astype(jnp.float32)
    if y.shape == like.shape:
        return y
    return resize(y, size=like.shape[1:3], method="bilinear", align_corners=getattr(network, "align_corners", False))
