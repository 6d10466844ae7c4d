"""Measures of results against ground truth: of images as jitted functions with gradients, of masks on arrays."""

from jaxup.metrics.image import mae, psnr, rmse, ssim
from jaxup.metrics.segmentation import weighted_f_measure

__all__ = ["mae", "rmse", "psnr", "ssim", "weighted_f_measure"]
