"""MaskFormer of Hugging Face transformers, with Swin or ResNet.

The config is that of a checkpoint's config.json (`MaskFormerConfig.to_dict()`), with `backbone_config` and
`decoder_config`; entries of the latter may also stand beside it. Beside these every config may have `upsampler`, whose
parameters have no official names, so that only those without any can be read, and `dtype`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from jaxup._checks import check_choice
from jaxup.interop import backbones, swin
from jaxup.interop.backbones import options, resnet_keys_hf
from jaxup.interop.keys import Constant, Key, Operators, Table, conv, linear, norm, prefixed
from jaxup.interop.swin import swin_keys
from jaxup.models.backbones import Swin
from jaxup.models.segmentation import MaskFormer

_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_BACKBONES = {"swin": swin.OPERATORS["MaskFormerSwinBackbone"], "resnet": backbones.OPERATORS["ResNetBackbone"]}
# The names of checkpoints, and those of modules in transformers 5.
_PROJECTIONS = ("out_proj", "o_proj")


def maskformer_keys(module: MaskFormer, projection: str = "out_proj", none_weight: float = 0.1) -> Table:
    """Names of `MaskFormerForInstanceSegmentation`."""
    backbone = swin_keys(module.backbone) if isinstance(module.backbone, Swin) else resnet_keys_hf(module.backbone)
    table = prefixed(backbone, "model.pixel_level_module.encoder.", "backbone.")
    table |= prefixed(_pixel_keys(module), "model.pixel_level_module.decoder.", "pixels.")
    table |= prefixed(_decoder_keys(module, projection), "model.transformer_module.", "decoder.")
    table |= linear("class_predictor", "classify")
    for i in range(len(module.embed)):
        table |= linear(f"mask_embedder.{i}.0", f"embed.{i}")
    weights = np.ones(module.num_classes + 1, np.float32)
    weights[-1] = none_weight
    return table | {"criterion.empty_weight": Constant(weights)}


def _pixel_keys(module: MaskFormer) -> Table:
    def layer(torch: str, ours: str) -> Table:
        return conv(f"{torch}.0", f"{ours}.conv", bias=False) | norm(f"{torch}.1", f"{ours}.norm")

    table = layer("fpn.stem", "stem") | conv("mask_projection", "embed")
    for i in range(len(module.pixels.blocks)):
        table |= layer(f"fpn.layers.{i}.proj", f"laterals.{i}") | layer(f"fpn.layers.{i}.block", f"blocks.{i}")
    return table


def _decoder_keys(module: MaskFormer, projection: str) -> Table:
    table: Table = {"queries_embedder.weight": Key("queries")} | norm("decoder.layernorm", "norm")
    if module.decoder.project is not None:
        table |= conv("input_projection", "project", layout="pointwise")
    for i in range(len(module.decoder.layers)):
        layer = linear("fc1", "expand") | linear("fc2", "reduce")
        for j, name in enumerate(("self_attn", "encoder_attn")):
            ours = ("to_queries", "to_map")[j]
            layer |= norm(f"{name}_layer_norm", f"norms.{j}") | linear(f"{name}.{projection}", f"{ours}.project")
            for torch, part in _ATTENTION.items():
                layer |= linear(f"{name}.{torch}", f"{ours}.{part}")
        layer |= norm("final_layer_norm", "norms.2")
        table |= prefixed(layer, f"decoder.layers.{i}.", f"layers.{i}.")
    return table


def _backbone(config: dict[str, Any]) -> Callable[..., nnx.Module]:
    kind = str(config.get("model_type", config.get("kind", "swin"))).removeprefix("maskformer-")
    check_choice("model_type", kind, _BACKBONES)
    build = _BACKBONES[kind]
    return lambda dtype, rngs: build(config | dict(dtype=dtype))[0]


def _maskformer(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    decoder: dict[str, Any] = config | (config.get("decoder_config") or {})
    labels = config["num_labels"] if "num_labels" in config else len(config["id2label"])
    module = MaskFormer(
        labels,
        backbone=_backbone(dict(config.get("backbone_config") or config.get("backbone") or {})),
        features=decoder.get("d_model", 256),
        pyramid_features=config.get("fpn_feature_size", 256),
        mask_features=config.get("mask_feature_size", 256),
        num_queries=decoder.get("num_queries", 100),
        layers=decoder.get("decoder_layers", 6),
        num_heads=decoder.get("decoder_attention_heads", decoder.get("heads", 8)),
        hidden_features=decoder.get("decoder_ffn_dim", decoder.get("ffn", 2048)),
        dropout=decoder.get("dropout", 0.1),
        upsampler=config.get("upsampler", "nearest"),
        **options(config),
    )
    weight = config.get("no_object_weight", 0.1)
    return module, *(maskformer_keys(module, projection, weight) for projection in _PROJECTIONS)


OPERATORS: Operators = {"MaskFormerForInstanceSegmentation": _maskformer}
