"""Whole networks built from `jaxup.nn` and `jaxup.ops`; those of a task are in folders of their own."""

from jaxup.models import matting, monocular_depth, segmentation
from jaxup.models.backbones import (
    BACKBONES,
    VGG,
    DenseNet,
    MiT,
    MobileNetV1,
    MobileNetV2,
    ResNet,
    SENet,
    Swin,
    VisionEncoder,
    ViT,
    make_backbone,
)
from jaxup.models.dkn import DKN, FDKN
from jaxup.models.dmsg import DMSG
from jaxup.models.dncnn import DENOISING_METHODS, DnCNN, DnCNNSegNet
from jaxup.models.joint import DJF, JOINT_PRESETS, AttentionJointNetwork, make_joint_network
from jaxup.models.reconstruction import ReconstructionNetwork
from jaxup.models.super_resolution import SuperResolutionNetwork

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
    "ViT",
    "VisionEncoder",
    "make_backbone",
    "AttentionJointNetwork",
    "DJF",
    "DKN",
    "DMSG",
    "FDKN",
    "DnCNN",
    "DnCNNSegNet",
    "DENOISING_METHODS",
    "JOINT_PRESETS",
    "ReconstructionNetwork",
    "SuperResolutionNetwork",
    "make_joint_network",
    "matting",
    "monocular_depth",
    "segmentation",
]
