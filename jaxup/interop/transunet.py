"""TransUNet, hybrid form (R50-ViT).

The config has the entries of the official one: `n_classes`, `n_skip`, `decoder_channels`; `hidden_size` and those of
`transformer` and `resnet`, in these groups or as `hidden`, `mlp_dim`, `heads`, `layers`, `units`, `width_factor`; and
the argument `img_size`. What is left out is R50-ViT-B/16's. Every config may also have `upsampler`, whose parameters
have no official names, so that only those without any can be read, and `dtype`.
"""

from typing import Any

from flax import nnx

from jaxup.interop.backbones import conv_norm, options
from jaxup.interop.keys import Key, Operators, Table, conv, linear, norm, prefixed
from jaxup.models.segmentation import TransUNet

_ATTENTION = {"query": "query", "key": "key", "value": "value", "out": "project"}


def transunet_keys(module: TransUNet) -> Table:
    """Names of Beckschen/TransUNet."""
    table = prefixed(_resnet_keys(module), "transformer.embeddings.hybrid_model.", "resnet.")
    table |= {"transformer.embeddings.position_embeddings": Key("transformer.positions")}
    table |= conv("transformer.embeddings.patch_embeddings", "transformer.embed", layout="pointwise")
    table |= norm("transformer.encoder.encoder_norm", "transformer.norm")
    for i in range(len(module.transformer.blocks)):
        table |= prefixed(_block_keys(), f"transformer.encoder.layer.{i}.", f"transformer.blocks.{i}.")
    table |= conv_norm("decoder.conv_more.0", "decoder.conv_more.1", "widen")
    for i in range(len(module.blocks)):
        for j in range(2):
            torch = f"decoder.blocks.{i}.conv{j + 1}"
            table |= conv_norm(f"{torch}.0", f"{torch}.1", f"blocks.{i}.convs.{j}")
    return table | conv("segmentation_head.0", "head")


def _resnet_keys(module: TransUNet) -> Table:
    def layer(conv_name: str, norm_name: str, ours: str) -> Table:
        return conv(conv_name, f"{ours}.conv", bias=False) | norm(norm_name, f"{ours}.norm")

    table = layer("root.conv", "root.gn", "stem")
    for i, stage in enumerate(module.resnet.stages):
        for j, unit in enumerate(stage):
            torch, ours = f"body.block{i + 1}.unit{j + 1}", f"stages.{i}.{j}"
            for k in range(len(unit.convs)):
                table |= layer(f"{torch}.conv{k + 1}", f"{torch}.gn{k + 1}", f"{ours}.convs.{k}")
            if unit.shortcut is not None:
                table |= layer(f"{torch}.downsample", f"{torch}.gn_proj", f"{ours}.shortcut")
    return table


def _block_keys() -> Table:
    table = norm("attention_norm", "norms.0") | norm("ffn_norm", "norms.1")
    table |= linear("ffn.fc1", "mlp.expand") | linear("ffn.fc2", "mlp.reduce")
    for torch, ours in _ATTENTION.items():
        table |= linear(f"attn.{torch}", f"attention.{ours}")
    return table


def _transunet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    transformer, resnet = config.get("transformer") or {}, config.get("resnet") or {}
    module = TransUNet(
        config["n_classes"],
        image_size=config.get("img_size", 224),
        resnet_width=int(64 * resnet.get("width_factor", config.get("width_factor", 1))),
        resnet_depths=tuple(resnet.get("num_layers", config.get("units", (3, 4, 9)))),
        features=config.get("hidden_size", config.get("hidden", 768)),
        depth=transformer.get("num_layers", config.get("layers", 12)),
        num_heads=transformer.get("num_heads", config.get("heads", 12)),
        hidden_features=transformer.get("mlp_dim", config.get("mlp_dim", 3072)),
        decoder_features=tuple(config.get("decoder_channels", (256, 128, 64, 16))),
        skips=config.get("n_skip", 3),
        dropout=transformer.get("dropout_rate", 0.1),
        upsampler=config.get("upsampler", "bilinear"),
        **options(config),
    )
    return module, transunet_keys(module)


OPERATORS: Operators = {"TransUNet": _transunet}
