"""Flax NNX modules: they own parameters and call `jaxup.ops`. Called as `module(x)` or `module(x, guide)`.

Values are not checked. A NaN spoils the outputs within the reach of the module's convolutions and windows around it,
and all of an image or batch where a norm takes its statistics from them: `GroupNorm`, and `BatchNorm` in training,
whose running statistics it spoils, too.
"""

from jaxup.nn.a2u import A2UDownsample, A2UKernels, A2UUpsample
from jaxup.nn.anyup import AnyUp
from jaxup.nn.aspp import ASPP
from jaxup.nn.attention import AttentionUpsample, JointAttentionUpsample
from jaxup.nn.basic import Deconvolution, PixelShuffle, Resize
from jaxup.nn.carafe import CARAFE
from jaxup.nn.dgf import DeepGuidedFilter
from jaxup.nn.doubling import Iterated
from jaxup.nn.dysample import DySample
from jaxup.nn.factory import UPSAMPLERS, make_upsampler
from jaxup.nn.fade import FADE, SemiShift
from jaxup.nn.indexnet import IndexNetwork
from jaxup.nn.indexnet_decoder import IndexedUpsample, IndexNetUpsample
from jaxup.nn.jafar import JAFAR
from jaxup.nn.jbu import JBU, StackJBU
from jaxup.nn.loftup import LoftUp
from jaxup.nn.naf import NAF
from jaxup.nn.pac import PacConvTranspose, PacJointUpsample
from jaxup.nn.resfu import ReSFU
from jaxup.nn.sapa import SAPA
from jaxup.nn.unpooling import MaxUnpool
from jaxup.nn.uplift import UPLiFT

__all__ = [
    "UPSAMPLERS",
    "make_upsampler",
    "Iterated",
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
    "A2UKernels",
    "A2UUpsample",
    "A2UDownsample",
    "JBU",
    "StackJBU",
    "PacConvTranspose",
    "PacJointUpsample",
    "IndexNetwork",
    "IndexNetUpsample",
    "IndexedUpsample",
    "ASPP",
    "MaxUnpool",
    "DeepGuidedFilter",
    "ReSFU",
    "AnyUp",
    "UPLiFT",
    "NAF",
    "JAFAR",
    "LoftUp",
]
