"""SegFormer of NVlabs, of mmsegmentation 1.x and of Hugging Face.

    "nvlabs.SegFormer"                   {"backbone": "mit_b1", "num_classes": 150, "embed_dim": 256}
    "mmseg.SegFormer"                    {"backbone": {"embed_dims": 64, ...}, "decode_head": {"num_classes": 150}}
    "SegformerForSemanticSegmentation"   config.json

The first two have the arguments of the official configs. Beside these, every config may have `dtype`, the type in which
the layers compute.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from jaxup._checks import fail
from jaxup.interop import mit
from jaxup.interop.backbones import conv_norm, options
from jaxup.interop.keys import Operators, Optional, Table, conv, linear, prefixed
from jaxup.models.backbones import BACKBONES, MiT
from jaxup.models.segmentation import SegFormer


def _nvlabs(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    name = config["backbone"]
    if name not in mit.OPERATORS:
        fail("backbone", "'mit_b0' to 'mit_b5'", repr(name))
    features = config.get("embed_dim", 256 if name in ("mit_b0", "mit_b1") else 768)
    module, table = _built(name, config, config["num_classes"], head="nvlabs", features=features)
    for i in range(4):
        table |= linear(f"decode_head.linear_c{i + 1}.proj", f"project.{i}")
    table |= conv_norm("decode_head.linear_fuse.conv", "decode_head.linear_fuse.bn", "fuse")
    table |= conv("decode_head.linear_pred", "classifier", layout="pointwise")
    return module, table | {f"decode_head.conv_seg.{kind}": Optional() for kind in ("weight", "bias")}


def _mmseg(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    head = config["decode_head"]
    inner = mmseg_backbone(config["backbone"], {"num_heads": (1, 2, 5, 8)})
    given: dict[str, Any] = dict(head="mmseg", features=head.get("channels", 256))
    module, table = _built("MixVisionTransformer", config | inner, head["num_classes"], **given)
    for i in range(4):
        table |= conv_norm(f"decode_head.convs.{i}.conv", f"decode_head.convs.{i}.bn", f"project.{i}")
    table |= conv_norm("decode_head.fusion_conv.conv", "decode_head.fusion_conv.bn", "fuse")
    return module, table | conv("decode_head.conv_seg", "classifier", layout="pointwise")


def mmseg_backbone(config: Any, usual: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of mmsegmentation's class for a config, which may also be the name of a Mix Transformer."""
    if isinstance(config, Mapping):
        return {**usual, **config}
    if config not in mit.OPERATORS or config not in BACKBONES:
        fail("backbone", "arguments of the backbone, or 'mit_b0' to 'mit_b5'", repr(config))
    sizes = BACKBONES[config][1]
    return {**usual, "embed_dims": sizes["widths"][0], "num_layers": sizes["depths"]}


def _hf(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    classes = config.get("num_labels", len(config.get("id2label", ())) or 2)
    given: dict[str, Any] = dict(head="nvlabs", features=config.get("decoder_hidden_size", 256))
    module, table = _built("SegformerModel", config, classes, prefix="segformer.", **given)
    for i in range(4):
        table |= linear(f"decode_head.linear_c.{i}.proj", f"project.{i}")
    table |= conv_norm("decode_head.linear_fuse", "decode_head.batch_norm", "fuse")
    return module, table | conv("decode_head.classifier", "classifier", layout="pointwise")


def _built(
    operator: str, config: dict[str, Any], classes: int, *, prefix: str = "backbone.", **given: Any
) -> tuple[SegFormer, Table]:
    """The network around an official backbone, and the backbone's table."""
    backbone, *tables = mit.OPERATORS[operator](config)
    assert isinstance(backbone, MiT)
    return SegFormer(classes, backbone=backbone, **given, **options(config)), prefixed(tables[0], prefix, "backbone.")


OPERATORS: Operators = {
    "nvlabs.SegFormer": _nvlabs,
    "mmseg.SegFormer": _mmseg,
    "SegformerForSemanticSegmentation": _hf,
}
