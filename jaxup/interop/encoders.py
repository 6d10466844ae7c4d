"""Vision encoders: DINOv2 and DINOv3 of Meta, of Hugging Face and of timm, SigLIP's and CLIP's towers of the former.

Beside the official arguments every config may have `taps`, the blocks whose maps are returned, and `dtype`, the type in
which the layers compute.
"""

import re
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from jaxup._checks import fail
from jaxup.interop.backbones import options
from jaxup.interop.keys import Constant, Key, Operators, Optional, Part, Table, Unused, conv, linear, norm, prefixed
from jaxup.interop.vit import NAMES, ROW, joined
from jaxup.models.backbones import BACKBONES, VisionEncoder
from jaxup.models.backbones.encoder_layers import swiglu_width

_FFN = {"fc1": "expand", "fc2": "reduce"}
_HF_FFN = {"up_proj": "expand", "down_proj": "reduce"}


def _common(config: dict[str, Any]) -> dict[str, Any]:
    return options(config) | {"taps": config.get("taps")}


def _tokens(module: VisionEncoder, class_token: str, registers: str, positions: str) -> Table:
    named = {"class_token": class_token, "registers": registers, "positions": positions}
    return {theirs: Key(ours, ROW) for ours, theirs in named.items() if getattr(module, ours) is not None}


def _blocks(module: VisionEncoder, name: str, block: Table) -> Table:
    table: Table = {}
    for i in range(len(module.blocks)):
        table |= prefixed(block, name.format(i), f"blocks.{i}.")
    return table


def _scales(first: str, second: str) -> Table:
    return {first: Key("scale1"), second: Key("scale2")}


def _mlp(module: VisionEncoder, gate: str, expand: str, reduce: str, *, plain: dict[str, str] = _FFN) -> Table:
    gated = {gate: "gate", expand: "expand", reduce: "reduce"}
    layers = plain if module.blocks[0].mlp.gate is None else gated
    table: Table = {}
    for theirs, ours in layers.items():
        table |= linear(f"mlp.{theirs}", f"mlp.{ours}")
    return table


def _joined_mlp(both: str, reduce: str) -> Table:
    """Gate and value in one layer."""
    return joined(f"mlp.{both}.weight", f"mlp.{both}.bias", "mlp", ("gate", "expand")) | linear(
        f"mlp.{reduce}", "mlp.reduce"
    )


def _qkv(module: VisionEncoder, mask: bool = False) -> Table:
    """Query, key and value in one tensor; of biases, those of keys are masked, or there are none."""
    attention, width = module.blocks[0].attention, module.embed.out_features
    table = joined("attn.qkv.weight", "attn.qkv.bias", "attention")
    if attention.query.bias is None:
        del table["attn.qkv.bias"]
    elif attention.key.bias is None:
        bias: tuple[Part, ...] = (Key("attention.query.bias"), Unused((width,)), Key("attention.value.bias"))
        table["attn.qkv.bias"] = bias
    if mask:
        table["attn.qkv.bias_mask"] = Constant(np.repeat(np.array([1, 0, 1], np.float32), width))
    return table | linear("attn.proj", "attention.project")


def _separate(module: VisionEncoder, name: str) -> Table:
    attention, table = module.blocks[0].attention, Table()
    for ours in NAMES:
        table |= linear(name.format(ours, ours[0]), f"attention.{ours}", bias=getattr(attention, ours).bias is not None)
    return table


def _meta_keys(module: VisionEncoder, *, registers: str, mask: bool = False) -> Table:
    block = norm("norm1", "norm1") | _qkv(module, mask) | norm("norm2", "norm2")
    table = _tokens(module, "cls_token", registers, "pos_embed") | {
        "mask_token": Unused((1, module.embed.out_features))
    }
    if module.periods is not None:
        table["rope_embed.periods"] = Key("periods")
        ffn = _mlp(module, "w1", "w2", "w3")
    else:
        ffn = _mlp(module, "", "", "") if module.blocks[0].mlp.gate is None else _joined_mlp("w12", "w3")
    scales = _scales("ls1.gamma", "ls2.gamma") if module.blocks[0].scale1 is not None else {}
    table |= conv("patch_embed.proj", "embed") | norm("norm", "norm")
    return table | _blocks(module, "blocks.{}.", block | ffn | scales)


def _dinov2(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    width, registers = config.get("embed_dim", 384), config.get("num_register_tokens", 0)
    gated = config.get("ffn_layer", "mlp").startswith("swiglu")
    hidden = int(width * config.get("mlp_ratio", 4))
    antialias = config.get("interpolate_antialias", registers > 0)
    offset = config.get("interpolate_offset", 0.0 if registers else 0.1)
    module = VisionEncoder(
        patch_size=config.get("patch_size", 14),
        width=width,
        depth=config.get("depth", 12),
        num_heads=config.get("num_heads", width // 64),
        hidden_features=swiglu_width(hidden) if gated else hidden,
        gated=gated,
        image_size=config.get("img_size", 518),
        position_resize="bicubic-antialias" if antialias else "bicubic-offset" if offset else "bicubic",
        num_registers=registers,
        **_common(config),
    )
    return module, _meta_keys(module, registers="register_tokens")


def _dinov3(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    width, gated = config.get("embed_dim", 384), config.get("ffn_layer", "mlp").startswith("swiglu")
    if config.get("pos_embed_rope_normalize_coords", "separate") != "separate":
        fail("config", "pos_embed_rope_normalize_coords of 'separate'", config["pos_embed_rope_normalize_coords"])
    hidden = int(width * config.get("ffn_ratio", 4))
    aligned = re.fullmatch(r"swiglu(\d+)", config.get("ffn_layer", "mlp"))
    masked, bias = config.get("mask_k_bias", True), config.get("qkv_bias", True)
    module = VisionEncoder(
        patch_size=config.get("patch_size", 16),
        width=width,
        depth=config.get("depth", 12),
        num_heads=config.get("num_heads", width // 64),
        hidden_features=swiglu_width(hidden, int(aligned[1]) if aligned else 8) if gated else hidden,
        gated=gated,
        image_size=config.get("patch_size", 16),
        num_registers=config.get("n_storage_tokens", 4),
        rotary_base=config.get("pos_embed_rope_base", 100),
        stored_periods=True,
        attention_bias="none" if not bias else "query, value" if masked else "query, key, value",
        layer_scale=config.get("layerscale_init", 1e-5) is not None,
        epsilon=1e-5 if config.get("norm_layer", "layernormbf16") == "layernormbf16" else 1e-6,
        **_common(config),
    )
    return module, _meta_keys(module, registers="storage_tokens", mask=bias and masked)


def _timm(config: dict[str, Any], name: str, changes: dict[str, Any]) -> tuple[nnx.Module, Table]:
    usual = dict(BACKBONES[name][1]) | {"position_resize": "bicubic-antialias"} | changes
    if "img_size" in config:
        usual["image_size"] = config["img_size"]
    module = VisionEncoder(**usual, **_common(config))
    block = norm("norm1", "norm1") | _qkv(module) | norm("norm2", "norm2") | _mlp(module, "fc1_g", "fc1_x", "fc2")
    block |= _scales(*(("ls1.gamma", "ls2.gamma") if module.rotary_base is None else ("gamma_1", "gamma_2")))
    table = _tokens(module, "cls_token", "reg_token", "pos_embed") | conv("patch_embed.proj", "embed")
    return module, table | norm("norm", "norm") | _blocks(module, "blocks.{}.", block)


def _hf_common(config: dict[str, Any]) -> dict[str, Any]:
    width = config.get("hidden_size", 768)
    return dict(
        patch_size=config.get("patch_size", 16),
        width=width,
        depth=config.get("num_hidden_layers", 12),
        num_heads=config.get("num_attention_heads", 12),
        hidden_features=config.get("intermediate_size", 4 * width),
        position_resize="bicubic",
        epsilon=config.get("layer_norm_eps", 1e-6),
        **_common(config),
    )


def _hf_dinov2(config: dict[str, Any], registers: int) -> tuple[nnx.Module, Table]:
    common = _hf_common({"patch_size": 14} | config)
    hidden = int(common["width"] * config.get("mlp_ratio", 4))
    gated = config.get("use_swiglu_ffn", False)
    registers = config.get("num_register_tokens", registers) if registers else 0
    common |= dict(hidden_features=swiglu_width(hidden) if gated else hidden, gated=gated, num_registers=registers)
    common |= {"position_resize": "bicubic-antialias"} if registers else {}
    module = VisionEncoder(image_size=config.get("image_size", 518), **common)
    tokens = _tokens(module, "cls_token", "register_tokens", "position_embeddings")
    tokens |= {"mask_token": Unused((1, common["width"]))} | conv("patch_embeddings.projection", "embed")
    block = norm("norm1", "norm1") | _separate(module, "attention.attention.{0}")
    block |= linear("attention.output.dense", "attention.project") | norm("norm2", "norm2")
    block |= _joined_mlp("weights_in", "weights_out") if gated else _mlp(module, "", "", "")
    block |= _scales("layer_scale1.lambda1", "layer_scale2.lambda1")
    table = prefixed(tokens, "embeddings.", "") | norm("layernorm", "norm")
    return module, table | _blocks(module, "encoder.layer.{}.", block)


def _hf_dinov3(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    biases = [config.get(f"{name}_bias", name != "key") for name in NAMES]
    named = {(True, True, True): "query, key, value", (True, False, True): "query, value", (False,) * 3: "none"}
    if tuple(biases) not in named:
        fail("config", "biases of query and value, of all or of none", biases)
    common = _hf_common({"hidden_size": 384, "num_attention_heads": 6, "layer_norm_eps": 1e-5} | config)
    module = VisionEncoder(
        image_size=common["patch_size"],
        gated=config.get("use_gated_mlp", False),
        num_registers=config.get("num_register_tokens", 0),
        rotary_base=config.get("rope_theta", 100.0),
        attention_bias=named[tuple(biases)],
        **common,
    )
    tokens = _tokens(module, "cls_token", "register_tokens", "") | conv("patch_embeddings", "embed")
    tokens |= {"mask_token": Unused((1, 1, common["width"]))}
    block = norm("norm1", "norm1") | _separate(module, "attention.{1}_proj")
    block |= linear("attention.o_proj", "attention.project") | norm("norm2", "norm2")
    block |= _mlp(module, "gate_proj", "up_proj", "down_proj", plain=_HF_FFN)
    block |= _scales("layer_scale1.lambda1", "layer_scale2.lambda1")
    table = prefixed(tokens, "embeddings.", "") | norm("norm", "norm")
    return module, table | _blocks(module, "layer.{}.", block)


def _tower(module: VisionEncoder, first: Table) -> tuple[Table, Table]:
    """With the prefix that files of both towers have, and without."""
    block = norm("layer_norm1", "norm1") | _separate(module, "self_attn.{1}_proj") | norm("layer_norm2", "norm2")
    block |= linear("self_attn.out_proj", "attention.project") | _mlp(module, "", "", "")
    table = first | norm("post_layernorm", "norm") | _blocks(module, "encoder.layers.{}.", block)
    table |= {"embeddings.position_embedding.weight": Key("positions"), "embeddings.position_ids": Optional()}
    return prefixed(table, "vision_model.", ""), table


def _clip(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    names = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
    common = _hf_common({"patch_size": 32, "layer_norm_eps": 1e-5} | config)
    module = VisionEncoder(
        image_size=config.get("image_size", 224),
        activation=names[config.get("hidden_act", "quick_gelu")],
        layer_scale=False,
        patch_bias=False,
        first_norm=True,
        normed="class",
        **common,
    )
    first = conv("embeddings.patch_embedding", "embed", bias=False) | norm("pre_layrnorm", "first_norm")
    first |= {"embeddings.class_embedding": Key("class_token", "row")}
    return module, *_tower(module, first)


def _siglip(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    pool = config.get("vision_use_head", True)
    module = VisionEncoder(
        image_size=config.get("image_size", 224),
        activation="gelu_tanh",
        class_token=False,
        layer_scale=False,
        attention_pool=pool,
        **_hf_common(config),
    )
    head: Table = {"probe": Key("probe", ROW)}
    head |= joined("attention.in_proj_weight", "attention.in_proj_bias", "attention")
    head |= linear("attention.out_proj", "attention.project") | norm("layernorm", "norm") | _mlp(module, "", "", "")
    first = conv("embeddings.patch_embedding", "embed") | (prefixed(head, "head.", "attention_pool.") if pool else {})
    return module, *_tower(module, first)


_SIZES = {"small": "s", "base": "b", "large": "l"}
_WITHOUT_BIAS = {"attention_bias": "none"}
_TIMM: dict[str, tuple[str, dict[str, Any]]] = {"vit_small_plus_patch16_dinov3": ("dinov3_s16plus", _WITHOUT_BIAS)}
_TIMM["vit_small_plus_patch16_dinov3_qkvb"] = ("dinov3_s16plus", {})
for _name, _size in _SIZES.items():
    _TIMM |= {
        f"vit_{_name}_patch14_dinov2": (f"dinov2_{_size}14", {}),
        f"vit_{_name}_patch14_reg4_dinov2": (f"dinov2_{_size}14_reg", {"class_position": False}),
        f"vit_{_name}_patch16_dinov3": (f"dinov3_{_size}16", _WITHOUT_BIAS),
        f"vit_{_name}_patch16_dinov3_qkvb": (f"dinov3_{_size}16", {}),
    }

OPERATORS: Operators = {
    "dinov2.DinoVisionTransformer": _dinov2,
    "dinov3.DinoVisionTransformer": _dinov3,
    "Dinov2Model": partial(_hf_dinov2, registers=0),
    "Dinov2WithRegistersModel": partial(_hf_dinov2, registers=4),
    "DINOv3ViTModel": _hf_dinov3,
    "CLIPVisionModel": _clip,
    "SiglipVisionModel": _siglip,
    **{name: partial(_timm, name=ours, changes=changes) for name, (ours, changes) in _TIMM.items()},
}
