"""SegNet, whose encoder has torchvision's names.

There is no official PyTorch code. `decoder.S.N` counts each stage's convolutions, norms and activations; the config is
{"variant": "original" or "reduce_first", "width", "num_classes"}, and may have `dtype`.
"""

from typing import Any

from flax import nnx

from jaxup.interop.backbones import conv_norm, options, vgg_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.segmentation.segnet import SegNet


def segnet_keys(module: SegNet, variant: str) -> Table:
    """The classifier of "original" is the last convolution of its last stage."""
    table = prefixed(vgg_keys(module.encoder), "", "encoder.")
    for i, stage in enumerate(module.decoder):
        for j in range(len(stage)):
            table |= conv_norm(f"decoder.{i}.{3 * j}", f"decoder.{i}.{3 * j + 1}", f"decoder.{i}.{j}", bias=True)
    return table | conv("classifier" if variant == "reduce_first" else f"decoder.{i}.{3 * len(stage)}", "classifier")


def _segnet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    variant = config.get("variant", "original")
    module = SegNet(
        config["num_classes"],
        config.get("in_channels", 3),
        features=config.get("width", 64),
        decoder=variant,
        **options(config),
    )
    return module, segnet_keys(module, variant)


OPERATORS: Operators = {"SegNet": _segnet}
