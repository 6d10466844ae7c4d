"""Official LoftUp (andrehuang/loftup) to `jaxup.nn.LoftUp`."""

import math
from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Layout, Operators, Table, batch_norm, conv, linear, norm, prefixed
from jaxup.interop.vit import NAMES
from jaxup.nn.loftup import LoftUp


def _biases(coordinates: int) -> Layout:
    """[2, m, n] that is read as [2, n, m] in the order of memory <-> [2, n m]."""
    return Layout(lambda x: x.reshape(2, -1), lambda x: x.reshape(2, coordinates, -1))


def _table(side: int) -> Layout:
    """[1, side^2, C] <-> [side, side, C]."""
    return Layout(lambda x: x.reshape(side, side, -1), lambda x: x.reshape(1, side * side, -1))


def _block() -> Table:
    attention = norm("norm_q", "norm_query") | norm("norm_kv", "norm_key")
    attention |= {
        "attention.in_proj_weight": tuple(Key(f"{name}.kernel", "linear") for name in NAMES),
        "attention.in_proj_bias": tuple(Key(f"{name}.bias") for name in NAMES),
    }
    attention |= linear("attention.out_proj", "project")
    mlp = norm("net.0", "norm") | linear("net.1", "expand") | linear("net.4", "reduce")
    return prefixed(attention, "0.", "") | prefixed(mlp, "1.", "")


def _loftup(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    sine, side = config.get("lr_pe_type", "sine") == "sine", config.get("lr_size", 16)
    depth = config.get("num_layers", 2)
    module = LoftUp(
        config.get("dim", 384),
        num_frequencies=config.get("n_freqs", 20),
        num_heads=config.get("num_heads", 4),
        depth=depth,
        positions="sine" if sine else "learned",
        low_size=side,
        **options(config),
    )
    table: Table = {"fourier_feat.1.biases": Key("fourier.biases", _biases(5))}
    table |= norm("first_conv.0.norm", "norm_described")
    for i in range(2):
        table |= conv(f"first_conv.{3 * i + 1}", f"convs.{i}") | batch_norm(f"first_conv.{3 * i + 2}", f"norms.{i}")
    for i in range(depth):
        table |= prefixed(_block(), f"ca_transformer.layers.{i}.", f"blocks.{i}.")
    table |= norm("ca_transformer.norm", "norm")
    if sine:
        table["lr_pe.biases"] = Key("low_fourier.biases", _biases(2))
        table |= conv("final_conv.0", "last", layout="pointwise") | norm("final_conv.1", "norm_out")
    else:
        table["lr_pe"] = Key("table", _table(side))
        table |= norm("final_conv", "norm_out")
    return module, prefixed(table, "upsampler.", "") | norm("channelnorm.norm", "norm_features")


def config_of(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments that an official state dict was made with; the number of heads is the released one."""
    learned = "upsampler.lr_pe" in state
    layers = {key.split(".")[3] for key in state if key.startswith("upsampler.ca_transformer.layers.")}
    return {
        "dim": state["channelnorm.norm.weight"].shape[0],
        "n_freqs": state["upsampler.fourier_feat.1.biases"].shape[2],
        "num_layers": len(layers),
        "lr_pe_type": "learnable" if learned else "sine",
        "lr_size": math.isqrt(state["upsampler.lr_pe"].shape[1]) if learned else 16,
    }


OPERATORS: Operators = {"LoftUp": _loftup}
