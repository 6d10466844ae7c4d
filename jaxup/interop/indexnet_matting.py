"""Matting networks of poppinace/indexnet_matting.

    module = from_torch("hlmobilenetv2", load_checkpoint("indexnet_matting.pth.tar"), {})

The config has the arguments of the official functions `hlmobilenetv2` and `hlvgg16`; those that are left out are those
of the released model. Beside them it may have `dtype`, the type in which the layers compute. ImageNet's weights for an
encoder, with zeros for the trimap, are those of a backbone, for instance

    backbone = from_torch("MobileNetV2Dilated", load_checkpoint("mobilenet_v2.pth.tar"), {"extra_channels": 1})
    nnx.update(network.encoder, nnx.state(backbone))
"""

from typing import Any, cast

from flax import nnx

from jaxup._checks import check_choice
from jaxup.interop.backbones import conv_norm, mobilenet_v2_keys, options
from jaxup.interop.indexnet import aspp_keys, blocks_keys, index_keys
from jaxup.interop.keys import Operators, Table, conv, prefixed
from jaxup.models.backbones import MobileNetV2
from jaxup.models.backbones.mobilenet_v2 import V2_STAGES
from jaxup.models.matting import DeepLabMatting, DeepMatting, MattingNetwork, RefineNetMatting
from jaxup.models.matting.layers import Prediction
from jaxup.models.matting.refinenet import MEETING
from jaxup.nn.aspp import ASPP
from jaxup.nn.indexnet import IndexNetwork

_DEPTHWISE = {"o2o": "unshared_o2o", "m2o": "m2o"}
_SEPARABLE = {"std_conv": False, "dep_sep_conv": True}


def encoder_keys(module: MobileNetV2) -> Table:
    """`layer0`, and `layerI.J.conv.N` of block J of stage I."""
    places = [(s + 1, b) for s, (_, _, count, _, _) in enumerate(V2_STAGES) for b in range(count)]

    def names(i: int, expands: bool) -> list[str]:
        stage, block = places[i]
        return [f"layer{stage}.{block}.conv.{n}" for n in ((0, 1, 3, 4, 6, 7) if expands else (0, 1, 3, 4))]

    return prefixed(mobilenet_v2_keys(module, ("layer0.0", "layer0.1"), names), "", "encoder.")


def prediction_keys(module: Prediction) -> Table:
    """A block, and a convolution."""
    return blocks_keys("pred.0", "predict.blocks", len(module.blocks)) | conv("pred.1", "predict.conv", bias=False)


def matting_keys(module: MattingNetwork) -> Table:
    """`indexI` of pooled layers, `dconv_pp`, `decoder_layerI`, `pred`."""
    table = encoder_keys(module.encoder) | prediction_keys(module.predict)
    for i in range(len(module.resampling.down_layers)):
        network = cast(IndexNetwork, module.resampling.down_layers[i])
        table |= prefixed(index_keys(network), f"index{module.pooled[i]}.", f"resampling.down_layers.{i}.")
    if isinstance(module.context, ASPP):
        table |= prefixed(aspp_keys(module.context), "dconv_pp.", "context.")
    else:
        table |= blocks_keys("dconv_pp", "context", 1)
    for i, blocks in enumerate(module.decoder):
        table |= blocks_keys(f"decoder_layer{len(module.decoder) - 1 - i}.dconv", f"decoder.{i}", len(blocks))
    return table


def deeplab_keys(module: DeepLabMatting) -> Table:
    """`dconv_pp`, `decoder.first_dconv`, `decoder.last_dconv`, `pred`."""
    table = encoder_keys(module.encoder) | prefixed(aspp_keys(module.context), "dconv_pp.", "context.")
    table |= blocks_keys("decoder.first_dconv", "low", 1)
    for i, blocks in enumerate(module.fuse):
        table |= blocks_keys(f"decoder.last_dconv.{i}", f"fuse.{i}", len(blocks))
    return table | blocks_keys("pred", "predict", 1) | conv("pred.3", "last", bias=False)


def refinenet_keys(module: RefineNetMatting) -> Table:
    """`dconvI`, `dconv_adaptI`, `dconv_crpI.0.J_outvar_dimred`, `pred`; groups count 4, 3, 2, 1, coarse to fine."""
    table = encoder_keys(module.encoder) | prediction_keys(module.predict)
    for i, layers in enumerate(MEETING):
        for j, layer in enumerate(layers):
            table |= blocks_keys(f"dconv{layer}", f"reduce.{i}.{j}", 1)
        for j in range(len(module.pool[i].layers)):
            table |= blocks_keys(f"dconv_crp{4 - i}.0.{j + 1}_outvar_dimred", f"pool.{i}.layers.{j}", 1)
    for i in range(len(module.adapt)):
        table |= blocks_keys(f"dconv_adapt{4 - i}", f"adapt.{i}", 1)
    return table


def deep_matting_keys(module: DeepMatting) -> Table:
    """`convSN` and `bnSN` of layer N of stage S, `conv6`, `dconvS`, `alpha_pred`."""
    table = conv("conv6", "wide") | conv("dconv6", "narrow") | conv("alpha_pred", "predict")
    for i, stage in enumerate(module.encoder.stages):
        for j in range(len(stage)):
            names = f"conv{i + 1}{j + 1}", f"bn{i + 1}{j + 1}"
            table |= conv_norm(*names, f"encoder.stages.{i}.{j}", bias=True)
    for i in range(len(module.decoder)):
        table |= conv(f"dconv{len(module.decoder) - i}", f"decoder.{i}")
    return table


def _stages(config: dict[str, Any]) -> dict[str, Any]:
    """Between those of the encoder."""
    if config.get("decoder", "indexnet") == "unet_style":
        return dict(upsampler="max-unpool")
    network, mode = config.get("indexnet", "depthwise"), config.get("index_mode", "m2o")
    check_choice("indexnet", network, ("holistic", "depthwise"))
    check_choice("index_mode", mode, _DEPTHWISE)
    family = "holistic" if network == "holistic" else _DEPTHWISE[mode]
    nonlinear, context = config.get("use_nonlinear", True), config.get("use_context", True)
    return dict(upsampler=family, nonlinear=nonlinear, context=context, form="official")


def _hlmobilenetv2(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    decoder, operator = config.get("decoder", "indexnet"), config.get("conv_operator", "std_conv")
    check_choice("decoder", decoder, ("indexnet", "unet_style", "deeplabv3+", "refinenet"))
    check_choice("conv_operator", operator, _SEPARABLE)
    given = dict(
        output_stride=config.get("output_stride", 32),
        multiplier=config.get("width_mult", 1.0),
        kernel_size=config.get("decoder_kernel_size", 5),
        separable=_SEPARABLE[operator],
        **options(config),
    )
    if decoder == "deeplabv3+":
        deeplab = DeepLabMatting(**given)
        return deeplab, deeplab_keys(deeplab)
    if decoder == "refinenet":
        refinenet = RefineNetMatting(**given)
        return refinenet, refinenet_keys(refinenet)
    module = MattingNetwork(**_stages(config), aspp=config.get("apply_aspp", True), **given)
    return module, matting_keys(module)


def _hlvgg16(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    check_choice("output_chn", config.get("output_chn", 1), (1,))
    module = DeepMatting(config.get("input_chn", 4), **options(config))
    return module, deep_matting_keys(module)


OPERATORS: Operators = {"hlmobilenetv2": _hlmobilenetv2, "hlvgg16": _hlvgg16}
