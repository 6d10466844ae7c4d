"""The bilateral filter and joint bilateral upsampling against loops and in extreme cases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxup import ops
from tests.compare import assert_close, assert_finite
from tests.ops.filters import VALUES, all_filters, bilateral, double, images, joint
from tests.oracles import filters as oracle
from tests.registry.examples import thorough


@pytest.mark.parametrize(("size", "radius"), [((1, 1), 1), ((1, 7), 2), ((5, 4), 7), ((6, 9), 2)], ids=str)
@pytest.mark.parametrize("channels", [None, 3])
def test_bilateral_filter_equals_loops(size, radius, channels):
    x, guide = images(2, channels or 2, size=size)
    options = dict(radius=radius, sigma_spatial=1.5, sigma_range=0.3)
    y = bilateral(x, None if channels is None else guide, **options)
    assert_close(y, oracle.bilateral_filter(*double(x, x if channels is None else guide), **options), VALUES)


@pytest.mark.parametrize(
    ("size", "scale", "radius", "given_lr"),
    [
        ((1, 1), (1, 1), 0, True),
        ((1, 1), (4, 3), 2, False),
        ((1, 7), (2, 2), 1, True),
        thorough((5, 4), (2, 3), 1, False),
        ((5, 4), (3, 3), 2, True),
        thorough((4, 5), (4, 4), 2, False),
        ((2, 4), (2, 1), 5, False),
        thorough((6, 9), (1, 1), 1, True),
    ],
    ids=str,
)
def test_joint_bilateral_upsample_equals_loops(size, scale, radius, given_lr):
    src, guide_lr = images(2, 3, size=size)
    (guide,) = images(3, size=(scale[0] * size[0], scale[1] * size[1]), seed=1)
    options = dict(radius=radius, sigma_spatial=0.8, sigma_range=0.3)
    y = joint(src, guide, scale=scale, guide_lr=guide_lr if given_lr else None, **options)
    lr = guide_lr.astype(np.float64) if given_lr else None
    assert_close(y, oracle.joint_bilateral_upsample(*double(src, guide), **options, guide_lr=lr), VALUES)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [((2, 4), (15, 30), 7.5), ((4, 4), (10, 15), (2.5, 3.75)), ((3, 3), (6, 4), (2, 4 / 3)), ((1, 5), (3, 13), None)],
    ids=str,
)
@pytest.mark.parametrize("given_lr", [thorough(False), True])
def test_joint_bilateral_upsample_in_any_ratio(low, high, scale, given_lr):
    (x, guide_lr), (guide,) = images(2, 3, size=low), images(3, size=high, seed=1)
    options = dict(radius=1, sigma_spatial=0.8, sigma_range=0.3)
    lr = guide_lr if given_lr else None
    y = joint(x, guide, scale=scale, guide_lr=lr, **options)
    lr = lr if lr is None else lr.astype(np.float64)
    assert_close(y, oracle.joint_bilateral_upsample(*double(x, guide), **options, guide_lr=lr), VALUES)


@pytest.mark.thorough
def test_extreme_sigmas_stay_finite():
    src, guide = images(2, 3, size=(4, 6), batch=1)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(src, guide, sigma):
        options = dict(radius=1, sigma_spatial=sigma, sigma_range=sigma)
        up = ops.joint_bilateral_upsample(src[:, ::2, ::2], guide, scale=2, **options)
        smooth = ops.gaussian_filter(src, sigma=sigma, radius=1)
        return jnp.sum(jnp.sin(up) + jnp.sin(smooth) + jnp.sin(ops.bilateral_filter(src, guide, **options)))

    for sigma in (0.0, 1e-30, 1e-9, 1e-4, 1e9):
        for given_guide in (guide, np.full_like(guide, 0.5)):
            assert_finite(loss(src, given_guide, jnp.float32(sigma)))


def test_tiny_sigmas_choose_the_most_alike_neighbour():
    guide_lr = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4, 1)
    guide = np.repeat(np.repeat(guide_lr, 2, 1), 2, 2)[:, :, ::-1]
    y = joint(guide_lr, guide, scale=2, radius=3, sigma_spatial=1e3, sigma_range=1e-6, guide_lr=guide_lr)
    assert_close(y, guide, 0)


@pytest.mark.thorough
@settings(deadline=None)
@given(seed=st.integers(0, 100), sigma=st.floats(0.0625, 4, width=32))
def test_bilateral_means_stay_within_their_windows(seed, sigma):
    x, guide = images(1, 3, size=(4, 6), seed=seed)
    y = {name: np.asarray(y) for name, y in all_filters(x, guide, sigma).items()}
    for name, cells, scale in (("bilateral", x, 1), ("upsample", x[:, :2, :3], 2)):
        for b, i, j in np.ndindex(y[name].shape[:3]):
            near = oracle.window(cells.shape[1:3], (i // scale, j // scale), (2, 2))
            seen = [cells[b, p, q] for p, q in near]
            assert np.min(seen) - 1e-6 <= y[name][b, i, j] <= np.max(seen) + 1e-6


@pytest.mark.thorough
def test_upsampling_by_one_is_the_joint_bilateral_filter():
    x, guide = images(1, 3, size=(4, 6))
    options = dict(radius=2, sigma_spatial=0.2, sigma_range=0.2)
    up = jax.jit(partial(ops.joint_bilateral_upsample, scale=1, **options))(x, guide)
    assert_close(up, all_filters(x, guide, 0.2)["bilateral"], VALUES)


@pytest.mark.thorough
def test_memory_of_the_bilateral_filter_does_not_grow_with_the_radius():
    (x,) = images(3, size=(32, 32), batch=1)

    def scratch(radius):
        def loss(x):
            return jnp.sum(ops.bilateral_filter(x, radius=radius, sigma_spatial=3.0, sigma_range=0.1) ** 2)

        return jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis().temp_size_in_bytes

    padding = (32 + 2 * 4) ** 2 / (32 + 2) ** 2
    assert scratch(4) <= 1.1 * padding * scratch(1)
