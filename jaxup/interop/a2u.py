"""Kernels of the official A2U code (dongdong93/a2u_matting)."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Operators, Table, conv, norm
from jaxup.nn.a2u import A2UKernels


def _inter_channel_up_down(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = A2UKernels(
        config["c"],
        kernel_size=config["up_kernel_size"],
        groups=config.get("downupsample_group", 1),
        encoder_kernel_size=config["encode_kernel_size"],
        shared=config["share"],
        interleaved=True,
        rngs=nnx.Rngs(0),
    )
    return module, kernels_keys()


def kernels_keys() -> Table:
    """Names of `InterChannelUpDown`."""
    table: Table = {}
    for n, name in enumerate("uv"):
        path = f"affinity.terms.0.{n}"
        table |= conv(f"bconv_{name.upper()}.1", f"{path}.filters") | norm(f"bn{name}.0", f"{path}.norm")
    heads = conv("bconv_UP.1", "up", layout="pointwise") | conv("bconv_DP.1", "down", layout="pointwise")
    return table | heads


OPERATORS: Operators = {"InterChannelUpDown": _inter_channel_up_down}
