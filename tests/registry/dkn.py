"""Deformable kernel networks and their operator, and deep multi-scale guidance."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxup import models, ops
from tests.registry.examples import Example, Inputs, ModuleExample


def evaluated_dkn(*, dtype: Any = jnp.float32, rngs: nnx.Rngs) -> models.DKN:
    """In evaluation mode: in training mode, gradients before a batch normalisation are small differences of large sums,
    the more as DKN pads the image with 49 rows and columns. The example of FDKN is in training mode.
    """
    network = models.DKN(widths=(16, 8), residual=False, dtype=dtype, rngs=rngs)
    network.eval()
    return network


EXAMPLES = [
    Example(
        "deformable_average",
        partial(ops.deformable_average, window_size=3, grid="compressed"),
        Inputs(lambda h, w: [(h, w, 2), (h, w, 9), (h, w, 9, 2)], interval=(-1.8, 1.7)),
        scratch=(2, 4),
    ),
]

MODULES = [
    ModuleExample(
        "DKN",
        evaluated_dkn,
        Inputs(lambda h, w: [(h, w, 1), (2 * h, 2 * w, 3)]),
        nightly=True,
    ),
    ModuleExample(
        "FDKN",
        partial(models.FDKN, widths=(16, 8), window_size=5),
        Inputs(lambda h, w: [(h, w, 1), (3 * h, 3 * w, 3)]),
        large=True,
    ),
    ModuleExample(
        "DMSG",
        partial(models.DMSG, scale=2),
        Inputs(lambda h, w: [(h, w, 1), (2 * h, 2 * w, 3)]),
        nightly=True,
    ),
]
