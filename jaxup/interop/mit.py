"""Mix Transformer, the encoder of SegFormer, of NVlabs, of mmsegmentation and of Hugging Face.

Beside the official arguments every config may have `dtype`, the type in which the layers compute. Names are those of
the backbone by itself: whole networks have `backbone.` or `segformer.` in front of them.
"""

from functools import partial
from typing import Any

from flax import nnx

from jaxup.interop.backbones import classified, options
from jaxup.interop.keys import Operators, Table, conv, linear, norm, prefixed
from jaxup.interop.vit import NAMES, joined
from jaxup.models.backbones import BACKBONES, MiT


def mit_keys(module: MiT) -> Table:
    """Names of NVlabs: `patch_embed1`, `block1.0`, `norm1`."""
    table: Table = {}
    for i, stage in enumerate(module.stages):
        ours = f"stages.{i}"
        table |= conv(f"patch_embed{i + 1}.proj", f"{ours}.embed")
        table |= norm(f"patch_embed{i + 1}.norm", f"{ours}.embed_norm") | norm(f"norm{i + 1}", f"{ours}.norm")
        for j, block in enumerate(stage.blocks):
            attention = "attention.layer.attend"
            names = (
                norm("norm1", "attention.norm")
                | linear("attn.q", f"{attention}.query")
                | joined("attn.kv.weight", "attn.kv.bias", attention, ("key", "value"))
                | linear("attn.proj", f"{attention}.project")
                | _reduction("attn.sr", "attn.norm", block)
                | norm("norm2", "mlp.norm")
                | linear("mlp.fc1", "mlp.layer.expand")
                | conv("mlp.dwconv.dwconv", "mlp.layer.mix")
                | linear("mlp.fc2", "mlp.layer.reduce")
            )
            table |= prefixed(names, f"block{i + 1}.{j}.", f"{ours}.blocks.{j}.")
    return table


def mit_keys_mmseg(module: MiT) -> Table:
    """Names of mmsegmentation's `MixVisionTransformer`, which has the linear layers of the MLP as convolutions."""
    table: Table = {}
    for i, stage in enumerate(module.stages):
        torch, ours = f"layers.{i}", f"stages.{i}"
        table |= conv(f"{torch}.0.projection", f"{ours}.embed")
        table |= norm(f"{torch}.0.norm", f"{ours}.embed_norm") | norm(f"{torch}.2", f"{ours}.norm")
        for j, block in enumerate(stage.blocks):
            attention = "attention.layer.attend"
            names = (
                norm("norm1", "attention.norm")
                | joined("attn.attn.in_proj_weight", "attn.attn.in_proj_bias", attention)
                | linear("attn.attn.out_proj", f"{attention}.project")
                | _reduction("attn.sr", "attn.norm", block)
                | norm("norm2", "mlp.norm")
                | conv("ffn.layers.0", "mlp.layer.expand", layout="pointwise")
                | conv("ffn.layers.1", "mlp.layer.mix")
                | conv("ffn.layers.4", "mlp.layer.reduce", layout="pointwise")
            )
            table |= prefixed(names, f"{torch}.1.{j}.", f"{ours}.blocks.{j}.")
    return table


def mit_keys_hf(module: MiT) -> Table:
    """Names of Hugging Face's checkpoints of `SegformerModel`."""
    table: Table = {}
    for i, stage in enumerate(module.stages):
        ours = f"stages.{i}"
        table |= conv(f"encoder.patch_embeddings.{i}.proj", f"{ours}.embed")
        table |= norm(f"encoder.patch_embeddings.{i}.layer_norm", f"{ours}.embed_norm")
        table |= norm(f"encoder.layer_norm.{i}", f"{ours}.norm")
        for j, block in enumerate(stage.blocks):
            attention = "attention.layer.attend"
            names = (
                norm("layer_norm_1", "attention.norm")
                | linear("attention.output.dense", f"{attention}.project")
                | _reduction("attention.self.sr", "attention.self.layer_norm", block)
                | norm("layer_norm_2", "mlp.norm")
                | linear("mlp.dense1", "mlp.layer.expand")
                | conv("mlp.dwconv.dwconv", "mlp.layer.mix")
                | linear("mlp.dense2", "mlp.layer.reduce")
            )
            for name in NAMES:
                names |= linear(f"attention.self.{name}", f"{attention}.{name}")
            table |= prefixed(names, f"encoder.block.{i}.{j}.", f"{ours}.blocks.{j}.")
    return table


def _reduction(conv_name: str, norm_name: str, block: Any) -> Table:
    reduce = "attention.layer.reduce"
    if block.attention.layer.reduce is None:
        return {}
    return conv(conv_name, f"{reduce}.conv") | norm(norm_name, f"{reduce}.norm")


def _nvlabs_mit(config: dict[str, Any], name: str) -> tuple[nnx.Module, Table]:
    module = MiT(**BACKBONES[name][1], **options(config))
    return module, mit_keys(module) | classified("head", {})


def _mmseg_mit(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    heads = config.get("num_heads", (1, 2, 4, 8))
    module = MiT(
        config.get("in_channels", 3),
        widths=[config.get("embed_dims", 64) * n for n in heads],
        depths=config.get("num_layers", (3, 4, 6, 3)),
        num_heads=heads,
        reductions=config.get("sr_ratios", (8, 4, 2, 1)),
        mlp_ratio=config.get("mlp_ratio", 4),
        epsilon=1e-6,
        embed_epsilon=1e-6,
        **options(config),
    )
    return module, mit_keys_mmseg(module)


def _hf_mit(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = MiT(
        config.get("num_channels", 3),
        widths=config.get("hidden_sizes", (32, 64, 160, 256)),
        depths=config.get("depths", (2, 2, 2, 2)),
        num_heads=config.get("num_attention_heads", (1, 2, 5, 8)),
        reductions=config.get("sr_ratios", (8, 4, 2, 1)),
        epsilon=1e-5,
        embed_epsilon=1e-5,
        **options(config),
    )
    return module, mit_keys_hf(module)


OPERATORS: Operators = {
    **{f"mit_b{i}": partial(_nvlabs_mit, name=f"mit_b{i}") for i in range(6)},
    "MixVisionTransformer": _mmseg_mit,
    "SegformerModel": _hf_mit,
}
