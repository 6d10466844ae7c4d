"""Index networks, decoder block and ASPP of poppinace/indexnet_matting."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, batch_norm, conv
from jaxup.nn.aspp import ASPP, DILATIONS
from jaxup.nn.indexnet import IndexNetwork, official_options
from jaxup.nn.indexnet_decoder import IndexedUpsample


def _column(torch: str, ours: str, *, nonlinear: bool) -> Table:
    if not nonlinear:
        return {f"{torch}.weight": Key(f"{ours}.kernel", "conv")}
    layers: Table = {f"{torch}.0.weight": Key(f"{ours}.kernel", "conv")}
    return layers | batch_norm(f"{torch}.1", f"{ours}.norm") | {f"{torch}.3.weight": Key(f"{ours}.mix", "conv")}


def index_keys(module: IndexNetwork) -> Table:
    """Columns are counted from one, and a linear one of several is a sequence of one layer."""
    nonlinear = module.columns[0].norm is not None
    if module.family == "holistic":
        return _column("indexnet", "columns.0", nonlinear=nonlinear)
    table: Table = {}
    for i in range(len(module.columns)):
        torch = f"indexnet{i + 1}" if nonlinear else f"indexnet{i + 1}.0"
        table |= _column(torch, f"columns.{i}", nonlinear=nonlinear)
    return table


def _index_block(config: dict[str, Any], family: str) -> tuple[nnx.Module, Table]:
    module = IndexNetwork(
        config["inp"],
        family=family,
        nonlinear=config.get("use_nonlinear", False),
        context=config.get("use_context", False),
        **official_options(family),
        rngs=nnx.Rngs(0),
    )
    return module, index_keys(module)


def blocks_keys(torch: str, ours: str, count: int, step: int = 3) -> Table:
    """Convolution and norm of each of `count` layers; in steps of 3 official layers are counted with activations."""
    table: Table = {}
    for i in range(count):
        table |= conv(f"{torch}.{step * i}", f"{ours}.{i}.conv", bias=False)
        table |= batch_norm(f"{torch}.{step * i + 1}", f"{ours}.{i}.norm")
    return table


def _indexed_upsampling(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    separable = config.get("conv_operator", "std_conv") == "dep_sep_conv"
    module = IndexedUpsample(
        config["inp"],
        config["oup"],
        kernel_size=config.get("kernel_size", 5),
        separable=separable,
        rngs=nnx.Rngs(0),
    )
    return module, blocks_keys("dconv", "blocks", len(module.blocks))


def _aspp(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = ASPP(
        config["inp"],
        config["oup"],
        branch_features=int(256 * config.get("width_mult", 1.0)),
        dilations=DILATIONS[config.get("output_stride", 32)],
        rngs=nnx.Rngs(0),
    )
    return module, aspp_keys(module)


def aspp_keys(module: ASPP, step: int = 3) -> Table:
    """Names of `aspp1.atrous_conv`, ..., `global_avg_pool` and `bottleneck_conv`; `step` as in `blocks_keys`."""
    table: Table = {}
    for i, blocks in enumerate(module.branches):
        table |= blocks_keys(f"aspp{i + 1}.atrous_conv", f"branches.{i}", len(blocks), step)
    for torch, ours, first in (("global_avg_pool", "mean", 1), ("bottleneck_conv", "bottleneck", 0)):
        table |= conv(f"{torch}.{first}", f"{ours}.conv", bias=False)
        table |= batch_norm(f"{torch}.{first + 1}", f"{ours}.norm")
    return table


OPERATORS: Operators = {
    "HolisticIndexBlock": lambda config: _index_block(config, "holistic"),
    "DepthwiseO2OIndexBlock": lambda config: _index_block(config, "unshared_o2o"),
    "DepthwiseM2OIndexBlock": lambda config: _index_block(config, "m2o"),
    "IndexedUpsamlping": _indexed_upsampling,
    "ASPP": _aspp,
}
