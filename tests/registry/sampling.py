"""Operators that sample at fractional positions."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "sample",
        partial(ops.sample, padding="reflection"),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 2, 2)], interval=(-0.8, 1.7)),
        scratch=(1, 8),
    ),
    Example(
        "sample_nearest",
        partial(ops.sample, method="nearest"),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 2)], interval=(-0.8, 1.7)),
        scratch=(1, 3),
        differentiable=(0,),
        nightly=True,
    ),
]

MODULES = [
    *(
        ModuleExample(
            f"DySample_{name}",
            partial(nn.DySample, 12, scale=(2, 3), groups=2, **options),
            Inputs(lambda h, w: [(h, w, 12)]),
            nightly=name == "lp",
        )
        for name, options in {"lp": {}, "pl_dynamic": dict(style="pl", dynamic_scope=True)}.items()
    ),
]
