"""Official ReSFU (zmhhmz/ReSFU, demo/resfu.py) to `jaxup.nn.ReSFU`."""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.keys import Constant, Key, Operators, Table, Unused, conv, norm, prefixed
from jaxup.nn.pcdc import PCDCBlock
from jaxup.nn.resfu import GuidedFilter, ReSFU

_COMPRESSOR: Table = (
    conv("channel_compressor.1", "compressor")
    | norm("channel_compressor.3", "compressor_norm")
    | conv("channel_compressor.4", "scores")
)


def _pcdc(features: int) -> Table:
    """The bias of the normalisation cancels in the differences between key and query."""
    table: Table = {"weight": Key("kernel", "conv"), "bias": Key("bias", "channels")}
    return table | {"norm.weight": Key("norm.scale"), "norm.bias": Unused((features,))} | _COMPRESSOR


def _guided_filter(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    radius, step = config["radius"], config.get("scale", 1)
    module = GuidedFilter(radius=radius, eps=config["epsilon"], subsample=step)
    return module, {"kernel": _ones(config["channels"], radius // step)}


def _ones(channels: int, radius: int) -> Constant:
    """The official box filter is two convolutions with this kernel."""
    return Constant(np.ones((channels, 1, 1, 2 * radius + 1), np.float32))


def _pcdc_block(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = PCDCBlock(
        config["in_channels"],
        dilation=config["scale_factor"],
        kernel_size=config.get("kernel_size", 3),
        groups=config.get("groups", 4),
        compressor_features=config.get("mid_channels", 128),
        norm_groups=config.get("gn_dim", 8),
        form="official",
        rngs=nnx.Rngs(0),
    )
    return module, _pcdc(module.features)


def _resfu(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """`lr_mult` is left out: it scales gradients in the official training and changes no value."""
    guide_features, bias = config["dim_y"], config.get("qkv_bias", True)
    depth, radius, step = config.get("embedding_dim", 32), config.get("radius", 8), config.get("gf_scale", 2)
    module = ReSFU(
        config.get("dim_x") or guide_features,
        guide_features,
        scale=config.get("scale_factor", 4),
        kernel_size=config.get("kernel_size", 3),
        groups=config.get("groups", 4),
        embedding_features=depth,
        norm_groups=config.get("gn_dim", 8),
        radius=radius,
        eps=config.get("eps", 1e-3),
        subsample=step,
        norm_x=config.get("normx", True),
        norm_guide=config.get("normy", True),
        project_guide=config.get("y_conv", True),
        use_bias=bias,
        form="official",
        rngs=nnx.Rngs(0),
    )
    table: Table = {"GF.kernel": _ones(depth, radius // step)}
    table |= conv("k", "key", bias=bias, layout="pointwise")
    if module.query is not None:
        table |= conv("q", "query", bias=bias, layout="pointwise")
    for name in ("norm_x", "norm_y"):
        ours = name.replace("_y", "_guide")
        table |= norm(name, ours) if getattr(module, ours) is not None else {}
    for name in ("semantic_scores.", "detail_scores."):
        table |= prefixed(_pcdc(depth), name, name)
    return module, table


OPERATORS: Operators = {"GuidedFilter": _guided_filter, "PCDC_Block": _pcdc_block, "ReSFU": _resfu}
