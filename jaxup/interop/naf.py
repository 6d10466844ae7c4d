"""Official NAF (valeoai/NAF) to `jaxup.nn.NAF`."""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options
from jaxup.interop.keys import Key, Operators, Table, conv, norm, prefixed
from jaxup.nn.naf import NAF


def _branch(depth: int) -> Table:
    table = conv("0", "first")
    for i in range(2 * depth):
        block = norm(f"norm{i % 2 + 1}", f"norms.{i}") | conv(f"conv{i % 2 + 1}", f"convs.{i}")
        table |= prefixed(block, f"{i // 2 + 1}.", "")
    return table


def _naf(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    depth = config.get("img_layers", 2)
    module = NAF(
        features=config.get("dim", 256),
        num_heads=config.get("heads_attn", 4),
        rotary_heads=config.get("heads_rope", 4),
        kernel_size=config.get("kernel_size", 9),
        depth=depth,
        rotary_base=config.get("rope_base", 100.0),
        **options(config),
    )
    table: Table = {"image_encoder.rope.periods": Key("periods")}
    for torch, ours in (("encoder", "pointwise"), ("sem_encoder", "around")):
        table |= prefixed(_branch(depth), f"image_encoder.{torch}.", f"{ours}.")
    return module, table


def config_of(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arguments that an official state dict was made with; heads and window of the attention are the released."""
    width = 2 * state["image_encoder.encoder.0.weight"].shape[0]
    periods = state["image_encoder.rope.periods"].shape[0]
    blocks = {key.split(".")[2] for key in state if key.startswith("image_encoder.encoder.")}
    return {"dim": width, "heads_rope": width // (4 * periods), "img_layers": len(blocks) - 1}


OPERATORS: Operators = {"NAF": _naf}
