"""Networks for super-resolution, reconstruction and denoising."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxup import models
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES: list[Example] = []


def evaluated(cls: Any, *, dtype: Any = jnp.float32, rngs: nnx.Rngs, **options: Any) -> nnx.Module:
    """In evaluation mode: in training mode no gradient reaches a bias before a batch normalisation."""
    network = cls(dtype=dtype, rngs=rngs, **options)
    network.eval()
    return network


MODULES = [
    ModuleExample(
        "SuperResolutionNetwork",
        partial(models.SuperResolutionNetwork, scale=4, features=6, in_features=2),
        Inputs(lambda h, w: [(h, w, 2)]),
        large=True,
    ),
    ModuleExample(
        "ReconstructionNetwork",
        partial(models.ReconstructionNetwork, 2, method="holistic", widths=(3, 4)),
        Inputs(lambda h, w: [(4 * h, 4 * w, 2)]),
        large=True,
    ),
    ModuleExample(
        "DnCNN",
        partial(evaluated, models.DnCNN, features=6, layers=4),
        Inputs(lambda h, w: [(2 * h, 2 * w, 1)]),
        nightly=True,  # plain convolutions
    ),
    ModuleExample(
        "DnCNNSegNet",
        partial(evaluated, models.DnCNNSegNet, features=3, method="holistic"),
        Inputs(lambda h, w: [(8 * h, 8 * w, 1)]),
        nightly=True,  # seventeen layers take long to compile
    ),
]
