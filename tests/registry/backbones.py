"""Backbones, as small as their families allow."""

from functools import partial

from jaxup import models
from tests.registry.examples import Example, Inputs, ModuleExample
from tests.registry.restoration import evaluated

EXAMPLES: list[Example] = []
IMAGES = Inputs(lambda h, w: [(8 * h, 8 * w, 3)])
# Many layers take long to compile; tests/models/backbones has what matters.
nightly = partial(ModuleExample, inputs=IMAGES, nightly=True)

MODULES = [
    nightly(
        "ResNet",
        partial(evaluated, models.ResNet, depth=(1, 1, 1, 1), bottleneck=True, widths=(8, 8, 12, 12), stem_features=4),
    ),
    nightly(
        "SENet",
        partial(
            evaluated, models.SENet, blocks=(1,) * 4, widths=(8, 8, 12, 12), stem_features=4, groups=2, reduction=4
        ),
    ),
    nightly("DenseNet", partial(evaluated, models.DenseNet, blocks=(1, 2), growth=4, stem_features=4)),
    nightly("VGG", partial(evaluated, models.VGG, layers=(1, 2), widths=(4, 6))),
    nightly("MobileNetV1", partial(evaluated, models.MobileNetV1, multiplier=0.125, taps=(1, 3, 5))),
    nightly(
        "MobileNetV2",
        partial(evaluated, models.MobileNetV2, multiplier=0.25, stages=((1, 16, 1, 1, 3), (2, 24, 2, 2, 3))),
    ),
    nightly(
        "ViT",
        partial(models.ViT, patch_size=8, width=12, depth=2, num_heads=2, image_size=32, taps=(1, 2)),
    ),
    nightly(
        "VisionEncoder",
        partial(
            models.VisionEncoder,
            patch_size=8,
            width=12,
            depth=1,
            num_heads=2,
            hidden_features=8,
            image_size=32,
            num_registers=1,
        ),
    ),
    nightly("MiT", partial(models.MiT, widths=(6, 8), depths=(1, 1), num_heads=(2, 2), reductions=(2, 1))),
    nightly("Swin", partial(models.Swin, width=6, depths=(2, 1), num_heads=(2, 2), window_size=2)),
]
