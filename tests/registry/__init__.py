"""Small examples of every operator and module, on which the generic tests run.

To add an operator, append to EXAMPLES of one of the files; to add a module, to MODULES. The shapes of the inputs are
functions of a low-resolution grid (h, w), so that one statement gives the small, the one-pixel and the large case.
"""

from typing import Any

from tests.registry import (
    attention,
    backbones,
    classical,
    detection,
    dkn,
    fine,
    guided,
    indices,
    kernels,
    restoration,
    sampling,
)
from tests.registry.examples import Example, ModuleExample

FILES = (attention, backbones, classical, detection, dkn, fine, guided, indices, kernels, restoration, sampling)

EXAMPLES: list[Example] = [example for file in FILES for example in file.EXAMPLES]
MODULES: list[ModuleExample] = [example for file in FILES for example in file.MODULES]


def firsts(examples: list[Any]) -> list[Any]:
    """The first example of each file that runs by default: what differs little between operators is shown on these."""
    ordinary = ([e for e in examples if e in of_file and not (e.large or e.nightly)] for of_file in map(_all, FILES))
    return [family[0] for family in ordinary if family]


def _all(file: Any) -> list[Any]:
    return [*file.EXAMPLES, *file.MODULES]
