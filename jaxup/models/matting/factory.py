"""Matting networks by name: the rows of Index Networks' Tables 4 and 5, and A2U."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from flax import nnx

from jaxup import matting
from jaxup._checks import check_choice
from jaxup.models.matting.a2u import A2UMatting
from jaxup.models.matting.deep_matting import DeepMatting
from jaxup.models.matting.deeplab import DeepLabMatting
from jaxup.models.matting.mobilenet import MattingNetwork
from jaxup.models.matting.refinenet import RefineNetMatting
from jaxup.nn.indexnet import FAMILIES, VARIANTS

Row = tuple[Callable[..., nnx.Module], Mapping[str, Any]]

_INDICES: dict[str, Row] = {
    f"{family}{kind}": (MattingNetwork, dict(upsampler=family, **options))
    for family in FAMILIES
    for kind, options in VARIANTS.items()
}

MATTING_METHODS: Mapping[str, Row] = MappingProxyType(
    {
        "B1": (DeepLabMatting, {}),
        "B2": (RefineNetMatting, {}),
        "B3": (DeepMatting, {}),
        "B4": (DeepMatting, dict(upsampler="max-bilinear")),
        "B5": (MattingNetwork, dict(fusion="none", aspp=False)),
        "B6": (MattingNetwork, dict(fusion="none", aspp=False, upsampler="max-bilinear")),
        "B7": (MattingNetwork, dict(fusion="none")),
        "B8": (MattingNetwork, dict(fusion="skip", aspp=False)),
        "B9": (MattingNetwork, dict(fusion="skip")),
        "B10": (MattingNetwork, dict(aspp=False)),
        "B11": (MattingNetwork, {}),
        "B11-1.4": (MattingNetwork, dict(multiplier=1.4)),
        "B11-carafe": (MattingNetwork, dict(upsampler="max-carafe")),
        "HMI": (MattingNetwork, dict(upsampler="holistic-max-unpool")),
        **_INDICES,
        "A2U": (A2UMatting, {}),
        "A2U-unshared": (A2UMatting, dict(shared=False)),
    }
)
"""Networks of `make_matting_network`: their class and its options. Index networks are named after their family,
nonlinear ones with -nl, nonlinear ones with context with -nl-c: "m2o-nl-c" is the best of them."""


def make_matting_network(name: str, *, rngs: nnx.Rngs, **options: Any) -> Any:
    """Build a matting network by the name of its row.

    Every network is called `alpha = network(x)` with a normalised image and its trimap [B, H, W, 4] of any size, and
    gives alpha [B, H, W, 1], not cut to [0, 1].

    Args:
        name: a key of `MATTING_METHODS`: "B1" to "B11", "B11-1.4", "B11-carafe", "HMI", "A2U", "A2U-unshared", or an
            index network: a family ("holistic", "modelwise_o2o", "shared_o2o", "unshared_o2o", "m2o"), alone or with
            "-nl" or "-nl-c".
        options: of the class, in the place of those that belong to the name.
        rngs: source of the initial parameters.

    Returns:
        The network, in training mode as any new module.

    Raises:
        ValueError: an unknown name, or a wrong option.

    Example:
        >>> network = nnx.eval_shape(lambda: make_matting_network("B4", features=4, rngs=nnx.Rngs(0)))
        >>> network.resampling.method, network.resampling.features
        ('max-bilinear', (4, 8, 16, 32, 32))

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Tables 4 and 5; Dai, Lu, Shen, Learning Affinity-Aware Upsampling for
        Deep Image Matting, CVPR 2021.
    """
    check_choice("name", name, MATTING_METHODS)
    build, usual = MATTING_METHODS[name]
    return build(**{**usual, **options}, rngs=rngs)


def processing(network: nnx.Module) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """What the official code of a network does to image and trimap before it, and to its output after it."""
    if isinstance(network, A2UMatting):
        return matting.a2u_input, matting.a2u_alpha
    plus_one = isinstance(network, DeepLabMatting | RefineNetMatting)
    return partial(matting.indexnet_input, plus_one=plus_one), matting.indexnet_alpha
