"""Fine-grained neighbours (ReSFU) and windows of any two grids (AnyUp)."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample
from tests.registry.restoration import evaluated

# Long to compile; tests/nn/test_features.py has what matters.
nightly = partial(ModuleExample, inputs=Inputs(lambda h, w: [(h, w, 8), (3 * h, 2 * w, 3)]), nightly=True)

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
    Example(
        "neighbourhood_attend",
        partial(ops.neighbourhood_attend, kernel_size=3, num_heads=2),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (h, w, 8), (h, w, 6)]),
        scratch=(2.2, 5.5),
        nightly=True,
    ),
    Example(
        "anisotropic_bilateral_upsample",
        lambda *xs: ops.anisotropic_bilateral_upsample(*xs, radius=1),
        Inputs(lambda h, w: [(h, w, 6), (2 * h, 3 * w, 3), *[(h, w, 1)] * 4], interval=(0.6, 1.4)),
        scratch=(4, 9),
        large=True,
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
    nightly(
        "UPLiFT",
        partial(evaluated, nn.UPLiFT, in_features=8, encoder=nn.UPSAMPLERS["uplift"].small["encoder"], neighbours=5),
    ),
    nightly("NAF", partial(nn.NAF, features=16, kernel_size=3, depth=1)),
    nightly("JAFAR", partial(nn.JAFAR, 8, qk_features=8, num_heads=2)),
    nightly("LoftUp", partial(evaluated, nn.LoftUp, in_features=8, num_frequencies=1, depth=1)),
]
