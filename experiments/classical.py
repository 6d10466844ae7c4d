"""The methods without training that learned ones are compared with, on normalised depth.

Each is called as `method(target, guide)`: low-resolution depth [B, h, w, 1] and RGB guide [B, s*h, s*w, 3] in
[0, 1] to depth [B, s*h, s*w, 1]. Their few constants were chosen for the lowest RMSE at 8x on the generated training
scenes, the data that the learned methods are trained on, and are the same for all images and scales; FGI and FBS run
with the defaults of `jaxup.solvers`.
"""

from collections.abc import Callable

import jax

from jaxup import ops, solvers

Method = Callable[[jax.Array, jax.Array], jax.Array]


def bicubic(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Cubic convolution with a = -0.5; the guide gives the size only."""
    return ops.resize(target, size=guide.shape[1:3], method="bicubic", cubic_coefficient=-0.5)


def guided_filter(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Guided filter of the bicubic enlargement, with the factor as radius."""
    scale = guide.shape[1] // target.shape[1]
    return ops.guided_filter(bicubic(target, guide), guide, radius=scale, eps=1e-5)


def joint_bilateral(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Joint bilateral upsampling over 3 x 3 low-resolution pixels."""
    scale = guide.shape[1] // target.shape[1]
    return ops.joint_bilateral_upsample(target, guide, scale=scale, radius=1, sigma_spatial=0.7, sigma_range=0.1)


def fgi(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Fast guided global interpolation."""
    return solvers.guided_interpolation(target, guide, scale=guide.shape[1] // target.shape[1])


def fbs(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Fast bilateral solver."""
    return solvers.bilateral_solver_upsample(target, guide, scale=guide.shape[1] // target.shape[1])


FILTERS: dict[str, Method] = {
    "bicubic": bicubic,
    "guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
}
"""Those that take less than a second to compile."""

METHODS: dict[str, Method] = {**FILTERS, "FGI": fgi, "FBS": fbs}
"""All; the last two solve a system over the whole image and compile for seconds at every new size."""
