"""Operators whose kernels follow affinities or a guide: A2U, joint bilateral upsampling, pixel-adaptive convolution."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "downsample_reassemble",
        partial(ops.downsample_reassemble, scale=2, kernel_size=4, groups=2),
        Inputs(lambda h, w: [(2 * h, 2 * w, 8), (h, w, 2, 16)]),
        scratch=(2, 4),
    ),
    Example(
        "pac_conv_transpose",
        partial(ops.pac_conv_transpose, scale=2),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 2 * w, 3)], tables=[(3, 3, 4, 5)]),
        scratch=(4, 12),
    ),
    Example(
        "pac_conv_transpose_shared_normalized",
        partial(ops.pac_conv_transpose, scale=(2, 3), normalize_kernel=True),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 3 * w, 3)], tables=[(3, 3, 1, 1)]),
        scratch=(4, 12),
        nightly=True,
    ),
]

MODULES = [
    ModuleExample(
        "A2UKernels",
        partial(nn.A2UKernels, 4, kernel_size=1, groups=2, encoder_kernel_size=2, norm_groups=2, shared=False),
        Inputs(lambda h, w: [(2 * h, 2 * w, 4)]),
        nightly=True,
    ),
    ModuleExample(
        "A2UUpsample",
        partial(nn.A2UUpsample, 3, 4, encoder_kernel_size=3, norm_groups=2, rank=2, filters="hybrid"),
        Inputs(lambda h, w: [(h, w, 3), (2 * h, 2 * w, 4)]),
    ),
    ModuleExample(
        "A2UDownsample",
        partial(nn.A2UDownsample, 4, kernel_size=1, encoder_kernel_size=2, norm_groups=2, filters="static"),
        Inputs(lambda h, w: [(2 * h, 2 * w, 4)]),
        nightly=True,
    ),
    ModuleExample(
        "JBU",
        partial(nn.JBU, 4, 3, key_features=5, radius=1, dropout=0),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 3 * w, 3)]),
        nightly=True,
    ),
    ModuleExample(
        "StackJBU",
        partial(nn.StackJBU, 3, 2, scale=2, key_features=4, radius=1, fixup=True, dropout=0, fixup_dropout=0),
        Inputs(lambda h, w: [(h, w, 3), (3 * h, 2 * w, 2)]),
    ),
    ModuleExample(
        "PacConvTranspose",
        partial(nn.PacConvTranspose, 4, 3, scale=(2, 3), kernel_size=3, normalize_kernel=True),
        Inputs(lambda h, w: [(h, w, 4), (2 * h, 3 * w, 2)]),
        nightly=True,
    ),
    ModuleExample(
        "DeepGuidedFilter",
        partial(nn.DeepGuidedFilter, 2, 3, features=4, radius=2),
        Inputs(lambda h, w: [(h, w, 2), (2 * h, 3 * w, 3)]),
    ),
    ModuleExample(
        "PacJointUpsample",
        partial(nn.PacJointUpsample, 2, 3, scale=2, features=3, key_features=2, kernel_size=3, pac_kernel_size=3),
        Inputs(lambda h, w: [(h, w, 2), (2 * h, 2 * w, 3)]),
    ),
]
