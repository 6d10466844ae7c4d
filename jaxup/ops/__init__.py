"""Pure functions over NHWC arrays: no parameters, no Flax, no I/O."""

from jaxup.ops.attend import attention_upsample
from jaxup.ops.bilateral import bilateral_filter, joint_bilateral_upsample
from jaxup.ops.downsample import downsample_reassemble
from jaxup.ops.filters import box_filter, gaussian_filter, guided_filter
from jaxup.ops.index import indexed_pool, indexed_upsample
from jaxup.ops.pac import pac_conv_transpose
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, pixel_unshuffle, resize, zero_upsample
from jaxup.ops.sample import sample
from jaxup.ops.similarity import similarity_upsample
from jaxup.ops.unpooling import max_index, max_pool, max_unpool

__all__ = [
    "attention_upsample",
    "similarity_upsample",
    "reassemble",
    "downsample_reassemble",
    "pac_conv_transpose",
    "sample",
    "indexed_pool",
    "indexed_upsample",
    "max_index",
    "max_pool",
    "max_unpool",
    "resize",
    "zero_upsample",
    "pixel_shuffle",
    "pixel_unshuffle",
    "box_filter",
    "gaussian_filter",
    "guided_filter",
    "bilateral_filter",
    "joint_bilateral_upsample",
]
