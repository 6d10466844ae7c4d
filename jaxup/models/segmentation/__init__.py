"""Segmentation networks, one a file, each with any upsampler in the places where the papers put one."""

from jaxup.models.segmentation.deeplabv2 import DeepLabV2
from jaxup.models.segmentation.detection_heads import instance_masks
from jaxup.models.segmentation.fpn import FPN, FPNHead, SemanticFPN
from jaxup.models.segmentation.inference import slide, whole
from jaxup.models.segmentation.mask_rcnn import MaskRCNN
from jaxup.models.segmentation.maskformer import MaskFormer, semantic
from jaxup.models.segmentation.maskformer_loss import class_targets, maskformer_loss, match_targets
from jaxup.models.segmentation.panoptic_fpn import PanopticFPN, merge_panoptic
from jaxup.models.segmentation.pspnet import PSPNet
from jaxup.models.segmentation.segformer import SegFormer
from jaxup.models.segmentation.segmenter import Segmenter
from jaxup.models.segmentation.segnet import SegNet
from jaxup.models.segmentation.transunet import TransUNet
from jaxup.models.segmentation.upernet import UperNet, UperNetHead
from jaxup.models.segmentation.upsampling import Upsampling

__all__ = [
    "DeepLabV2",
    "FPN",
    "FPNHead",
    "MaskFormer",
    "MaskRCNN",
    "PSPNet",
    "PanopticFPN",
    "SegFormer",
    "SegNet",
    "Segmenter",
    "SemanticFPN",
    "TransUNet",
    "UperNet",
    "UperNetHead",
    "Upsampling",
    "class_targets",
    "instance_masks",
    "maskformer_loss",
    "merge_panoptic",
    "match_targets",
    "semantic",
    "slide",
    "whole",
]
