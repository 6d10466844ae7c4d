"""Encoder-decoder networks and their pairs of downsampling and upsampling stages."""

from functools import partial

from jaxup import models
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES: list[Example] = []

MODULES = [
    ModuleExample(
        "ReconstructionNetwork",
        partial(models.ReconstructionNetwork, 2, method="holistic", widths=(3, 4)),
        Inputs(lambda h, w: [(4 * h, 4 * w, 2)]),
    ),
]
