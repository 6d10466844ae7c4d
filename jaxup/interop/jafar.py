"""Official JAFAR (PaulCouairon/JAFAR) to `jaxup.nn.JAFAR`."""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Table, Unused, conv, norm, prefixed
from jaxup.nn.jafar import JAFAR

_ENCODERS = {
    "image_encoder": "image_encoder",
    "query_encoder": "query_encoder",
    "key_encoder": "key_encoder",
    "key_features_encoder": "feature_encoder",
}


def _encoder(torch: str, ours: str) -> Table:
    table = conv("0", "conv", bias=False)
    for i in range(2):
        block = norm("norm1", "norm1") | norm("norm2", "norm2")
        block |= conv("conv1", "conv1", bias=False) | conv("conv2", "conv2", bias=False)
        table |= prefixed(block, f"{i + 1}.", f"blocks.{i}.")
    return prefixed(table, f"{torch}.", f"{ours}.")


def _attention(depth: int, features: int) -> Table:
    """Values, the output's projection and the bias of keys have no effect."""
    query, key = (Key(f"{name}.kernel", "linear") for name in ("query", "key"))
    if depth == features:
        weights: Table = {"in_proj_weight": (query, key, Unused((depth, depth)))}
    else:
        weights = {"q_proj_weight": query, "k_proj_weight": key, "v_proj_weight": Unused((depth, features))}
    weights |= {
        "in_proj_bias": (Key("query.bias"), Unused((depth,)), Unused((depth,))),
        "out_proj.weight": Unused((depth, depth)),
        "out_proj.bias": Unused((depth,)),
    }
    norms: Table = {
        "norm_q.weight": Key("norm_query.scale"),
        "norm_k.weight": Key("norm_key.scale"),
        "norm_v.weight": Unused((features,)),
    }
    return prefixed(weights, "attention.", "") | norms


def _jafar(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    depth, features = config.get("qk_dim", 128), config.get("v_dim", 384)
    module = JAFAR(
        features,
        config.get("input_dim", 3),
        qk_features=depth,
        kernel_size=config.get("kernel_size", 1),
        num_heads=config.get("num_heads", 4),
        **options(config),
    )
    table: Table = {"rope.freqs": Key("rope.freqs")}
    for torch, ours in _ENCODERS.items():
        table |= _encoder(torch, ours)
    table |= conv("cross_decode.conv2d", "mix_query", bias=False)
    for name in ("gamma", "beta"):
        table |= conv(f"sft_key.{name}", name, bias=False)
    return module, table | prefixed(_attention(depth, features), "cross_decode.cross_attn.", "")


def config_of(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments that an official state dict was made with; the number of heads is the released one."""
    depth, channels, size = state["image_encoder.0.weight"].shape[:3]
    return {
        "input_dim": channels,
        "qk_dim": depth,
        "v_dim": state["key_features_encoder.0.weight"].shape[1],
        "kernel_size": size,
    }


OPERATORS: Operators = {"JAFAR": _jafar}
