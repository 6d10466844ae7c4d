"""Flax NNX modules: they own parameters and call `jaxup.ops`. Called as `module(x)` or `module(x, guide)`."""

from jaxup.nn.attention import AttentionUpsample, JointAttentionUpsample
from jaxup.nn.basic import Deconvolution, PixelShuffle, Resize
from jaxup.nn.carafe import CARAFE
from jaxup.nn.dysample import DySample
from jaxup.nn.fade import FADE, SemiShift
from jaxup.nn.sapa import SAPA

__all__ = [
    "AttentionUpsample",
    "JointAttentionUpsample",
    "Deconvolution",
    "PixelShuffle",
    "Resize",
    "CARAFE",
    "DySample",
    "SAPA",
    "FADE",
    "SemiShift",
]
