"""Attention-based upsampling, its networks and the networks beside them."""

from functools import partial

from jaxup import models, nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    Example(
        "attention_upsample",
        lambda query, key, value, px, py: ops.attention_upsample(
            query, key, value, scale=2, kernel_size=3, positions=(px, py), num_heads=2, scaled=True
        ),
        Inputs(lambda h, w: [(2 * h, 2 * w, 8), (h, w, 8), (h, w, 6)], tables=[(3, 4), (3, 4)]),
        scratch=(1.75, 4),
    ),
    Example(
        "attention_upsample_empty_windows",
        partial(ops.attention_upsample, scale=4, kernel_size=3),
        Inputs(lambda h, w: [(4 * h, 4 * w, 6), (h, w, 6), (h, w, 4)]),
        scratch=(0.5, 1),
        nightly=True,
    ),
    Example(
        "attention_upsample_joint",
        partial(ops.attention_upsample, scale=(2, 3), kernel_size=3),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (2 * h, 3 * w, 8), (h, w, 3)]),
        scratch=(0.75, 1.75),
        large=True,
    ),
    Example(
        "attention_kernels",
        partial(ops.attention_kernels, scale=2, kernel_size=5, num_heads=2),
        Inputs(lambda h, w: [(2 * h, 2 * w, 8), (h, w, 8)]),
        scratch=(1.25, 5.5),
        nightly=True,
    ),
]

MODULES = [
    ModuleExample(
        "AttentionUpsample",
        partial(nn.AttentionUpsample, 5, 8, scale=2, kernel_size=5, num_heads=2),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "JointAttentionUpsample",
        partial(nn.JointAttentionUpsample, 5, 3, 8, scale=(2, 3), kernel_size=5, scaled=True),
        Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 3)]),
    ),
    ModuleExample(
        "AttentionJointNetwork",
        partial(models.AttentionJointNetwork, features=4, mixing_layers=2, widths=(6, 5), kernel_size=3, num_heads=2),
        Inputs(lambda h, w: [(h, w, 1), (4 * h, 4 * w, 3)]),
        large=True,
    ),
    ModuleExample(
        "DJF",
        partial(models.DJF, widths=(8, 6), joint_widths=(8, 6)),
        Inputs(lambda h, w: [(h, w, 1), (4 * h, 4 * w, 3)]),
    ),
]
