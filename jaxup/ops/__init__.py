"""Pure functions over NHWC arrays: no parameters, no Flax, no I/O.

Values are not checked. A NaN or an infinity spoils the outputs that are computed from it, those whose windows hold it,
even with the weight 0, and no others; docstrings say which these are, and where it is otherwise.

Of images whose rows are split over devices, operators read the few rows beyond their own from the neighbours. They do
so where JAX tells them of the split while it traces them: over Explicit mesh axes, and outside of compiled functions.
In a function compiled over Auto axes XLA decides it later and may gather rows there: use `over_rows`.
"""

from jaxup.ops.anisotropic import anisotropic_bilateral_upsample
from jaxup.ops.attend import attention_kernels, attention_upsample
from jaxup.ops.bilateral import bilateral_filter, joint_bilateral_upsample
from jaxup.ops.boxes import box_iou, clip_boxes, decode_boxes, encode_boxes, grid_anchors, match_boxes
from jaxup.ops.deform import deformable_average
from jaxup.ops.downsample import downsample_reassemble
from jaxup.ops.filters import box_filter, gaussian_filter, guided_filter
from jaxup.ops.fine import fine_neighbour_attention
from jaxup.ops.index import indexed_pool, indexed_upsample
from jaxup.ops.masks import crop_masks, paste_masks
from jaxup.ops.neighbourhood import neighbourhood_attend
from jaxup.ops.nms import nms
from jaxup.ops.pac import pac_conv_transpose
from jaxup.ops.pcdc import paired_difference_conv
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, pixel_unshuffle, resize, zero_upsample
from jaxup.ops.roi_align import multilevel_roi_align, roi_align
from jaxup.ops.rows import over_rows
from jaxup.ops.sample import sample
from jaxup.ops.similarity import similarity_upsample
from jaxup.ops.unify import unify_features
from jaxup.ops.unpooling import max_index, max_pool, max_unpool
from jaxup.ops.window_attend import window_attend

__all__ = [
    "attention_kernels",
    "attention_upsample",
    "similarity_upsample",
    "window_attend",
    "neighbourhood_attend",
    "fine_neighbour_attention",
    "paired_difference_conv",
    "unify_features",
    "reassemble",
    "downsample_reassemble",
    "pac_conv_transpose",
    "sample",
    "indexed_pool",
    "indexed_upsample",
    "max_index",
    "max_pool",
    "max_unpool",
    "deformable_average",
    "resize",
    "zero_upsample",
    "pixel_shuffle",
    "pixel_unshuffle",
    "over_rows",
    "box_filter",
    "gaussian_filter",
    "guided_filter",
    "bilateral_filter",
    "joint_bilateral_upsample",
    "roi_align",
    "multilevel_roi_align",
    "box_iou",
    "encode_boxes",
    "decode_boxes",
    "clip_boxes",
    "grid_anchors",
    "match_boxes",
    "nms",
    "paste_masks",
    "crop_masks",
    "anisotropic_bilateral_upsample",
]
