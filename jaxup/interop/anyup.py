"""Official AnyUp (wimmerth/anyup) to `jaxup.nn.AnyUp`."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, Unused, conv, norm, prefixed
from jaxup.nn.anyup import AnyUp, LearnedFeatureUnification

BASIS: Table = {"basis": Key("basis", "filters")}


def _res_block(torch: str, ours: str, shortcut: bool = False) -> Table:
    table = (
        norm("block.0", "norm1")
        | conv("block.2", "conv1", bias=False)
        | norm("block.3", "norm2")
        | conv("block.5", "conv2", bias=False)
    )
    table |= conv("shortcut", "shortcut", bias=False) if shortcut else {}
    return prefixed(table, f"{torch}.", f"{ours}.")


def _encoder(name: str) -> Table:
    blocks = _res_block("1", "blocks.0") | _res_block("2", "blocks.1")
    return prefixed(conv("0", "conv", bias=False) | blocks, f"{name}.", f"{name}.")


def _attention(depth: int) -> Table:
    """Of the official attention module, only the weights are used: values and output projection have no effect.

    Neither has the bias of the key, which adds the same to all scores of a query.
    """
    query, key = (Key(f"{name}.kernel", "linear") for name in ("query", "key"))
    return {
        "attention.in_proj_weight": (query, key, Unused((depth, depth))),
        "attention.in_proj_bias": (Key("query.bias"), Unused((depth,)), Unused((depth,))),
        "attention.out_proj.weight": Unused((depth, depth)),
        "attention.out_proj.bias": Unused((depth,)),
        "norm_q.weight": Key("norm_query.scale"),
        "norm_k.weight": Key("norm_key.scale"),
    }


def _anyup(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    depth = config["qk_dim"]
    unified = config.get("lfu_dim") or depth
    module = AnyUp(
        config.get("input_dim", 3),
        qk_features=depth,
        kernel_size=config.get("kernel_size", 1),
        unify_kernel_size=config.get("kernel_size_lfu", 5),
        unify_features=unified,
        window_ratio=config.get("window_ratio", 0.1),
        num_heads=config.get("num_heads", 4),
        rngs=nnx.Rngs(0),
    )
    table: Table = {"rope.freqs": Key("rope.freqs")}
    for name in ("image_encoder", "query_encoder", "key_encoder", "aggregation"):
        table |= _encoder(name)
    table |= prefixed(BASIS, "key_features_encoder.0.", "unify.")
    table |= _res_block("key_features_encoder.1", "feature_blocks.0", shortcut=unified != depth)
    table |= _res_block("key_features_encoder.2", "feature_blocks.1")
    table |= conv("cross_decode.conv2d", "mix_query", bias=False)
    return module, table | prefixed(_attention(depth), "cross_decode.cross_attn.", "")


def _unification(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = LearnedFeatureUnification(
        config["out_channels"], kernel_size=config.get("kernel_size", 5), rngs=nnx.Rngs(0)
    )
    return module, BASIS


OPERATORS: Operators = {"AnyUp": _anyup, "LearnedFeatureUnification": _unification}
