"""Fine-grained neighbours (ReSFU) and windows of any two grids (AnyUp)."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "fine_neighbour_attention",
        partial(ops.fine_neighbour_attention, scale=(2, 3), kernel_size=3),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 9)]),
        scratch=(4, 6.5),  # 25 weights of cells per pixel beside 8 channels
    ),
    Example(
        "paired_difference_conv",
        partial(ops.paired_difference_conv, dilation=(1, 2), groups=2),
        Inputs(lambda h, w: [(h, w, 6), (h, w, 6)], tables=[(3, 3, 3, 4)]),
        scratch=(1.5, 3),
    ),
    Example(
        "window_attend",
        partial(ops.window_attend, window_ratio=0.3, num_heads=2),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (h, w, 8), (h, w, 6)]),
        scratch=(2.2, 5.5),
    ),
]

MODULES = [
    ModuleExample(
        "ReSFU",
        partial(
            nn.ReSFU,
            5,
            3,
            scale=(2, 3),
            embedding_features=8,
            norm_groups=4,
            radius=2,
            subsample=2,
            form="official",
        ),
        Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 3)]),
    ),
    ModuleExample(
        "AnyUp",
        partial(nn.AnyUp, qk_features=16, unify_kernel_size=3, unify_features=8, num_heads=2, window_ratio=0.3),
        Inputs(lambda h, w: [(h, w, 5), (3 * h, 2 * w, 3)]),
        large=True,
    ),
]
