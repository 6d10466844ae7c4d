"""The methods without training that learned ones are compared with, on normalised depth: see `jaxup.cli.methods`."""

from jaxup.cli.methods import Run as Method
from jaxup.cli.methods import (
    bicubic,
    bilateral_solver,
    guided_filter,
    guided_interpolation,
    joint_bilateral,
    mrf,
    park,
    sdf,
    tgv,
)

FILTERS: dict[str, Method] = {
    "bicubic": bicubic,
    "guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
}
"""Those that take less than a second to compile."""

METHODS: dict[str, Method] = {**FILTERS, "FGI": guided_interpolation, "FBS": bilateral_solver}
"""All but the slow ones; the last two solve a system over the whole image and compile for seconds at every new size."""

SLOW: dict[str, Method] = {"MRF": mrf, "TGV": tgv, "Park": park, "SDF": sdf}
"""Those that iterate over all pixels, for up to half a minute an image."""
