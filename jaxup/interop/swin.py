"""Swin of Hugging Face, of mmsegmentation and of Microsoft's segmentation code, and classifiers of Microsoft and timm.

    "MaskFormerSwinBackbone"          Hugging Face's MaskFormer: {"embed_dim": 96, "depths": ..., "num_heads": ...}
    "SwinBackbone"                    Hugging Face's UperNet, with the same arguments
    "SwinTransformer"                 mmsegmentation: {"embed_dims": 96, ...}, or Microsoft's segmentation code
    "swin_tiny_patch4_window7_224"    and its like: classifiers of Microsoft and of timm

Classifiers have one norm, that of the last map. On a map that is one window, they and "SwinBackbone" do not shift.
Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Optional, Table, Unused, conv, linear, norm, permuted, prefixed
from jaxup.interop.vit import NAMES, joined
from jaxup.models.backbones import BACKBONES, Swin

_BIAS: Table = {"attn.relative_position_bias_table": Key("attention.layer.bias")}


def swin_keys(module: Swin) -> Table:
    """Names of Hugging Face's `MaskFormerSwinBackbone`; the norm of the last map that it also has is without effect."""
    table = prefixed(_hugging_face(module), "model.", "")
    table |= {f"model.layernorm.{name}": Unused((module.features[-1],)) for name in ("weight", "bias")}
    for i in range(len(module.stages)):
        table |= norm(f"hidden_states_norms.{i}", f"norms.{i}")
    return table


def swin_keys_stages(module: Swin) -> Table:
    """Names of Hugging Face's `SwinBackbone`."""
    table = _hugging_face(module)
    for i in range(len(module.stages)):
        table |= norm(f"hidden_states_norms.stage{i + 1}", f"norms.{i}")
    return table


def _hugging_face(module: Swin) -> Table:
    table = conv("embeddings.patch_embeddings.projection", "embed") | norm("embeddings.norm", "embed_norm")
    block = (
        norm("layernorm_before", "attention.norm")
        | {"attention.self.relative_position_bias_table": Key("attention.layer.bias")}
        | linear("attention.output.dense", "attention.layer.attend.project")
        | norm("layernorm_after", "mlp.norm")
        | linear("intermediate.dense", "mlp.layer.expand")
        | linear("output.dense", "mlp.layer.reduce")
    )
    for name in NAMES:
        block |= linear(f"attention.self.{name}", f"attention.layer.attend.{name}")
    for i in range(len(module.merges)):
        table |= _merge(f"encoder.layers.{i}.downsample", i)
    return table | _blocks(module, "encoder.layers", block)


def swin_keys_mmseg(module: Swin) -> Table:
    """Names of mmsegmentation; there the four pixels that are merged run inside each channel, row by row."""
    table = conv("patch_embed.projection", "embed") | norm("patch_embed.norm", "embed_norm")
    block = (
        norm("norm1", "attention.norm")
        | {"attn.w_msa.relative_position_bias_table": Key("attention.layer.bias")}
        | joined("attn.w_msa.qkv.weight", "attn.w_msa.qkv.bias", "attention.layer.attend")
        | linear("attn.w_msa.proj", "attention.layer.attend.project")
        | norm("norm2", "mlp.norm")
        | linear("ffn.layers.0.0", "mlp.layer.expand")
        | linear("ffn.layers.1", "mlp.layer.reduce")
    )
    for i, merge in enumerate(module.merges):
        channels = np.arange(merge.norm.num_features).reshape(-1, 2, 2)
        order = channels.transpose(2, 1, 0).reshape(-1)  # ours: columns, rows, channels
        torch, ours = f"stages.{i}.downsample", f"merges.{i}"
        table[f"{torch}.reduction.weight"] = Key(f"{ours}.reduce.kernel", permuted("linear", 0, order))
        for name, path in (("weight", "scale"), ("bias", "bias")):
            table[f"{torch}.norm.{name}"] = Key(f"{ours}.norm.{path}", permuted("same", 0, order))
    return table | _blocks(module, "stages", block) | _norms(module)


def swin_keys_microsoft(module: Swin, *, merged_first: bool = False) -> Table:
    """Names of Microsoft's code; timm's are the same, but that a stage begins with the merging, `merged_first`."""
    table = conv("patch_embed.proj", "embed") | norm("patch_embed.norm", "embed_norm")
    block = (
        norm("norm1", "attention.norm")
        | _BIAS
        | joined("attn.qkv.weight", "attn.qkv.bias", "attention.layer.attend")
        | linear("attn.proj", "attention.layer.attend.project")
        | norm("norm2", "mlp.norm")
        | linear("mlp.fc1", "mlp.layer.expand")
        | linear("mlp.fc2", "mlp.layer.reduce")
    )
    for i in range(len(module.merges)):
        table |= _merge(f"layers.{i + merged_first}.downsample", i)
    return table | _blocks(module, "layers", block)


def _blocks(module: Swin, stages: str, block: Table) -> Table:
    table: Table = {}
    for i, stage in enumerate(module.stages):
        for j in range(len(stage)):
            table |= prefixed(block, f"{stages}.{i}.blocks.{j}.", f"stages.{i}.{j}.")
            table[f"{stages}.{i}.blocks.{j}.attn_mask"] = Optional()
    return table


def _merge(torch: str, i: int) -> Table:
    return linear(f"{torch}.reduction", f"merges.{i}.reduce", bias=False) | norm(f"{torch}.norm", f"merges.{i}.norm")


def _norms(module: Swin) -> Table:
    table: Table = {}
    for i in range(len(module.stages)):
        table |= norm(f"norm{i}", f"norms.{i}")
    return table


def _hf_swin(config: dict[str, Any], *, keys: Any, shift_one_window: bool) -> tuple[nnx.Module, Table]:
    module = Swin(
        config.get("num_channels", 3),
        width=config.get("embed_dim", 96),
        shift_one_window=shift_one_window,
        **_sizes(config),
        **options(config),
    )
    return module, keys(module)


def _mmseg_swin(config: dict[str, Any]) -> tuple[nnx.Module, Table, Table]:
    width = config.get("embed_dims", config.get("embed_dim", 96))
    module = Swin(config.get("in_channels", 3), width=width, **_sizes(config), **options(config))
    return module, swin_keys_mmseg(module), swin_keys_microsoft(module) | _norms(module)


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    return dict(
        patch_size=config.get("patch_size", 4),
        depths=config.get("depths", (2, 2, 6, 2)),
        num_heads=config.get("num_heads", (3, 6, 12, 24)),
        window_size=config.get("window_size", 7),
    )


def _classifier(config: dict[str, Any], name: str, window: int) -> tuple[nnx.Module, Table, Table]:
    sizes: dict[str, Any] = {**BACKBONES[name][1], "window_size": window}
    module = Swin(**sizes, norms="last", shift_one_window=False, **options(config))
    last = norm("norm", f"norms.{len(module.stages) - 1}")
    heads: list[Table] = [{f"{head}.{part}": Optional() for part in ("weight", "bias")} for head in ("head", "head.fc")]
    microsoft, timm = swin_keys_microsoft(module), swin_keys_microsoft(module, merged_first=True)
    return module, microsoft | last | heads[0], timm | last | heads[1]


_CLASSIFIERS = {
    f"swin_{size}_patch4_window{window}_{side}": partial(_classifier, name=f"swin_{size[0]}", window=window)
    for size in ("tiny", "small", "base", "large")
    for window, side in ((7, 224), (12, 384))
    if side == 224 or size in ("base", "large")
}

OPERATORS: Operators = {
    "MaskFormerSwinBackbone": partial(_hf_swin, keys=swin_keys, shift_one_window=True),
    "SwinBackbone": partial(_hf_swin, keys=swin_keys_stages, shift_one_window=False),
    "SwinTransformer": _mmseg_swin,
    **_CLASSIFIERS,
}
