"""Joint bilateral upsamplers of FeatUp (mhamilton723/FeatUp)."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, conv, prefixed
from jaxup.nn.jbu import JBU, StackJBU

STAGE: Table = (
    {"range_temp": Key("temperature"), "sigma_spatial": Key("sigma")}
    | conv("range_proj.0", "range.first")
    | conv("range_proj.3", "range.second")
    | conv("fixup_proj.0", "fixup.first")
    | conv("fixup_proj.3", "fixup.second")
)


def _jbu(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """`scale` has no influence in the official code."""
    module = JBU(
        config["feat_dim"],
        config["guidance_dim"],
        key_features=config["key_dim"],
        radius=config.get("radius", 3),
        fixup=True,
        rngs=nnx.Rngs(0),
    )
    return module, STAGE


def _stack(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = StackJBU(config["feat_dim"], 3, fixup=True, rngs=nnx.Rngs(0))
    table = conv("fixup_proj.1", "fixup")
    for n in range(4):
        table |= prefixed(STAGE, f"up{n + 1}.", f"stages.{n}.")
    return module, table


OPERATORS: Operators = {"JBULearnedRange": _jbu, "JBUStack": _stack}
