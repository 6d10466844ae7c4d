"""Depth from one image, one network a file."""

from jaxup.models.monocular_depth.factory import MONOCULAR_DEPTH_METHODS, make_monocular_depth_network
from jaxup.models.monocular_depth.fastdepth import FastDepth
from jaxup.models.monocular_depth.hu import HuDepthNetwork

__all__ = ["MONOCULAR_DEPTH_METHODS", "FastDepth", "HuDepthNetwork", "make_monocular_depth_network"]
