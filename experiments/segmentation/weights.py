"""Which published weights the backbones of the networks have."""

import inspect
from typing import Any

from experiments.engine.weights import Published, WeightsConfig
from experiments.segmentation.networks import NETWORKS, NetworkConfig
from jaxup.files import InputError
from jaxup.models.backbones import BACKBONES

_TIMM = {
    "vit_ti": "vit_tiny_patch16_224",
    "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224",
    "vit_l": "vit_large_patch16_224",
}


def load(weights: WeightsConfig, network: Any, config: NetworkConfig) -> None:
    """Gives the backbone of a network these weights.

    Raises:
        InputError: the network has no backbone, or the file is none of this backbone.
    """
    if config.model == "transunet":
        if weights != WeightsConfig():
            raise InputError("backbone_weights: has no effect on transunet")
        return
    weights.load(network.encoder if config.model == "segnet" else network.backbone, usual(config))


def usual(config: NetworkConfig) -> Published:
    """Those of NVlabs for mit_b0 to mit_b5, of timm for vit_ti to vit_l, of torchvision for others, but of
    mmsegmentation for pspnet and of Hugging Face's MaskFormer for swin_t to swin_l."""
    if config.model == "segnet":
        return Published("vgg16_bn", {})
    name = config.backbone or inspect.signature(NETWORKS[config.model].__init__).parameters["backbone"].default
    if config.model == "pspnet" and name.startswith("resnet"):
        return Published("ResNetV1c", {"depth": int(name.removeprefix("resnet"))})
    if name.startswith("swin"):
        options = dict(BACKBONES[name][1])
        return Published("MaskFormerSwinBackbone", {"embed_dim": options.pop("width"), **options})
    return Published(_TIMM.get(name, name), {})
