"""The filters as compiled programs, and their inputs."""

import jax
import numpy as np
import pytest

from jaxup import ops

VALUES = 2e-6  # float32, relative to the largest magnitude

each_window = pytest.mark.parametrize(
    ("size", "radius"),
    [
        ((1, 1), (1, 1)),
        ((1, 7), (1, 2)),
        ((5, 4), (7, 7)),  # beyond the image
        ((6, 9), (1, 1)),
        ((6, 9), (3, 0)),
    ],
    ids=str,
)


def compiled(fn, *options):
    """The operator as one program for each choice of its options."""
    return jax.jit(fn, static_argnames=options)


box = compiled(ops.box_filter, "radius")
gaussian = compiled(ops.gaussian_filter, "sigma", "radius")
guided = compiled(ops.guided_filter, "radius", "eps", "subsample")
bilateral = compiled(ops.bilateral_filter, "radius", "sigma_spatial", "sigma_range")
joint = compiled(ops.joint_bilateral_upsample, "scale", "radius", "sigma_spatial", "sigma_range")


def images(*channels, size=(5, 6), batch=2, dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    return [random.uniform(0, 1, (batch, *size, c)).astype(dtype) for c in channels]


def double(*xs):
    return [np.asarray(x, np.float64) for x in xs]


# Properties


@jax.jit
def all_filters(x, guide, sigma):
    options = dict(radius=2, sigma_spatial=sigma, sigma_range=sigma)
    return {
        "box": ops.box_filter(x, radius=2),
        "gaussian": ops.gaussian_filter(x, sigma=sigma, radius=2),
        "guided": ops.guided_filter(x, guide, radius=2, eps=sigma),
        "bilateral": ops.bilateral_filter(x, guide, **options),
        "upsample": ops.joint_bilateral_upsample(x[:, :2, :3], guide, scale=2, **options),
    }
