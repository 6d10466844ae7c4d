"""PSPNet, UperNet and Semantic FPN of mmsegmentation as whole networks, from the `model` of an official config.

    "mmseg.PSPNet"         {"backbone": {"type": "ResNetV1c", "depth": 50, "dilations": (1, 1, 2, 4),
                           "contract_dilation": True}, "decode_head": {"num_classes": 150, "channels": 512},
                           "auxiliary_head": {"channels": 256}}
    "mmseg.UPerNet"        the same with another head
    "mmseg.SemanticFPN"    {"backbone": ..., "neck": {"out_channels": 256}, "decode_head": {"num_classes": 150}}

`type` of the backbone is one of mmsegmentation's names in `OPERATORS`. Without "auxiliary_head" there is none. Every
config may have `dtype`, the type in which the layers compute.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.interop import backbones, mit, swin
from jaxup.interop.backbones import options
from jaxup.interop.fpn import fpn_head_keys, fpn_keys
from jaxup.interop.keys import Operators, Table, prefixed
from jaxup.interop.pspnet import fcn_keys, psp_head_keys
from jaxup.interop.upernet import upernet_keys
from jaxup.models.segmentation import PSPNet, SemanticFPN, UperNet

_BACKBONES = {
    name: (backbones.OPERATORS | mit.OPERATORS | swin.OPERATORS)[name]
    for name in ("ResNet", "ResNetV1c", "MixVisionTransformer", "SwinTransformer")
}


def backbone_of(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """The backbone of a config, and its table."""
    given = dict(config["backbone"])
    check_choice("backbone type", given.get("type"), _BACKBONES)
    module, *tables = _BACKBONES[given["type"]](given | {key: config[key] for key in ("dtype",) if key in config})
    return module, prefixed(tables[0], "backbone.", "backbone.")


def _auxiliary(config: dict[str, Any]) -> dict[str, Any]:
    """Of the network: one convolution on the map before the last, as the official configs have it."""
    head: Mapping[str, Any] = config.get("auxiliary_head") or {}
    usual = dict(in_index=2, num_convs=1, concat_input=False)
    if any(head.get(name, value) != value for name, value in usual.items()):
        fail("auxiliary_head", f"{usual}", {name: head[name] for name in usual if name in head})
    return dict(auxiliary_features=head.get("channels", 256) if head else None)


def _of_head(config: dict[str, Any]) -> dict[str, Any]:
    head = config["decode_head"]
    return dict(
        features=head.get("channels", 512),
        pool_scales=head.get("pool_scales", (1, 2, 3, 6)),
        dropout=head.get("dropout_ratio", 0.1),
    )


def _pspnet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone, table = backbone_of(config)
    given = _of_head(config) | _auxiliary(config) | options(config)
    module = PSPNet(config["decode_head"]["num_classes"], backbone=backbone, **given)
    return module, table | prefixed(psp_head_keys(module), "decode_head.", "") | _auxiliary_keys(module.auxiliary, "")


def _upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone, table = backbone_of(config)
    given = _of_head(config) | _auxiliary(config) | options(config)
    module = UperNet(config["decode_head"]["num_classes"], backbone=backbone, **given)
    table |= prefixed(upernet_keys(module.head), "decode_head.", "head.")
    return module, table | _auxiliary_keys(module.head.auxiliary, "head.")


def _auxiliary_keys(head: Any, ours: str) -> Table:
    return {} if head is None else fcn_keys(head, "auxiliary_head.", f"{ours}auxiliary.")


def _semantic_fpn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone, table = backbone_of(config)
    head = config["decode_head"]
    module = SemanticFPN(
        head["num_classes"],
        backbone=backbone,
        features=(config.get("neck") or {}).get("out_channels", 256),
        head_features=head.get("channels", 128),
        dropout=head.get("dropout_ratio", 0.1),
        **options(config),
    )
    table |= prefixed(fpn_keys(module.neck, norm=False), "neck.", "neck.")
    return module, table | prefixed(fpn_head_keys(module.head), "decode_head.", "head.")


OPERATORS: Operators = {"mmseg.PSPNet": _pspnet, "mmseg.UPerNet": _upernet, "mmseg.SemanticFPN": _semantic_fpn}
