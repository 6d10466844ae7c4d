"""Classical depth upsampling that solves an optimisation problem over the whole image, as pure functions."""

from jaxup.solvers.fbs import bilateral_solver, bilateral_solver_upsample
from jaxup.solvers.fgi import guided_interpolation, wls_smooth

__all__ = ["bilateral_solver", "bilateral_solver_upsample", "guided_interpolation", "wls_smooth"]
