"""Heads of UperNet: mmsegmentation, Hugging Face, CSAILVision; and the networks of the latter two.

Hugging Face's "UperNetForSemanticSegmentation" has a Swin: {"backbone_config": {"embed_dim": 96, ...}}.

CSAILVision keeps encoder and decoder in two files. "SegmentationModule" takes their tensors with `encoder.` and
`decoder.` in front, and {"encoder": "resnet50", "decoder": {"num_class": 150, "fpn_dim": 512}}. The networks of
mmsegmentation are in `jaxup.interop.mmseg`.

Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.interop.backbones import conv_norm, options, resnet_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.interop.pspnet import HUGGING_FACE, MMSEG, fcn_keys, layer, pooling_keys
from jaxup.interop.swin import OPERATORS as OPERATORS_OF_SWIN
from jaxup.models.backbones import ResNet, Swin
from jaxup.models.backbones.resnet import DEPTHS
from jaxup.models.segmentation import UperNet, UperNetHead


def upernet_keys(module: UperNetHead, names: tuple[str, str] = MMSEG) -> Table:
    """Names of mmsegmentation, and those of Hugging Face, which differ in norms and classifier, without the prefix."""
    norm, classifier = names
    table = pooling_keys(module.pooling, "pooling", norm) | layer("bottleneck", "bottleneck", norm)
    for i in range(len(module.laterals)):
        table |= layer(f"lateral_convs.{i}", f"laterals.{i}", norm) | layer(f"fpn_convs.{i}", f"smooth.{i}", norm)
    return table | layer("fpn_bottleneck", "fuse", norm) | conv(classifier, "classifier.conv")


def upernet_keys_csail(module: UperNetHead) -> Table:
    """Names of CSAILVision's `UPerNet`, counted in sequences."""
    names = {f"ppm_conv.{i}": f"pooling.branches.{i}" for i in range(len(module.pooling.branches))}
    for i in range(len(module.laterals)):
        names |= {f"fpn_in.{i}": f"laterals.{i}", f"fpn_out.{i}.0": f"smooth.{i}"}
    table = conv("conv_last.1", "classifier.conv")
    for torch, ours in (names | {"ppm_last_conv": "bottleneck", "conv_last.0": "fuse"}).items():
        table |= conv_norm(f"{torch}.0", f"{torch}.1", ours)
    return table


def _mmseg_upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = UperNetHead(
        config["in_channels"],
        config["num_classes"],
        features=config.get("channels", 512),
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        dropout=config.get("dropout_ratio", 0.1),
        **options(config),
    )
    return module, upernet_keys(module)


def _hf_upernet(config: dict[str, Any]) -> tuple[UperNetHead, Table]:
    """Both heads: `auxiliary` has the second one's arguments, or is None."""
    auxiliary = config.get("auxiliary")
    of_auxiliary: dict[str, Any] = {}
    if auxiliary is not None:
        place = len(config["in_channels"]) - 2
        if auxiliary.get("in_index", 2) != place:
            fail("in_index", f"that of the map before the last, {place}", auxiliary.get("in_index", 2))
        of_auxiliary = dict(
            auxiliary_features=auxiliary.get("channels", 256),
            auxiliary_layers=auxiliary.get("num_convs", 1),
            auxiliary_joined=auxiliary.get("concat_input", False),
        )
    module = UperNetHead(
        config["in_channels"],
        config["num_labels"],
        features=config.get("hidden_size", 512),
        pool_scales=config.get("pool_scales", (1, 2, 3, 6)),
        dropout=0.0,
        **of_auxiliary,
        **options(config),
    )
    table = prefixed(upernet_keys(module, HUGGING_FACE), "decode_head.", "")
    if module.auxiliary is not None:
        table |= fcn_keys(module.auxiliary, "auxiliary_head.", "auxiliary.", HUGGING_FACE)
    return module, table


def _hf_network(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """The whole network around a Swin."""
    swin = dict(config["backbone_config"])
    check_choice("model_type", swin.get("model_type", "swin"), ("swin",))
    backbone, *tables = OPERATORS_OF_SWIN["SwinBackbone"](swin | {k: config[k] for k in ("dtype",) if k in config})
    assert isinstance(backbone, Swin)
    head: dict[str, Any] = {"in_channels": backbone.features, "num_labels": config.get("num_labels", 150)}
    head |= {name: config[name] for name in ("hidden_size", "pool_scales", "dtype") if name in config}
    if config.get("use_auxiliary_head", True):
        usual = {"channels": 256, "num_convs": 1, "concat_input": False}
        head["auxiliary"] = {name: config.get(f"auxiliary_{name}", value) for name, value in usual.items()}
    module = UperNet(head["num_labels"], backbone=backbone, features=16, auxiliary_features=None, **options(config))
    module.head, heads = _hf_upernet(head)
    return module, prefixed(tables[0], "backbone.", "backbone.") | prefixed(heads, "", "head.")


def _csail_upernet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """Logits, where the official module has their logarithmic softmax, or softmax with `use_softmax`."""
    module = UperNetHead(
        config["fpn_inplanes"],
        config.get("num_class", 150),
        **_of_csail(config),
        **options(config),
    )
    return module, upernet_keys_csail(module)


def _of_csail(config: dict[str, Any]) -> dict[str, Any]:
    pool_scales = config.get("pool_scales", (1, 2, 3, 6))
    features = config.get("fpn_dim", 256)
    return dict(features=features, pool_features=512, pool_scales=pool_scales, resize_first=True, dropout=0.0)


def _csail_network(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """A ResNet of three 3x3 convolutions in front, and the decoder: `encoder` is the name, `decoder` the arguments."""
    name = config["encoder"]
    check_choice("encoder", name, [f"resnet{depth}" for depth in DEPTHS])
    backbone = ResNet(depth=int(name[6:]), stem="deep", stem_features=128, **options(config))
    decoder = {"fpn_inplanes": backbone.features[1:]} | config["decoder"]
    module = UperNet(
        decoder.get("num_class", 150),
        backbone=backbone,
        auxiliary_features=None,
        **_of_csail(decoder),
        **options(config),
    )
    table = prefixed(resnet_keys_csail(backbone), "encoder.", "backbone.")
    return module, table | prefixed(upernet_keys_csail(module.head), "decoder.", "head.")


def resnet_keys_csail(module: ResNet) -> Table:
    """As torchvision's, but for the stem: `conv1`, `bn1` to `conv3`, `bn3`."""
    table = {name: part for name, part in resnet_keys(module).items() if not name.startswith("stem.")}
    for i in range(3):
        table |= conv_norm(f"conv{i + 1}", f"bn{i + 1}", f"stem.{i}")
    return table


OPERATORS: Operators = {
    "UPerHead": _mmseg_upernet,
    "UperNetHead": _hf_upernet,
    "UperNetForSemanticSegmentation": _hf_network,
    "UPerNet": _csail_upernet,
    "SegmentationModule": _csail_network,
}
