"""Segmentation networks, one a file, each with any upsampler in the places where the papers put one."""

from jaxup.models.segmentation.inference import slide, whole
from jaxup.models.segmentation.segformer import SegFormer
from jaxup.models.segmentation.upsampling import Upsampling

__all__ = ["SegFormer", "Upsampling", "slide", "whole"]
