"""Depth networks by the names of the rows of Index Networks' Tables 10 and 11, and of the papers that these compare."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.models.monocular_depth.fastdepth import FastDepth
from jaxup.models.monocular_depth.hu import HuDepthNetwork
from jaxup.nn.indexnet import FAMILIES, VARIANTS

MONOCULAR_DEPTH_METHODS: Mapping[str, tuple[Callable[..., nnx.Module], Mapping[str, Any]]] = MappingProxyType(
    {
        "fastdepth-nnconv5": (FastDepth, {}),
        "fastdepth-p-nnconv5": (FastDepth, dict(resampling="max-nearest")),
        "fastdepth-carafe": (FastDepth, dict(resampling="conv-carafe")),
        "fastdepth-p-carafe": (FastDepth, dict(resampling="max-carafe")),
        **{
            f"fastdepth-{family}{kind}": (FastDepth, dict(resampling=family, **options))
            for family in FAMILIES
            for kind, options in VARIANTS.items()
        },
        "fastdepth-skip-add": (FastDepth, dict(skip="add")),
        "fastdepth-skip-concat": (FastDepth, dict(skip="concat")),
        "hu": (HuDepthNetwork, {}),
        "hu-indexnet": (HuDepthNetwork, dict(upsampler="indexnet")),
        "hu-senet154": (HuDepthNetwork, dict(backbone="senet154")),
        "hu-densenet161": (HuDepthNetwork, dict(backbone="densenet161")),
    }
)
"""Networks of `make_monocular_depth_network`: their class and its options. Index networks are linear without a suffix,
nonlinear with "-nl", and nonlinear with context with "-nl-c"."""


def make_monocular_depth_network(name: str, *, rngs: nnx.Rngs, **options: Any) -> Any:
    """Build a depth network by name.

    Args:
        name: a key of `MONOCULAR_DEPTH_METHODS`, in small letters or as the tables print it: "FastDepth-NNConv5",
            "FastDepth-P-NNConv5", "FastDepth-carafe", "FastDepth-P-carafe"; of index networks "fastdepth-holistic" and
            so on for "modelwise_o2o", "shared_o2o", "unshared_o2o" and "m2o", also with "-nl" and "-nl-c";
            "fastdepth-skip-add", "fastdepth-skip-concat"; "hu", on ResNet-50, "hu-indexnet", "hu-senet154" and
            "hu-densenet161".
        options: of the class, in the place of those that belong to the name.
        rngs: source of the initial parameters.

    Returns:
        The network, in training mode as any new module.

    Raises:
        ValueError: an unknown name, or a wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> run = lambda x: make_monocular_depth_network("FastDepth-NNConv5", features=32, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 32, 64, 3))).shape
        (1, 32, 64, 1)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Tables 10 and 11. The classes name the papers.
    """
    known = name.lower() if isinstance(name, str) else name
    check_choice("name", known, MONOCULAR_DEPTH_METHODS)
    build, usual = MONOCULAR_DEPTH_METHODS[known]
    return build(**{**usual, **options}, rngs=rngs)
