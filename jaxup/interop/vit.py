"""ViT of timm, of Segmenter and of mmsegmentation.

Beside the official arguments every config may have `dtype`, the type in which the layers compute. Names are those of
the backbone by itself: whole networks have `backbone.` or `encoder.` in front of them.
"""

from functools import partial
from typing import Any

from flax import nnx

from jaxup.interop.backbones import classified, options
from jaxup.interop.keys import Key, Layout, Operators, Table, conv, linear, norm, prefixed
from jaxup.models.backbones import BACKBONES, ViT

NAMES = ("query", "key", "value")
ROW = Layout(lambda x: x[0], lambda x: x[None])  # [1, n, C] <-> [n, C]


def joined(weight: str, bias: str, ours: str, names: tuple[str, ...] = NAMES) -> Table:
    """Several linear layers in one tensor."""
    return {
        weight: tuple(Key(f"{ours}.{name}.kernel", "linear") for name in names),
        bias: tuple(Key(f"{ours}.{name}.bias") for name in names),
    }


def vit_keys(module: ViT) -> Table:
    """Names of timm, and of Segmenter's encoder."""
    table = _vit_embedding(module, "patch_embed.proj") | norm("norm", "norm")
    return table | vit_block_keys(len(module.blocks))


def vit_block_keys(count: int) -> Table:
    """Names of timm's blocks, which Segmenter's mask decoder has, too."""
    block = (
        norm("norm1", "attention.norm")
        | joined("attn.qkv.weight", "attn.qkv.bias", "attention.layer")
        | linear("attn.proj", "attention.layer.project")
        | norm("norm2", "mlp.norm")
        | linear("mlp.fc1", "mlp.layer.expand")
        | linear("mlp.fc2", "mlp.layer.reduce")
    )
    table: Table = {}
    for i in range(count):
        table |= prefixed(block, f"blocks.{i}.", f"blocks.{i}.")
    return table


def vit_keys_mmseg(module: ViT) -> Table:
    """Names of mmsegmentation's `VisionTransformer`."""
    table = _vit_embedding(module, "patch_embed.projection") | norm("ln1", "norm")
    for i in range(len(module.blocks)):
        block = (
            norm("ln1", "attention.norm")
            | joined("attn.attn.in_proj_weight", "attn.attn.in_proj_bias", "attention.layer")
            | linear("attn.attn.out_proj", "attention.layer.project")
            | norm("ln2", "mlp.norm")
            | linear("ffn.layers.0.0", "mlp.layer.expand")
            | linear("ffn.layers.1", "mlp.layer.reduce")
        )
        table |= prefixed(block, f"layers.{i}.", f"blocks.{i}.")
    return table


def _vit_embedding(module: ViT, patches: str) -> Table:
    table: Table = {"cls_token": Key("class_token", ROW), "pos_embed": Key("positions", ROW)}
    return table | conv(patches, "embed", bias=module.embed.bias is not None)


def _timm_vit(config: dict[str, Any], name: str) -> tuple[nnx.Module, Table]:
    module = ViT(
        **BACKBONES[name][1],
        image_size=_pair(config.get("img_size", 224)),
        taps=config.get("taps"),
        num_classes=config.get("num_classes"),
        **options(config),
    )
    return module, vit_keys(module) | classified("head", config)


def _segmenter_vit(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = ViT(
        patch_size=config.get("patch_size", 16),
        width=config["d_model"],
        depth=config["n_layers"],
        num_heads=config["n_heads"],
        mlp_ratio=config.get("d_ff", 4 * config["d_model"]) // config["d_model"],
        image_size=_pair(config["image_size"]),
        position_resize="bilinear",
        epsilon=1e-5,
        num_classes=config.get("n_cls"),
        **options(config),
    )
    return module, vit_keys(module) | classified("head", config, "n_cls")


def _mmseg_vit(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = ViT(
        config.get("in_channels", 3),
        patch_size=config.get("patch_size", 16),
        width=config.get("embed_dims", 768),
        depth=config.get("num_layers", 12),
        num_heads=config.get("num_heads", 12),
        mlp_ratio=config.get("mlp_ratio", 4),
        image_size=_pair(config.get("img_size", 224)),
        position_resize=config.get("interpolate_mode", "bicubic"),
        patch_bias=config.get("patch_bias", False),
        **options(config),
    )
    return module, vit_keys_mmseg(module)


def _pair(value: Any) -> Any:
    return value if isinstance(value, int) else tuple(value)


_TIMM = {"tiny": "vit_ti", "small": "vit_s", "base": "vit_b", "large": "vit_l"}

OPERATORS: Operators = {
    **{f"vit_{size}_patch16_224": partial(_timm_vit, name=name) for size, name in _TIMM.items()},
    "segm.VisionTransformer": _segmenter_vit,
    "VisionTransformer": _mmseg_vit,
}
