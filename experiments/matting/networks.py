"""Which network, what it is given and makes, and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.engine import runs
from experiments.engine.trained import Trained
from jaxup import matting
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models.matting import (
    MATTING_METHODS,
    A2UMatting,
    DeepMatting,
    make_matting_network,
)
from jaxup.models.matting.factory import processing

NORMALISATIONS: Mapping[str, tuple[str, str]] = {
    "m2o-nl-c-sigmoid": ("sigmoid", "sigmoid"),
    "m2o-nl-c-softmax": ("softmax", "softmax"),
    "m2o-nl-c-softmax+sigmoid": ("softmax+sigmoid", "softmax"),
}
"""Of the index maps of m2o-nl-c, in the encoder and in the decoder: the rows of Table 6 beside the usual one."""
MODELS = (*MATTING_METHODS, *NORMALISATIONS)
"""Names of networks."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "B11"
    """B1 to B11, B11-1.4, B11-carafe, HMI, A2U, A2U-unshared, or index networks: holistic, modelwise_o2o, shared_o2o,
    unshared_o2o, m2o, nonlinear with -nl, and with context with -nl-c; m2o-nl-c also with -sigmoid, -softmax and
    -softmax+sigmoid."""
    width: float = 1.0
    """Factor of all channels, of B1 and B2 those of the encoder. The papers have 1."""
    backbone: str | None = None
    """efficientnet_lite0 in the place of mobilenet_v2; None: what the network is published with."""

    def check(self) -> None:
        """Refuses what is not there."""
        check_choice("model", self.model, MODELS)
        if not self.width > 0:
            raise InputError(f"width: expected a number above 0, got {self.width}")
        if self.backbone is not None:
            check_choice("backbone", self.backbone, ("mobilenet_v2", "efficientnet_lite0"))
            if self._counted:
                raise InputError(f"backbone: has no effect on {self.model}")

    @property
    def _counted(self) -> bool:
        """Whether widths are given as a number of channels; networks on MobileNetV2 have a multiplier."""
        return MATTING_METHODS[_row(self.model)][0] in (A2UMatting, DeepMatting)

    def build(self, seed: int) -> Any:
        """The network with its initial weights."""
        self.check()
        name, options = _row(self.model), dict[str, Any]()
        if self._counted:
            options["features"] = 2 * max(1, round(32 * self.width))
        else:
            options["multiplier"] = self.width * MATTING_METHODS[name][1].get("multiplier", 1.0)
        if self.model in NORMALISATIONS:
            encoder, decoder = NORMALISATIONS[self.model]
            options |= {"encoder_normalization": encoder, "decoder_normalization": decoder}
        if self.backbone is not None:
            options["backbone"] = self.backbone
        return make_matting_network(name, **options, rngs=nnx.Rngs(seed))

    @property
    def label(self) -> str:
        """What tables call it."""
        parts = (self.model, "" if self.width == 1 else f"width {self.width:g}", self.backbone or "")
        return ", ".join(part for part in parts if part)


def _row(model: str) -> str:
    return "m2o-nl-c" if model in NORMALISATIONS else model


def encoder_parts(network: Any) -> tuple[str, ...]:
    """What of a network has weights of a published backbone, by name."""
    return ("stem", "stages") if isinstance(network, A2UMatting) else ("encoder",)


def loss_margin(config: NetworkConfig) -> float:
    """What the code of a network adds to the number of unknown pixels in its losses."""
    return 1.0 if config.model.startswith("A2U") else 0.0


def network_input(image: jax.Array, trimap: jax.Array) -> jax.Array:
    """Colours and trimap of 0 to 1 as networks take them, [B, H, W, 4]."""
    mean, deviation = (jnp.asarray(v).reshape(1, 1, 1, 3) for v in (matting.MEAN, matting.STD))
    return jnp.concatenate([(image - mean) / deviation, trimap], axis=3)


def as_method(network: Trained) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A trained network as a function of an image and its trimap, to alpha of 0 to 255 as its official code has it."""
    run, (before, after) = runs.jitted(network), processing(network.network)
    return lambda image, trimap: after(np.asarray(run(before(image, trimap)[None]))[0, ..., 0], trimap)


def costs(config: NetworkConfig, size: int = 224) -> dict[str, Any]:
    """Parameters, and 2^30 multiply-adds, as the paper counts them, for an image of this size: see `runs.costs`."""
    parameters, multiply_adds = runs.costs(lambda: config.build(0), (1, size, size, 4))
    return {"parameters": parameters, "GFLOPs": multiply_adds / 2**30}
