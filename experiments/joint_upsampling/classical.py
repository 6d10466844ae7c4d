"""The methods without training that learned ones are compared with, on normalised depth: see `jaxup.cli.methods`."""

from jaxup.cli.methods import Run as Method
from jaxup.cli.methods import bicubic, bilateral_solver, guided_filter, guided_interpolation, joint_bilateral

FILTERS: dict[str, Method] = {
    "bicubic": bicubic,
    "guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
}
"""Those that take less than a second to compile."""

METHODS: dict[str, Method] = {**FILTERS, "FGI": guided_interpolation, "FBS": bilateral_solver}
"""All; the last two solve a system over the whole image and compile for seconds at every new size."""
