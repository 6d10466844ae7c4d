"""Networks for super-resolution."""

from functools import partial

from jaxup import models
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES: list[Example] = []

MODULES = [
    ModuleExample(
        "SuperResolutionNetwork",
        partial(models.SuperResolutionNetwork, scale=4, features=6, in_features=2),
        Inputs(lambda h, w: [(h, w, 2)]),
    ),
]
