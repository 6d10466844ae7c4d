"""Operators with one source cell and an index per pixel: Index Networks, max unpooling."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "indexed_pool",
        partial(ops.indexed_pool, scale=(2, 3)),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (2 * h, 3 * w, 8)]),
        scratch=(1, 1),
    ),
    Example(
        "indexed_upsample",
        partial(ops.indexed_upsample, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 1)]),
        scratch=(1, 2.5),  # the gradient of the one map is a sum over channels
    ),
    Example(
        "max_unpool",
        lambda x, y: ops.max_unpool(ops.max_pool(x, scale=2).values + y, ops.max_pool(x, scale=2).indices, scale=2),
        Inputs(lambda h, w: [(2 * h, 2 * w, 8), (h, w, 8)]),
        scratch=(2, 4),
    ),
]

MODULES = [
    ModuleExample(
        "IndexNetwork_m2o",
        partial(nn.IndexNetwork, 4, family="m2o", context=False),
        Inputs(lambda h, w: [(2 * h, 2 * w, 4)]),
    ),
    *(
        ModuleExample(
            f"IndexNetUpsample_{family}",
            partial(nn.IndexNetUpsample, 4, 4, scale=(2, 3), family=family),
            Inputs(lambda h, w: [(h, w, 4), (2 * h, 3 * w, 4)]),
            nightly=family != "holistic",
        )
        for family in ("holistic", "shared_o2o")
    ),
    ModuleExample(
        "IndexedUpsample",
        partial(nn.IndexedUpsample, 6, 5, kernel_size=3, separable=True),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 2 * w, 2), (2 * h, 2 * w, 1)]),
    ),
    ModuleExample(
        "ASPP",
        partial(nn.ASPP, 4, 5, branch_features=3, dilations=(1, 2)),
        Inputs(lambda h, w: [(h, w, 4)]),
        nightly=True,
    ),
    ModuleExample(
        "MaxUnpool",
        partial(nn.MaxUnpool, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 3 * w, 4)]),
    ),
]
