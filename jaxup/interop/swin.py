"""Swin of Hugging Face's MaskFormer."""

from typing import Any

from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Table, Unused, conv, linear, norm, prefixed
from jaxup.interop.vit import NAMES
from jaxup.models.backbones import Swin


def swin_keys(module: Swin) -> Table:
    """Names of Hugging Face's `MaskFormerSwinBackbone`; the norm of the last map that it also has is without effect."""
    table = conv("model.embeddings.patch_embeddings.projection", "embed") | norm("model.embeddings.norm", "embed_norm")
    table |= {f"model.layernorm.{name}": Unused((module.features[-1],)) for name in ("weight", "bias")}
    for i, stage in enumerate(module.stages):
        layer = f"model.encoder.layers.{i}"
        table |= norm(f"hidden_states_norms.{i}", f"norms.{i}")
        if i < len(module.merges):
            table |= linear(f"{layer}.downsample.reduction", f"merges.{i}.reduce", bias=False)
            table |= norm(f"{layer}.downsample.norm", f"merges.{i}.norm")
        for j in range(len(stage)):
            names = (
                norm("layernorm_before", "attention.norm")
                | {"attention.self.relative_position_bias_table": Key("attention.layer.bias")}
                | linear("attention.output.dense", "attention.layer.attend.project")
                | norm("layernorm_after", "mlp.norm")
                | linear("intermediate.dense", "mlp.layer.expand")
                | linear("output.dense", "mlp.layer.reduce")
            )
            for name in NAMES:
                names |= linear(f"attention.self.{name}", f"attention.layer.attend.{name}")
            table |= prefixed(names, f"{layer}.blocks.{j}.", f"stages.{i}.{j}.")
    return table


def _swin(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = Swin(
        config.get("num_channels", 3),
        patch_size=config.get("patch_size", 4),
        width=config.get("embed_dim", 96),
        depths=config.get("depths", (2, 2, 6, 2)),
        num_heads=config.get("num_heads", (3, 6, 12, 24)),
        window_size=config.get("window_size", 7),
        **options(config),
    )
    return module, swin_keys(module)


OPERATORS: Operators = {"MaskFormerSwinBackbone": _swin}
