"""Measures of results against ground truth, as jitted functions that differentiate."""

from jaxup.metrics.image import mae, psnr, rmse, ssim

__all__ = ["mae", "rmse", "psnr", "ssim"]
