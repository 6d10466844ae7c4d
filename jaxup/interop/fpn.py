"""Feature pyramids of torchvision, and of mmsegmentation and mmdetection; the head of Semantic FPN.

Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.interop.backbones import conv_norm, options
from jaxup.interop.keys import Operators, Table, conv
from jaxup.interop.pspnet import layer
from jaxup.models.segmentation.fpn import FPN, FPNHead


def _torchvision_keys(module: FPN, norm: bool, extra: tuple[str, ...]) -> Table:
    """`inner_blocks.0.0`, `layer_blocks.0.0`, with norms as `.1`, and `extra_blocks.p6`."""
    table: Table = {}
    for i in range(len(module.laterals)):
        for torch, ours in ((f"inner_blocks.{i}", f"laterals.{i}"), (f"layer_blocks.{i}", f"smooth.{i}")):
            table |= conv_norm(f"{torch}.0", f"{torch}.1", ours) if norm else conv(f"{torch}.0", ours)
    for i, name in enumerate(extra):
        table |= conv(f"extra_blocks.{name}", f"extra_layers.{i}")
    return table


def _torchvision_fpn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """`extra` says which of torchvision's extra blocks there is: "pool" (`LastLevelMaxPool`), "p6p7", or None."""
    widths, features = config["in_channels"], config["out_channels"]
    extra, norm = config.get("extra"), config.get("norm") is not None
    check_choice("extra", extra, (None, "pool", "p6p7"))
    names = ("p6", "p7") if extra == "p6p7" else ()
    source = "on_output" if widths[-1] == features else "on_input"
    module = FPN(
        widths,
        features=features,
        num_outputs=len(widths) + {None: 0, "pool": 1, "p6p7": 2}[extra],
        extra=source if names else "pool",
        relu_before_extra=True,
        norm=norm,
        extra_norm=False,
        **options(config),
    )
    return module, _torchvision_keys(module, norm, names)


def _mmseg_fpn(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """`norm` is "BN", or None; or `norm_cfg` as in the official config."""
    if config.get("end_level", -1) not in (-1, len(config["in_channels"])) or config.get("no_norm_on_lateral"):
        fail("config", "a pyramid on all maps from `start_level` on, with norms everywhere or nowhere", config)
    norm = (config.get("norm") or config.get("norm_cfg")) is not None
    added = config.get("add_extra_convs", False)
    if added is True:
        added = "on_input" if config.get("extra_convs_on_inputs", False) else "on_output"
    module = FPN(
        config["in_channels"],
        features=config["out_channels"],
        start=config.get("start_level", 0),
        num_outputs=config["num_outs"],
        extra=added or "pool",
        relu_before_extra=config.get("relu_before_extra_convs", False),
        norm=norm,
        upsampler=(config.get("upsample_cfg") or {}).get("mode", "nearest"),
        **options(config),
    )
    return module, fpn_keys(module, norm=norm)


def fpn_keys(module: FPN, *, norm: bool) -> Table:
    """Names of mmsegmentation and mmdetection: `lateral_convs.0.conv`, `fpn_convs.0.conv`, with norms as `.bn`."""
    count = len(module.laterals)
    places = [(f"lateral_convs.{i}", f"laterals.{i}") for i in range(count)]
    places += [(f"fpn_convs.{i}", f"smooth.{i}") for i in range(count)]
    places += [(f"fpn_convs.{count + i}", f"extra_layers.{i}") for i in range(len(module.extra_layers))]
    table: Table = {}
    for torch, ours in places:
        table |= layer(torch, ours) if norm else conv(f"{torch}.conv", ours)
    return table


def _fpn_head(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = FPNHead(
        config["in_channels"],
        config["num_classes"],
        features=config.get("channels", 128),
        dropout=config.get("dropout_ratio", 0.1),
        **options(config),
    )
    return module, fpn_head_keys(module)


def fpn_head_keys(module: FPNHead) -> Table:
    """Names of mmsegmentation's `FPNHead`, counted with the doublings."""
    table = conv("conv_seg", "classifier.conv")
    for i, layers in enumerate(module.levels):
        for k in range(len(layers)):
            table |= layer(f"scale_heads.{i}.{2 * k}", f"levels.{i}.{k}")
    return table


OPERATORS: Operators = {"FeaturePyramidNetwork": _torchvision_fpn, "FPN": _mmseg_fpn, "FPNHead": _fpn_head}
