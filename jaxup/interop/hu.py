"""Hu et al.'s depth network, on ResNet-50, SENet-154 and DenseNet-161.

The config is {"encoder": "resnet50", "senet154" or "densenet161", "align_corners": of its interpolation, by default
True, as PyTorch 0.3 had it}, and may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.interop.backbones import NUMBERED, conv_norm, densenet_keys, options, resnet_keys, senet_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.monocular_depth.hu import HuDepthNetwork

# The letters of a dot, as some files write it.
_SPELLED = (*NUMBERED, "{}_dot_{}")


def up_keys(torch: str, ours: str) -> Table:
    """An up-projection."""
    table: Table = {}
    for n, name in (("1", "first"), ("1_2", "second"), ("2", "shortcut")):
        table |= conv_norm(f"{torch}.conv{n}", f"{torch}.bn{n}", f"{ours}.{name}")
    return table


def decoder_keys() -> Table:
    """All but the encoder: `D.`, `MFF.` and `R.`."""
    table = conv_norm("D.conv", "D.bn", "reduce") | conv_norm("MFF.conv", "MFF.bn", "fuse") | conv("R.conv2", "head")
    for i in range(4):
        table |= up_keys(f"D.up{i + 1}", f"up.{i}") | up_keys(f"MFF.up{i + 1}", f"fusion.{i}")
    for i in range(2):
        table |= conv_norm(f"R.conv{i}", f"R.bn{i}", f"refine.{i}")
    return table


def encoder_keys(name: str, backbone: Any) -> list[Table]:
    """In one or several spellings, after `E.`."""
    match name:
        case "resnet50":
            return [resnet_keys(backbone)]
        case "senet154":
            return [senet_keys(backbone, "base.0.", "base.{}.")]
        case _:
            return [densenet_keys(backbone, numbered) for numbered in (_SPELLED[1], _SPELLED[0], _SPELLED[2])]


def _hu(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    name = config.get("encoder", "resnet50")
    check_choice("encoder", name, ("resnet50", "senet154", "densenet161"))
    module = HuDepthNetwork(backbone=name, align_corners=config.get("align_corners", True), **options(config))
    tables = encoder_keys(name, module.backbone)
    return module, *(prefixed(table, "E.", "backbone.") | decoder_keys() for table in tables)


OPERATORS: Operators = {"hu.model": _hu}
