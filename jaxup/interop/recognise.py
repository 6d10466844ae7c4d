"""What weights of encoders and upsamplers of features are of: told by the names and shapes of their arrays."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxup.interop import jafar, loftup, naf, uplift

Tensors = Mapping[str, np.ndarray]
Found = tuple[str, dict[str, Any]]  # an official class and its arguments

_HEADS = {1152: 16, 4096: 32}  # of widths whose heads have not 64 channels


def inner(tensors: Tensors) -> tuple[Tensors, Found | None]:
    """What tensors are of, and these without the names that all begin with, if that is needed."""
    while (found := recognise(tensors)) is None:
        if len({key.partition(".")[0] for key in tensors}) != 1 or not all("." in key for key in tensors):
            break
        tensors = {key.partition(".")[2]: x for key, x in tensors.items()}
    return tensors, found


def recognise(tensors: Tensors) -> Found | None:
    """The official class that has tensors of these names, and its arguments as far as shapes tell them; or None."""
    return next((describe(tensors) for key, describe in _KINDS if key in tensors), None)


def _count(tensors: Tensors, name: str) -> int:
    """How many blocks there are under a name with a place for the number."""
    before = name.partition("{}")[0]
    numbers = {key.removeprefix(before).partition(".")[0] for key in tensors if key.startswith(before)}
    return len(numbers)


def _sizes(tensors: Tensors, patches: str, blocks: str) -> tuple[int, int, int, int]:
    """Width, patch, depth and heads."""
    width, _, _, patch = tensors[patches].shape
    return width, patch, _count(tensors, blocks), _HEADS.get(width, width // 64)


def _side(tensors: Tensors, positions: str, others: int, patch: int) -> int:
    return patch * math.isqrt(tensors[positions].shape[-2] - others)


def _dinov2(tensors: Tensors) -> Found:
    width, patch, depth, heads = _sizes(tensors, "patch_embed.proj.weight", "blocks.{}")
    registers = tensors["register_tokens"].shape[1] if "register_tokens" in tensors else 0
    gated = "blocks.0.mlp.w12.weight" in tensors
    config = dict(embed_dim=width, patch_size=patch, depth=depth, num_heads=heads, num_register_tokens=registers)
    config |= dict(img_size=_side(tensors, "pos_embed", 1, patch))
    return "dinov2.DinoVisionTransformer", config | ({"ffn_layer": "swiglufused"} if gated else {})


def _dinov3(tensors: Tensors) -> Found:
    width, patch, depth, heads = _sizes(tensors, "patch_embed.proj.weight", "blocks.{}")
    gated = "blocks.0.mlp.w1.weight" in tensors
    hidden = len(tensors[f"blocks.0.mlp.{'w1' if gated else 'fc1'}.weight"])
    config: dict[str, Any] = dict(embed_dim=width, patch_size=patch, depth=depth, num_heads=heads)
    config |= dict(n_storage_tokens=tensors["storage_tokens"].shape[1], ffn_layer="swiglu" if gated else "mlp")
    config |= dict(ffn_ratio=hidden / width * (1.5 if gated else 1), qkv_bias="blocks.0.attn.qkv.bias" in tensors)
    return "dinov3.DinoVisionTransformer", config | {"mask_k_bias": "blocks.0.attn.qkv.bias_mask" in tensors}


def _timm(tensors: Tensors) -> Found | None:
    width = tensors["patch_embed.proj.weight"].shape[0]
    size = {384: "small", 768: "base", 1024: "large"}.get(width)
    registers = "reg_token" in tensors
    if size is None:
        return None
    if "blocks.0.gamma_1" not in tensors:
        return f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2", {}
    plus = "_plus" if "blocks.0.mlp.fc1_g.weight" in tensors else ""
    bias = "_qkvb" if "blocks.0.attn.qkv.bias" in tensors else ""
    return f"vit_{size}{plus}_patch16_dinov3{bias}", {}


def _meta(tensors: Tensors) -> Found | None:
    """Official DINOv2 has a mask token, which timm has not."""
    return _dinov2(tensors) if "mask_token" in tensors else _timm(tensors)


def _hf_dinov2(tensors: Tensors) -> Found:
    patches = "embeddings.patch_embeddings.projection.weight"
    width, patch, depth, heads = _sizes(tensors, patches, "encoder.layer.{}")
    config: dict[str, Any] = dict(hidden_size=width, patch_size=patch, num_hidden_layers=depth)
    config |= dict(num_attention_heads=heads, image_size=_side(tensors, "embeddings.position_embeddings", 1, patch))
    config |= {"use_swiglu_ffn": "encoder.layer.0.mlp.weights_in.weight" in tensors}
    if "embeddings.register_tokens" not in tensors:
        return "Dinov2Model", config
    return "Dinov2WithRegistersModel", config | {"num_register_tokens": tensors["embeddings.register_tokens"].shape[1]}


def _hf_dinov3(tensors: Tensors) -> Found:
    width, patch, depth, heads = _sizes(tensors, "embeddings.patch_embeddings.weight", "layer.{}")
    config: dict[str, Any] = dict(hidden_size=width, patch_size=patch, num_hidden_layers=depth)
    config |= dict(num_attention_heads=heads, num_register_tokens=tensors["embeddings.register_tokens"].shape[1])
    config |= dict(intermediate_size=len(tensors["layer.0.mlp.up_proj.weight"]))
    config |= {
        f"{name}_bias": f"layer.0.attention.{name[0]}_proj.bias" in tensors for name in ("query", "key", "value")
    }
    return "DINOv3ViTModel", config | {"use_gated_mlp": "layer.0.mlp.gate_proj.weight" in tensors}


def _tower(tensors: Tensors) -> Found:
    first = "vision_model.embeddings."
    width, patch, depth, heads = _sizes(tensors, f"{first}patch_embedding.weight", "vision_model.encoder.layers.{}")
    of_class = 1 if f"{first}class_embedding" in tensors else 0
    config: dict[str, Any] = dict(hidden_size=width, patch_size=patch, num_hidden_layers=depth)
    config |= dict(
        num_attention_heads=heads, image_size=_side(tensors, f"{first}position_embedding.weight", of_class, patch)
    )
    config |= dict(intermediate_size=len(tensors["vision_model.encoder.layers.0.mlp.fc1.weight"]))
    if of_class:
        return "CLIPVisionModel", config
    return "SiglipVisionModel", config | {"vision_use_head": "vision_model.head.probe" in tensors}


def _anyup(tensors: Tensors) -> Found:
    depth, channels, size = tensors["image_encoder.0.weight"].shape[:3]
    basis = tensors["key_features_encoder.0.basis"].shape
    config = dict(qk_dim=depth, input_dim=channels, kernel_size=size, lfu_dim=basis[0], kernel_size_lfu=basis[2])
    return "AnyUp", config


def _of(operator: str, file: Any) -> Callable[[Tensors], Found]:
    return lambda tensors: (operator, file.config_of(dict(tensors)))


# The first name that is among the tensors says what they are.
_KINDS: list[tuple[str, Callable[[Tensors], Found | None]]] = [
    ("storage_tokens", _dinov3),
    ("embeddings.patch_embeddings.projection.weight", _hf_dinov2),
    ("embeddings.patch_embeddings.weight", _hf_dinov3),
    ("vision_model.embeddings.patch_embedding.weight", _tower),
    ("patch_embed.proj.weight", _meta),
    ("key_features_encoder.0.basis", _anyup),
    ("decoder.up_1.up.weight", _of("UPLiFT", uplift)),
    ("image_encoder.sem_encoder.0.weight", _of("NAF", naf)),
    ("sft_key.gamma.weight", _of("JAFAR", jafar)),
    ("upsampler.ca_transformer.norm.weight", _of("LoftUp", loftup)),
]


def of_config(config: Mapping[str, Any]) -> Found | None:
    """What a description says; those of two towers have one for each."""
    inner = config.get("vision_config") if isinstance(config.get("vision_config"), dict) else config
    kinds = {
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
        "dinov3_vit": "DINOv3ViTModel",
        "clip": "CLIPVisionModel",
        "clip_vision_model": "CLIPVisionModel",
        "siglip": "SiglipVisionModel",
        "siglip_vision_model": "SiglipVisionModel",
    }
    name = kinds.get(str(config.get("model_type")))
    plain = {key: value for key, value in dict(inner or {}).items() if isinstance(value, int | float | str | bool)}
    return None if name is None else (name, plain)
