"""Official SAPA (poppinace/sapa, SAPA.py and SAPAExp.py) to `jaxup.nn.SAPA`."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Operators, Table, linear, norm
from jaxup.nn.sapa import SAPA

_QUERIES = {"encoder_only": "guide", "cat": "concat", "gate": "gate"}


def _sapa(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    features, bias = config.get("dim_x") or config["dim_y"], config.get("qkv_bias", True)
    module = SAPA(
        features,
        config["dim_y"],
        config.get("out_dim"),
        scale=config.get("up_factor", 2),
        kernel_size=config.get("up_kernel_size", 5),
        embedding_features=config.get("embedding_dim", 64),
        similarity=config.get("similarity", "bilinear"),
        query=_QUERIES[config.get("q_mode", "encoder_only")],
        value_projection=config.get("v_embed", False),
        use_bias=bias,
        rngs=nnx.Rngs(0),
    )
    table = norm("norm_y", "norm_guide") | norm("norm_x", "norm_x")
    if module.similarity == "bilinear":
        table |= linear("k", "key", bias=bias)
        if module.query_mode == "gate":
            table |= linear("qy", "query", bias=bias) | linear("qx", "query_x", bias=bias) | linear("gate", "gate")
        else:
            table |= linear("q", "query", bias=bias)
    if module.value is not None:
        table |= linear("v", "value", bias=bias)
    return module, table


OPERATORS: Operators = {"SAPA": _sapa, "SAPAExp": _sapa}
