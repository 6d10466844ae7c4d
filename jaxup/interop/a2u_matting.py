"""A2U matting of dongdong93/a2u_matting: `resnetmat`, whose config holds the entries of `MODEL`.

`decoder_block_num` has no effect in the official code, and neither has `activation` but on initial values; `stride` is
that of the dilations of ASPP only, the network has always 16.
"""

from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.interop.a2u import kernels_keys
from jaxup.interop.backbones import conv_norm, options
from jaxup.interop.indexnet import aspp_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.matting.a2u import A2UMatting
from jaxup.nn.aspp import DILATIONS

_DECODERS = {"residual_conv": "residual", "std_conv": "plain", "dep_sep_conv": "separable"}


def _block(torch: str, ours: str, first: str, second: str, *, shortcut: bool) -> Table:
    """A residual block: where its two layers are, and its projection."""
    table = conv_norm(f"{torch}.{first}.conv1", f"{torch}.{first}.bn1", f"{ours}.first")
    table |= conv_norm(f"{torch}.{second}.conv2", f"{torch}.{second}.bn2", f"{ours}.second")
    return table | (conv_norm(f"{torch}.proj_conv", f"{torch}.proj_bn", f"{ours}.shortcut") if shortcut else {})


def _encoder(module: A2UMatting) -> Table:
    table = conv_norm("layer0.0", "layer0.1", "stem")
    names = ("bilinear0", "bilinear1", "layer2_1.bilinear", "layer3_1.bilinear")
    for i, name in enumerate(names):
        table |= prefixed(kernels_keys(), f"{name}.", f"resampling.down_layers.{i}.")
    for i, stage in enumerate(module.stages):
        rest = f"layer{i + 1}_2" if i else "layer1"
        for j in range(len(stage)):
            ours = f"stages.{i}.{j}"
            if i and j == 0:
                table |= _block(f"layer{i + 1}_1", ours, "layer1", "layer2", shortcut=True)
            else:
                table |= _block(f"{rest}.block{j if i else j + 1}", ours, "convs", "convs", shortcut=False)
    return table


def _decoder(module: A2UMatting, kind: str) -> Table:
    table: Table = {}
    for i, layers in enumerate(module.decoder):
        half = len(layers) // 2
        for n, name in enumerate(("dconv", "dconv1")):
            torch = f"decoder_layer{i + 1}.{name}"
            if kind == "residual":
                block, inner = f"decoder.{i}.{n}", "dep_sep_conv"
                table |= _block(torch, block, inner, inner, shortcut=layers[n].shortcut is not None)
                continue
            for j in range(half):
                table |= conv_norm(f"{torch}.{2 * j}", f"{torch}.{2 * j + 1}", f"decoder.{i}.{n * half + j}")
        table |= conv_norm(f"short{i}.0", f"short{i}.1", f"skips.{i}")
    return table | conv_norm("pred.0.0", "pred.0.1", "prediction") | conv("pred.1", "alpha", bias=False)


def _a2u_matting(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    operator, stride = config.get("decoder_conv_operator", "std_conv"), config.get("stride", 16)
    check_choice("backbone", config.get("backbone", "resnet34"), ("resnet34",))
    check_choice("decoder_conv_operator", operator, _DECODERS)
    check_choice("stride", stride, DILATIONS)
    module = A2UMatting(
        kernel_size=config.get("up_kernel_size", 3),
        encoder_kernel_size=config.get("encode_kernel_size", 5),
        groups=config.get("downupsample_group", 1),
        shared=config.get("share", False),
        interleaved=True,
        aspp=config.get("aspp", False),
        dilations=DILATIONS[stride],
        decoder=_DECODERS[operator],
        decoder_kernel_size=config.get("decoder_kernel_size", 5),
        **options(config),
    )
    table = _encoder(module) | _decoder(module, _DECODERS[operator])
    if module.aspp is not None:
        table |= prefixed(aspp_keys(module.aspp, step=2), "dconv_pp.", "aspp.")
    return module, table


OPERATORS: Operators = {"resnetmat": _a2u_matting}
