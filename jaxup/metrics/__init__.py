"""Measures of results against ground truth.

Of images as jitted functions with gradients, of label maps from counts made on the device, of masks, detections and
segments on NumPy arrays, of alpha mattes and depth maps per image in the conventions of the public evaluations.
"""

from jaxup.metrics.boundary import boundary_areas, boundary_iou, boundary_map
from jaxup.metrics.depth import depth_errors, depth_scores
from jaxup.metrics.detection import average_precision, encode_masks
from jaxup.metrics.image import mae, psnr, rmse, ssim
from jaxup.metrics.masks import dice, hausdorff_distance, jaccard, surface_distance, weighted_f_measure
from jaxup.metrics.matting import connectivity_error, gradient_error, matting_errors, mse_error, sad_error
from jaxup.metrics.panoptic import Segment, panoptic_counts, panoptic_quality
from jaxup.metrics.segmentation import class_scores, confusion_matrix

__all__ = [
    "mae",
    "rmse",
    "psnr",
    "ssim",
    "confusion_matrix",
    "class_scores",
    "boundary_map",
    "boundary_areas",
    "boundary_iou",
    "average_precision",
    "encode_masks",
    "Segment",
    "panoptic_counts",
    "panoptic_quality",
    "dice",
    "jaccard",
    "hausdorff_distance",
    "surface_distance",
    "weighted_f_measure",
    "sad_error",
    "mse_error",
    "gradient_error",
    "connectivity_error",
    "matting_errors",
    "depth_errors",
    "depth_scores",
]
