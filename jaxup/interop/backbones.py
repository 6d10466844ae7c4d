"""Convolutional backbones: torchvision, timm, mmsegmentation, Hugging Face, CSAILVision, and EfficientNet-Lite0.

Beside the official arguments every config may have `dtype`, the type in which the layers compute. Without
`num_classes` the classifier is not built, and its tensors may be in the state dict or not. MobileNets and VGG may have
`extra_channels`, for which the image's filters are zero: 1 for the trimap of a matting network, whose encoder takes
these weights by `nnx.update(network.encoder, nnx.state(module))`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_int, fail
from jaxup.interop.keys import Key, Operators, Optional, Table, batch_norm, conv, extended, linear
from jaxup.models.backbones import VGG, DenseNet, MobileNetV1, MobileNetV2, ResNet, SENet, make_backbone
from jaxup.models.backbones.mobilenet_v2 import V2_STAGES
from jaxup.models.backbones.resnet import DEPTHS


class Shapes:
    """In the place of `nnx.Rngs` where initial values are not wanted.

    Under tracing the count of keys of a real one takes time that grows with the square of the number of parameters.
    """

    def params(self) -> jax.Array:
        """The same key again."""
        return jax.random.key(0)


def options(config: dict[str, Any]) -> dict[str, Any]:
    """What every backbone is built with."""
    return dict(dtype=config.get("dtype", jnp.float32), rngs=Shapes())


def classified(torch: str, config: dict[str, Any], name: str = "num_classes") -> Table:
    """The linear classifier, if it was asked for."""
    if config.get(name) is not None:
        return linear(torch, "classifier")
    return {f"{torch}.weight": Optional(), f"{torch}.bias": Optional()}


def conv_norm(conv_name: str, norm_name: str, ours: str, *, bias: bool = False) -> Table:
    """A convolution and its batch normalisation."""
    return conv(conv_name, f"{ours}.conv", bias=bias) | batch_norm(norm_name, f"{ours}.norm")


def _first(table: Table, torch: str, config: dict[str, Any]) -> Table:
    """The table with zeros for what the file's first convolution does not see."""
    extra, key = config.get("extra_channels", 0), table[f"{torch}.weight"]
    assert isinstance(key, Key)
    return table | {f"{torch}.weight": replace(key, layout=extended("conv", extra))} if extra else table


def _channels(config: dict[str, Any]) -> int:
    """Of the image, and those beside it."""
    return 3 + check_int("extra_channels", config.get("extra_channels", 0), 0)


def resnet_keys(module: ResNet) -> Table:
    """Names of torchvision, and of mmsegmentation, which has them from there: `conv1`, `layer1.0.conv1`, ..."""
    deep = len(module.stem) > 1
    table: Table = {}
    for i in range(len(module.stem)):
        names = (f"stem.{3 * i}", f"stem.{3 * i + 1}") if deep else ("conv1", "bn1")
        table |= conv_norm(*names, f"stem.{i}")
    for i, stage in enumerate(module.stages):
        for j, block in enumerate(stage):
            torch, ours = f"layer{i + 1}.{j}", f"stages.{i}.{j}"
            for k in range(len(block.convs)):
                table |= conv_norm(f"{torch}.conv{k + 1}", f"{torch}.bn{k + 1}", f"{ours}.convs.{k}")
            if block.shortcut is not None:
                table |= conv_norm(f"{torch}.downsample.0", f"{torch}.downsample.1", f"{ours}.shortcut")
    return table


def resnet_keys_hf(module: ResNet) -> Table:
    """Names of Hugging Face's `ResNetBackbone`."""

    def layer(torch: str, ours: str) -> Table:
        return conv_norm(f"{torch}.convolution", f"{torch}.normalization", ours)

    table = layer("embedder.embedder", "stem.0")
    for i, stage in enumerate(module.stages):
        for j, block in enumerate(stage):
            torch, ours = f"encoder.stages.{i}.layers.{j}", f"stages.{i}.{j}"
            for k in range(len(block.convs)):
                table |= layer(f"{torch}.layer.{k}", f"{ours}.convs.{k}")
            table |= layer(f"{torch}.shortcut", f"{ours}.shortcut") if block.shortcut is not None else {}
    return table


def _torchvision_resnet(config: dict[str, Any], depth: int) -> tuple[nnx.Module, Table]:
    replaced = tuple(config.get("replace_stride_with_dilation") or (False,) * 3)
    strides = {(False,) * 3: 32, (False, False, True): 16, (False, True, True): 8}
    if replaced not in strides:
        fail("replace_stride_with_dilation", "one of " + ", ".join(map(str, strides)), replaced)
    module = ResNet(
        depth=depth, output_stride=strides[replaced], num_classes=config.get("num_classes"), **options(config)
    )
    return module, resnet_keys(module) | classified("fc", config)


def _mmseg_resnet(config: dict[str, Any], stem: str) -> tuple[nnx.Module, Table]:
    dilations = tuple(config.get("dilations", (1, 1, 1, 1)))
    strides = {(1, 1, 1, 1): 32, (1, 1, 1, 2): 16, (1, 1, 2, 4): 8}
    if dilations not in strides:
        fail("dilations", "one of " + ", ".join(map(str, strides)), dilations)
    module = ResNet(
        config.get("in_channels", 3),
        depth=config["depth"],
        stem=stem,
        output_stride=strides[dilations],
        contract_dilation=config.get("contract_dilation", False),
        **options(config),
    )
    return module, resnet_keys(module) | classified("fc", {})


def _hf_resnet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = ResNet(
        config.get("num_channels", 3),
        depth=config.get("depths", (3, 4, 6, 3)),
        bottleneck=config.get("layer_type", "bottleneck") == "bottleneck",
        widths=config.get("hidden_sizes", (256, 512, 1024, 2048)),
        stem_features=config.get("embedding_size", 64),
        **options(config),
    )
    return module, resnet_keys_hf(module)


def vgg_keys(module: VGG) -> Table:
    """Names of torchvision: `features.N`, counted with activations and poolings."""
    table: Table = {}
    n = 0
    for i, stage in enumerate(module.stages):
        for j in range(len(stage)):
            table |= conv_norm(f"features.{n}", f"features.{n + 1}", f"stages.{i}.{j}", bias=True)
            n += 3
        n += 1
    return table


def _vgg(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = VGG(_channels(config), **options(config))
    head: Table = {f"classifier.{i}.{kind}": Optional() for i in (0, 3, 6) for kind in ("weight", "bias")}
    return module, _first(vgg_keys(module), "features.0", config) | head


def senet_keys(module: SENet, stem: str = "layer0.", stage: str = "layer{}.") -> Table:
    """Names of Cadene's SENet-154: `layer0.conv1`, `layer1.0.conv1`, ..."""
    table: Table = {}
    for i in range(len(module.stem)):
        table |= conv_norm(f"{stem}conv{i + 1}", f"{stem}bn{i + 1}", f"stem.{i}")
    for i, blocks in enumerate(module.stages):
        for j, block in enumerate(blocks):
            torch, ours = f"{stage.format(i + 1)}{j}", f"stages.{i}.{j}"
            for k in range(len(block.convs)):
                table |= conv_norm(f"{torch}.conv{k + 1}", f"{torch}.bn{k + 1}", f"{ours}.convs.{k}")
            for k, name in enumerate(("squeeze", "expand")):
                table |= conv(f"{torch}.se_module.fc{k + 1}", f"{ours}.excitation.{name}", layout="pointwise")
            if block.shortcut is not None:
                table |= conv_norm(f"{torch}.downsample.0", f"{torch}.downsample.1", f"{ours}.shortcut")
    return table


def densenet_keys(module: DenseNet, numbered: str = "{}{}") -> Table:
    """Names of torchvision, `features.denseblock1.denselayer1.norm1`; older files have `norm.1`."""

    def norm_conv(torch: str, ours: str, number: str = "") -> Table:
        norm, convolution = (numbered.format(n, number) if number else n for n in ("norm", "conv"))
        return batch_norm(f"{torch}.{norm}", f"{ours}.norm") | conv(
            f"{torch}.{convolution}", f"{ours}.conv", bias=False
        )

    table = conv_norm("features.conv0", "features.norm0", "stem") | batch_norm("features.norm5", "norm")
    for i, layers in enumerate(module.stages):
        for j in range(len(layers)):
            torch, ours = f"features.denseblock{i + 1}.denselayer{j + 1}", f"stages.{i}.{j}"
            table |= norm_conv(torch, f"{ours}.reduce", "1") | norm_conv(torch, f"{ours}.grow", "2")
    for i in range(len(module.transitions)):
        table |= norm_conv(f"features.transition{i + 1}", f"transitions.{i}")
    return table


# How the norms and convolutions of its layers are counted: today, and before dots in names were given up.
NUMBERED = ("{}{}", "{}.{}")


def _senet154(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = make_backbone("senet154", num_classes=config.get("num_classes"), **options(config))
    return module, senet_keys(module) | classified("last_linear", config)


def _densenet161(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    module = make_backbone("densenet161", num_classes=config.get("num_classes"), **options(config))
    head = classified("classifier", config)
    return module, *(densenet_keys(module, numbered) | head for numbered in NUMBERED)


def mobilenet_v1_keys(module: MobileNetV1, unit: str = "mobilenet.{}.") -> Table:
    """Names of the encoder of FastDepth's class `MobileNet`: `mobilenet.N.0`, ...; or with others before each unit."""
    table = conv_norm(f"{unit.format(0)}0", f"{unit.format(0)}1", "units.0.0")
    for i in range(1, len(module.units)):
        for j in range(2):
            torch = unit.format(i)
            table |= conv_norm(f"{torch}{3 * j}", f"{torch}{3 * j + 1}", f"units.{i}.{j}")
    return table


def _mobilenet_v1(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = MobileNetV1(**options(config))
    head: Table = {f"fc.{kind}": Optional() for kind in ("weight", "bias")}
    return module, mobilenet_v1_keys(module, "model.{}.") | head


def mobilenet_v2_keys(module: MobileNetV2, stem: tuple[str, str], block: Callable[[int, bool], list[str]]) -> Table:
    """Names of the stem's two layers, and of the four or six layers of block i, without or with expansion."""
    table = conv_norm(*stem, "stem")
    for i, residual in enumerate(module.blocks):
        names = iter(block(i, residual.expand is not None))
        parts = ("expand", "depthwise", "project")[residual.expand is None :]
        for part in parts:
            table |= conv_norm(next(names), next(names), f"blocks.{i}.{part}")
    return table


def _head(module: MobileNetV2, conv_name: str, norm_name: str) -> Table:
    table = conv_norm(conv_name, norm_name, "head")
    return dict.fromkeys(table, Optional()) if module.head is None else table


def nested(i: int, expands: bool) -> list[str]:
    """Layers of torchvision's block."""
    inner = ["0.0", "0.1", "1.0", "1.1", "2", "3"] if expands else ["0.0", "0.1", "1", "2"]
    return [f"features.{i + 1}.conv.{n}" for n in inner]


def flat(i: int, expands: bool) -> list[str]:
    """Layers of CSAILVision's block."""
    return [f"features.{i + 1}.conv.{n}" for n in ((0, 1, 3, 4, 6, 7) if expands else (0, 1, 3, 4))]


def underscored(i: int, expands: bool) -> list[str]:
    """Layers of EfficientNet-PyTorch's block."""
    names = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    return [f"_blocks.{i}.{name}" for name in (["_expand_conv", "_bn0", *names] if expands else names)]


def _timm_block() -> Callable[[int, bool], list[str]]:
    """Layers of timm's block, which is counted inside its stage."""
    places = [(s, b) for s, (_, _, count, _, _) in enumerate(V2_STAGES) for b in range(count)]

    def names(i: int, expands: bool) -> list[str]:
        layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        stage, block = places[i]
        return [f"blocks.{stage}.{block}.{n}" for n in (layers if expands else ["conv_dw", "bn1", "conv_pw", "bn2"])]

    return names


def _torchvision_mobilenet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = MobileNetV2(
        _channels(config),
        multiplier=config.get("width_mult", 1.0),
        num_classes=config.get("num_classes"),
        **options(config),
    )
    table = _first(mobilenet_v2_keys(module, ("features.0.0", "features.0.1"), nested), "features.0.0", config)
    return module, table | _head(module, "features.18.0", "features.18.1") | classified("classifier.1", config)


def _timm_mobilenet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    module = MobileNetV2(
        _channels(config),
        output_stride=config.get("output_stride", 32),
        num_classes=config.get("num_classes"),
        **options(config),
    )
    table = _first(mobilenet_v2_keys(module, ("conv_stem", "bn1"), _timm_block()), "conv_stem", config)
    return module, table | _head(module, "conv_head", "bn2") | classified("classifier", config)


def _csail_mobilenet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    stride, taps = config.get("dilate_scale", 8), (2, 4, 7, 14, 17)
    module = MobileNetV2(_channels(config), output_stride=stride, taps=taps, **options(config))
    table = _first(mobilenet_v2_keys(module, ("features.0.0", "features.0.1"), flat), "features.0.0", config)
    return module, table | _head(module, "features.18.0", "features.18.1") | classified("classifier.1", {})


def _efficientnet_lite0(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    channels = _channels(config)
    module = make_backbone(
        "efficientnet_lite0", in_features=channels, num_classes=config.get("num_classes"), **options(config)
    )
    table = _first(mobilenet_v2_keys(module, ("_conv_stem", "_bn0"), underscored), "_conv_stem", config)
    return module, table | _head(module, "_conv_head", "_bn1") | classified("_fc", config)


OPERATORS: Operators = {
    **{f"resnet{depth}": partial(_torchvision_resnet, depth=depth) for depth in DEPTHS},
    "ResNet": partial(_mmseg_resnet, stem="plain"),
    "ResNetV1c": partial(_mmseg_resnet, stem="deep"),
    "ResNetBackbone": _hf_resnet,
    "senet154": _senet154,
    "densenet161": _densenet161,
    "vgg16_bn": _vgg,
    "imagenet.MobileNet": _mobilenet_v1,
    "mobilenet_v2": _torchvision_mobilenet,
    "mobilenetv2_100": _timm_mobilenet,
    "MobileNetV2Dilated": _csail_mobilenet,
    "efficientnet-lite0": _efficientnet_lite0,
}
