"""Flax NNX modules: they own parameters and call `jaxup.ops`. Called as `module(x)` or `module(x, guide)`."""

from jaxup.nn.attention import AttentionUpsample, JointAttentionUpsample
from jaxup.nn.basic import Deconvolution, PixelShuffle, Resize

__all__ = ["AttentionUpsample", "JointAttentionUpsample", "Deconvolution", "PixelShuffle", "Resize"]
