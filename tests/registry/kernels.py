"""Operators that predict a kernel per pixel: CARAFE, SAPA, FADE."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "reassemble",
        partial(ops.reassemble, scale=2, kernel_size=5, groups=2),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 2 * w, 2, 25)]),
        scratch=(0.1, 2.5),
    ),
    Example(
        "reassemble_one_group",
        partial(ops.reassemble, scale=(3, 2), kernel_size=3),
        Inputs(lambda h, w: [(h, w, 8), (3 * h, 2 * w, 9)]),
        scratch=(0.2, 3),
        nightly=True,
    ),
    Example(
        "reassemble_reflect",
        partial(ops.reassemble, scale=1, kernel_size=5, border="reflect"),
        Inputs(lambda h, w: [(h, w, 8), (h, w, 25)]),
        scratch=(1.2, 3.5),  # the padded map, which is as large as the input
    ),
    Example(
        "similarity_upsample",
        partial(ops.similarity_upsample, scale=(2, 3), kernel_size=3),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (h, w, 8), (h, w, 6)]),
        scratch=(2.1, 3.6),  # nine weights per pixel beside six channels: 0.8 and 1 at 256 channels
    ),
]

MODULES = [
    *(
        ModuleExample(
            f"SAPA_{query}",
            partial(nn.SAPA, 5, 3, 4, scale=(2, 3), kernel_size=3, embedding_features=6, query=query),
            Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 3)]),
            nightly=query != "gate",
        )
        for query in ("guide", "concat", "gate")
    ),
    ModuleExample(
        "SemiShift",
        partial(nn.SemiShift, 5, 3, 4, embedding_features=6),
        Inputs(lambda h, w: [(h, w, 5), (2 * h, 2 * w, 3)]),
        nightly=True,
    ),
    *(
        ModuleExample(
            f"FADE_{name}",
            partial(nn.FADE, 5, 5, scale=(2, 3), kernel_size=3, embedding_features=6, **options),
            Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 5)]),
            nightly=name != "gated",
        )
        for name, options in {"gated": {}, "ungated_lite": dict(gated=False, lite=True)}.items()
    ),
    ModuleExample(
        "Iterated",
        partial(nn.Iterated, build=partial(nn.SAPA, 5, 3, scale=2, kernel_size=3, embedding_features=6), scale=4),
        Inputs(lambda h, w: [(h, w, 5), (4 * h, 4 * w, 3)]),
        nightly=True,
    ),
    ModuleExample(
        "CARAFE",
        partial(nn.CARAFE, 6, scale=(2, 3), kernel_size=3, groups=2, compressed_features=4),
        Inputs(lambda h, w: [(h, w, 6)]),
    ),
]
