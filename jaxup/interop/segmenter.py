"""Segmenter of the official code and of mmsegmentation, and the guide of ReSFU's head.

    "segm.Segmenter"     the official `net_kwargs`: {"image_size": (512, 512), "patch_size": 16, "d_model": 384,
                         "n_heads": 6, "n_layers": 12, "n_cls": 150, "decoder": {"name": "mask_transformer"}}
    "mmseg.Segmenter"    with an FCN head: {"backbone": {"embed_dims": 384, ...}, "decode_head": {"num_classes": 150}}

The encoder's names are those of timm, whose classifier the official code keeps and does not use. A timm ViT by itself,
with timm's norms and position embeddings, is the backbone of `Segmenter(n, backbone=from_torch("vit_small_patch16_224",
...))`. Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.interop import vit
from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Table, conv, linear, norm, prefixed
from jaxup.models.backbones import ViT
from jaxup.models.segmentation import Segmenter
from jaxup.models.segmentation.segmenter import GuideBlock, MaskDecoder

_DECODERS = {"linear": "linear", "mask_transformer": "mask"}


def _official(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    decoder = dict(config["decoder"])
    check_choice("decoder", decoder.get("name"), _DECODERS)
    kind = _DECODERS[decoder["name"]]
    encoder = {key: value for key, value in config.items() if key != "n_cls"}
    module, table = _built("segm.VisionTransformer", encoder, config["n_cls"], kind, "encoder.")
    if kind == "linear":
        return module, table | linear("decoder.head", "decoder")
    features, depth = config["d_model"], decoder.get("n_layers", 2)
    width = decoder.get("d_model", features)
    heads: dict[str, Any] = dict(features=width, depth=depth, num_heads=decoder.get("n_heads", width // 64))
    module.decoder = MaskDecoder(features, config["n_cls"], **heads, **options(config))
    return module, table | prefixed(mask_decoder_keys(depth), "decoder.", "decoder.")


def mask_decoder_keys(depth: int) -> Table:
    """Names of the official `MaskTransformer`."""
    table = linear("proj_dec", "project") | norm("decoder_norm", "norm") | norm("mask_norm", "mask_norm")
    table |= {"cls_emb": Key("classes", vit.ROW)}
    table |= {f"proj_{part}": Key(f"of_{ours}.kernel") for part, ours in (("patch", "patches"), ("classes", "classes"))}
    return table | vit.vit_block_keys(depth)


def _mmseg(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone = config["backbone"] | {key: config[key] for key in ("dtype",) if key in config}
    module, table = _built("VisionTransformer", backbone, config["decode_head"]["num_classes"], "fcn", "backbone.")
    return module, table | conv("decode_head.conv_seg", "decoder", layout="pointwise")


def _built(operator: str, config: dict[str, Any], classes: int, decoder: str, prefix: str) -> tuple[Segmenter, Table]:
    """The network around an official backbone, and the backbone's table."""
    backbone, *tables = vit.OPERATORS[operator](config)
    assert isinstance(backbone, ViT)
    module = Segmenter(classes, backbone=backbone, decoder=decoder, **options(config))
    return module, prefixed(tables[0], prefix, "backbone.")


def _guide(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = GuideBlock(**options(config))
    table = conv("shallow_feat_extractor.0", "first") | norm("shallow_feat_extractor.1", "norm")
    return module, table | conv("shallow_feat_extractor.3", "second")


OPERATORS: Operators = {"segm.Segmenter": _official, "mmseg.Segmenter": _mmseg, "shallow_feat_extractor": _guide}
