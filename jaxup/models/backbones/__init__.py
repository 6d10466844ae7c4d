"""Backbones: networks that turn an image into maps at several strides, one family a file."""

from jaxup.models.backbones.densenet import DenseNet
from jaxup.models.backbones.encoders import VisionEncoder
from jaxup.models.backbones.factory import BACKBONES, make_backbone
from jaxup.models.backbones.mit import MiT
from jaxup.models.backbones.mobilenet import MobileNetV1
from jaxup.models.backbones.mobilenet_v2 import MobileNetV2
from jaxup.models.backbones.resnet import ResNet
from jaxup.models.backbones.senet import SENet
from jaxup.models.backbones.swin import Swin
from jaxup.models.backbones.vgg import VGG
from jaxup.models.backbones.vit import ViT

__all__ = [
    "BACKBONES",
    "DenseNet",
    "MiT",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "SENet",
    "Swin",
    "VGG",
    "VisionEncoder",
    "ViT",
    "make_backbone",
]
