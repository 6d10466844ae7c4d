"""PSPNet of mmsegmentation, on its ResNets or, with the plain stem, on torchvision's.

Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.interop.backbones import conv_norm, options, resnet_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.backbones import ResNet
from jaxup.models.segmentation.heads import FCNHead, PyramidPooling
from jaxup.models.segmentation.pspnet import PSPNet

STEMS = {"v1c": "deep", "plain": "plain"}
# Layers of a head: norm of a convolution, and the classifier.
MMSEG = ("bn", "conv_seg")
HUGGING_FACE = ("batch_norm", "classifier")


def layer(torch: str, ours: str, norm: str = "bn") -> Table:
    """A convolution with its norm, as a module of its own."""
    return conv_norm(f"{torch}.conv", f"{torch}.{norm}", ours)


def pooling_keys(module: PyramidPooling, ours: str, norm: str = "bn") -> Table:
    """Names of mmsegmentation and of Hugging Face: `psp_modules.0.1`."""
    table: Table = {}
    for i in range(len(module.branches)):
        table |= layer(f"psp_modules.{i}.1", f"{ours}.branches.{i}", norm)
    return table


def fcn_keys(module: FCNHead, torch: str, ours: str, names: tuple[str, str] = MMSEG) -> Table:
    """An auxiliary head: `convs.0`, `conv_cat`, and the classifier."""
    norm, classifier = names
    table = conv(classifier, "classifier.conv")
    for i in range(len(module.layers)):
        table |= layer(f"convs.{i}", f"layers.{i}", norm)
    if module.join is not None:
        table |= layer("conv_cat", "join", norm)
    return prefixed(table, torch, ours)


def psp_head_keys(module: PSPNet) -> Table:
    """Names of mmsegmentation's `PSPHead`."""
    table = pooling_keys(module.pooling, "pooling") | layer("bottleneck", "bottleneck")
    return table | conv("conv_seg", "classifier.conv")


def pspnet_keys(module: PSPNet) -> Table:
    """Names of mmsegmentation: `backbone.`, `decode_head.`, `auxiliary_head.`."""
    table = prefixed(resnet_keys(module.backbone), "backbone.", "backbone.")
    table |= prefixed(psp_head_keys(module), "decode_head.", "")
    if module.auxiliary is not None:
        table |= fcn_keys(module.auxiliary, "auxiliary_head.", "auxiliary.")
    return table


def _resnet(config: dict[str, Any]) -> ResNet:
    """Its entries stand beside those of the head."""
    dilations = tuple(config.get("dilations", (1, 1, 2, 4)))
    strides = {(1, 1, 1, 1): 32, (1, 1, 1, 2): 16, (1, 1, 2, 4): 8}
    if dilations not in strides:
        fail("dilations", "one of " + ", ".join(map(str, strides)), dilations)
    stem = config.get("stem", "v1c")
    check_choice("stem", stem, STEMS)
    return ResNet(
        config.get("in_channels", 3),
        depth=config.get("depth", 50),
        stem=STEMS[stem],
        output_stride=strides[dilations],
        contract_dilation=config.get("contract_dilation", True),
        **options(config),
    )


def _pspnet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = PSPNet(
        config["num_classes"],
        backbone=_resnet(config),
        features=config.get("channels", 512),
        auxiliary_features=config.get("aux_channels", 256),
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        **options(config),
    )
    return module, pspnet_keys(module)


OPERATORS: Operators = {"PSPNet": _pspnet}
