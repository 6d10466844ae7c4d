"""Operators without learned weights, and the plain upsamplers."""

from functools import partial

from jaxup import nn, ops
from tests.registry.examples import Example, Inputs, ModuleExample

EXAMPLES = [
    *(
        Example(f"resize_{name}", partial(ops.resize, **options), Inputs(lambda h, w: [(h, w, 6)]), scratch=(0.5, 1.5))
        for name, options in {
            "nearest": dict(scale=2, method="nearest"),
            "bilinear": dict(scale=2, method="bilinear"),
            "bilinear_align_corners": dict(size=(7, 5), method="bilinear", align_corners=True),
            "bicubic": dict(scale=(3, 2), method="bicubic"),
            "bicubic_antialias": dict(size=(2, 3), method="bicubic", antialias=True),
            "area": dict(size=(2, 3), method="area"),
        }.items()
    ),
    Example(
        "zero_upsample",
        partial(ops.zero_upsample, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 6)]),
        scratch=(0.1, 1.2),
    ),
    Example(
        "pixel_shuffle",
        partial(ops.pixel_shuffle, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 12)]),
        scratch=(0.1, 0.1),
    ),
    Example(
        "pixel_unshuffle",
        partial(ops.pixel_unshuffle, scale=(2, 3)),
        Inputs(lambda h, w: [(2 * h, 3 * w, 2)]),
        scratch=(0.1, 0.1),
    ),
    Example(
        "box_filter",
        partial(ops.box_filter, radius=(2, 3)),
        Inputs(lambda h, w: [(h, w, 6)]),
        scratch=(0.7, 0.7),
    ),
    Example(
        "gaussian_filter",
        lambda x, sigma: ops.gaussian_filter(x, sigma=sigma, radius=3),
        Inputs(lambda h, w: [(h, w, 6)], tables=[()], interval=(0.5, 1.5)),
        scratch=(4, 13),
    ),
    Example(
        "guided_filter_grey",
        partial(ops.guided_filter, radius=2, eps=0.01),
        Inputs(lambda h, w: [(h, w, 2), (h, w, 1)], interval=(0, 1)),
        scratch=(1.8, 6),
        nightly=True,
    ),
    Example(
        "guided_filter_colour",
        partial(ops.guided_filter, radius=2, eps=0.01),
        Inputs(lambda h, w: [(h, w, 1), (h, w, 3)], interval=(0, 1)),
        scratch=(4, 12),
    ),
    Example(
        "bilateral_filter",
        partial(ops.bilateral_filter, radius=2, sigma_spatial=1.5, sigma_range=0.5),
        Inputs(lambda h, w: [(h, w, 3)], interval=(0, 1)),
        scratch=(2.5, 6),
    ),
    Example(
        "joint_bilateral_upsample",
        partial(ops.joint_bilateral_upsample, scale=(2, 3), radius=1, sigma_spatial=1.0, sigma_range=0.5),
        Inputs(lambda h, w: [(h, w, 2), (2 * h, 3 * w, 3)], interval=(0, 1)),
        scratch=(4.6, 13),
        large=True,
    ),
    Example(
        "joint_bilateral_upsample_any_ratio",
        partial(ops.joint_bilateral_upsample, radius=1, sigma_spatial=1.0, sigma_range=0.5),
        Inputs(lambda h, w: [(h, w, 2), (5 * h // 2, 7 * w // 2, 3)], interval=(0, 1)),
        scratch=(9, 25),
    ),
]

MODULES = [
    ModuleExample(
        "Deconvolution",
        partial(nn.Deconvolution, 5, 4, scale=(2, 3), kernel_size=5),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "PixelShuffle",
        partial(nn.PixelShuffle, 5, 4, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "Resize",
        partial(nn.Resize, scale=2, method="bicubic"),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
]
