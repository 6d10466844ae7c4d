"""FastDepth: its classes of whole networks, and single stages of its decoders.

Configs hold the official arguments: `decoder` ("nnconv5dw", "deconv3", "upproj", ...), `layers` of ResNets and
`in_channels`; `output_size` and `pretrained` have no effect. Beside them there may be `dtype`, the type in which the
layers compute.
"""

import re
from functools import partial
from typing import Any

from flax import nnx

from jaxup._checks import check_choice, fail
from jaxup.interop.backbones import conv_norm, mobilenet_v1_keys, options, resnet_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.backbones.resnet import DEPTHS
from jaxup.models.monocular_depth.decoders import DECODERS, Stage
from jaxup.models.monocular_depth.fastdepth import FastDepth

# What stages are called, and the convolution behind them, which shuffles do not have.
_NAMES = {"nnconv": ("conv", "conv6"), "blconv": ("conv", "conv6"), "deconv": ("convt", "convf")}
_NAMES |= {"upconv": ("upconv", "convf"), "upproj": ("upproj", "convf"), "shuffle": ("conv", "")}


def stage_keys(module: Stage) -> Table:
    """Names inside a stage. A convolution of a map between whose pixels are zeros is a transposed one here."""
    layers = [f"layers.{i}" for i in range(len(module.layers))]
    if module.kind == "upconv":
        return conv_norm("1", "2", layers[0])
    if module.kind == "upproj":
        table = conv_norm("branch1.0", "branch1.1", f"{layers[0]}.first")
        table |= conv_norm("branch1.3", "branch1.4", f"{layers[0]}.second")
        return table | conv_norm("branch2.0", "branch2.1", f"{layers[0]}.shortcut")
    names = ("0.", "1.") if len(layers) > 1 else ("",)
    table = {}
    for name, ours in zip(names, layers, strict=True):
        table |= conv_norm(f"{name}0", f"{name}1", ours)
    if module.kind == "deconv":
        layout = "depthwise_transpose" if len(layers) > 1 else "conv_transpose"
        table |= conv(f"{names[0]}0", f"{layers[0]}.conv", bias=False, layout=layout)
    return table


def _decoder(name: str) -> tuple[str, dict[str, Any]]:
    """Kind, kernel size and depthwise convolutions, from an official name."""
    found = re.fullmatch(r"((?:nnconv|blconv|shuffle)(?=[3579])|deconv)([2-9])(dw)?|(upconv|upproj)", str(name))
    if found is None:
        fail("decoder", "nnconv5dw, blconv3, deconv4, shuffle9dw, ..., upconv or upproj", repr(name))
    kind, size, depthwise, plain = found.groups()
    of_kernel = dict(kernel_size=int(size), depthwise=depthwise is not None) if kind else dict(depthwise=False)
    return kind or plain, of_kernel


def _network(config: dict[str, Any], *, residual: bool, skip: str | None) -> tuple[nnx.Module, Table]:
    given = dict(options(config), skip=skip)
    if residual:
        check_choice("layers", config["layers"], DEPTHS)
        given |= dict(backbone=f"resnet{config['layers']}")
    kind, of_kernel = ("nnconv", dict(depthwise=not residual)) if skip else _decoder(config["decoder"])
    module = FastDepth(config.get("in_channels", 3), decoder=kind, **of_kernel, **given)
    units = "conv{}." if skip else "mobilenet.{}."
    encoder = resnet_keys(module.backbone) if residual else mobilenet_v1_keys(module.backbone, units)
    table = prefixed(encoder, "", "backbone.") | (conv("conv2", "project") if residual else {})
    stage, last = ("decode_conv", "decode_conv6") if skip else (f"decoder.{name}" for name in _NAMES[kind])
    for i, part in enumerate(module.stages):
        table |= prefixed(stage_keys(part), f"{stage}{i + 1}.", f"stages.{i}.")
    return module, table | (conv_norm(f"{last}.0", f"{last}.1", "head") if module.head is not None else {})


def _stage(config: dict[str, Any], *, kind: str, depthwise: bool = False) -> tuple[nnx.Module, Table]:
    size = config.get("kernel_size", 5)
    widths = (config["in_channels"], config["out_channels"])
    module = Stage(kind, *widths, kernel_size=size, depthwise=depthwise, **options(config))
    return module, stage_keys(module)


OPERATORS: Operators = {
    "fastdepth.MobileNet": partial(_network, residual=False, skip=None),
    "fastdepth.MobileNetSkipAdd": partial(_network, residual=False, skip="add"),
    "fastdepth.MobileNetSkipConcat": partial(_network, residual=False, skip="concat"),
    "fastdepth.ResNet": partial(_network, residual=True, skip=None),
    "fastdepth.ResNetSkipAdd": partial(_network, residual=True, skip="add"),
    "fastdepth.ResNetSkipConcat": partial(_network, residual=True, skip="concat"),
    **{f"fastdepth.{kind}": partial(_stage, kind=kind) for kind in DECODERS},
    **{f"fastdepth.{kind}dw": partial(_stage, kind=kind, depthwise=True) for kind in DECODERS[:3]},
}
