"""DySample of tiny-smart/dysample."""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.keys import Constant, Operators, Table, conv
from jaxup.nn.dysample import DySample


def _dysample(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    scale, groups = config.get("scale", 2), config.get("groups", 4)
    module = DySample(
        config["in_channels"],
        scale=scale,
        style=config.get("style", "lp"),
        groups=groups,
        dynamic_scope=config.get("dyscope", False),
        rngs=nnx.Rngs(0),
    )
    table: Table = {"init_pos": Constant(_initial_positions(scale, groups))}
    table |= conv("offset", "offset", layout="pointwise")
    if module.scope is not None:
        table |= conv("scope", "scope", bias=False, layout="pointwise")
    return module, table


def _initial_positions(scale: int, groups: int) -> np.ndarray:
    """Offsets of the phases, channel ((axis*g + group)*s + dy)*s + dx; axis 0 is horizontal."""
    phase = (np.arange(scale, dtype=np.float32) - (scale - 1) / 2) / scale
    across, down = np.meshgrid(phase, phase)
    return np.stack([across, down])[:, None].repeat(groups, axis=1).reshape(1, -1, 1, 1)


OPERATORS: Operators = {"DySample": _dysample}
