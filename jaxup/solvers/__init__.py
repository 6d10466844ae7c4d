"""Classical depth upsampling that solves an optimisation problem over the whole image, as pure functions."""

from jaxup.solvers.crf import dense_crf
from jaxup.solvers.fbs import bilateral_solver, bilateral_solver_upsample
from jaxup.solvers.fgi import guided_interpolation, wls_smooth
from jaxup.solvers.linear import Report
from jaxup.solvers.mrf import mrf_interpolate, mrf_upsample
from jaxup.solvers.park import park_interpolate, park_upsample
from jaxup.solvers.sdf import sd_filter, sdf_upsample
from jaxup.solvers.tgv import tgv_interpolate, tgv_upsample
from jaxup.solvers.upsample_anything import BilateralFit, fit_bilateral, upsample_anything

__all__ = [
    "BilateralFit",
    "Report",
    "bilateral_solver",
    "bilateral_solver_upsample",
    "dense_crf",
    "fit_bilateral",
    "guided_interpolation",
    "mrf_interpolate",
    "mrf_upsample",
    "park_interpolate",
    "park_upsample",
    "sd_filter",
    "sdf_upsample",
    "tgv_interpolate",
    "tgv_upsample",
    "upsample_anything",
    "wls_smooth",
]
