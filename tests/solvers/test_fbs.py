from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxup import ops, solvers
from jaxup.solvers import fbs
from tests.compare import assert_close
from tests.modules import random
from tests.oracles import solvers as oracles
from tests.oracles.solvers import bilateral_solver as oracle

SIGMAS = dict(sigma_spatial=2.0, sigma_luma=0.25, sigma_chroma=0.3)


def uniform(*shape):
    return np.random.default_rng(sum(shape)).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("grid, channels", [((6, 5), 3), ((1, 7), 1), ((1, 1), 3)], ids=str)
@pytest.mark.first(1)
def test_equals_the_dense_solution(grid, channels):
    target, guide, trust = random(2, *grid, 2), uniform(2, *grid, channels), uniform(2, *grid, 1)
    actual = solvers.bilateral_solver(
        target, guide, confidence=trust, smoothness=3.0, iterations=200, tolerance=1e-7, **SIGMAS
    )
    for b in range(2):
        expected = oracle(target[b], guide[b], trust[b], 3.0, tuple(SIGMAS.values()))
        assert_close(actual[b], expected, 1e-4)


@pytest.mark.thorough
def test_gradients():
    """Of target, confidence and smoothness; the guide only chooses vertices."""
    with jax.enable_x64(True):
        target, guide, trust = (jnp.asarray(uniform(1, 3, 4, c), jnp.float64) for c in (1, 3, 1))

        def fn(target, trust, smoothness):
            return solvers.bilateral_solver(
                target, guide, confidence=trust, smoothness=smoothness, iterations=100, tolerance=1e-14, **SIGMAS
            )

        check_grads(jax.jit(fn), (target, trust, 2.0), order=1, modes=["rev"])


@pytest.mark.thorough
def test_constants_and_missing_confidence():
    guide = uniform(1, 5, 6, 3)
    kept = solvers.bilateral_solver(jnp.full((1, 5, 6, 1), 7.0), guide, smoothness=50.0, **SIGMAS)
    np.testing.assert_allclose(kept, 7, rtol=1e-4)
    nothing = solvers.bilateral_solver(random(1, 5, 6, 1), guide, confidence=jnp.zeros((1, 5, 6, 1)), **SIGMAS)
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.thorough
def test_upsampling_follows_the_guide_and_keeps_the_dtype():
    guide = jnp.repeat(jnp.where(jnp.arange(16) < 8, 0.1, 0.9)[None, None, :, None], 8, axis=1)
    src = jnp.array([[2.0, 8.0]]).reshape(1, 1, 2, 1)
    out = solvers.bilateral_solver_upsample(src, guide, scale=8)[0, :, :, 0]
    step = np.repeat(np.where(np.arange(16) < 8, 2.0, 8.0)[None], 8, axis=0)
    bicubic = ops.resize(src, scale=8, method="bicubic")[0, :, :, 0]
    assert np.abs(out - step).max() < np.abs(bicubic - step).max() / 3
    half = solvers.bilateral_solver_upsample(src.astype(jnp.bfloat16), guide, scale=8)
    assert half.dtype == jnp.bfloat16
    assert_close(half[0, :, :, 0], out, 2e-2)


@pytest.mark.thorough
@pytest.mark.parametrize(("low", "high", "scale"), [((2, 4), (5, 15), (2.5, 3.75)), ((2, 2), (15, 15), 7.5)], ids=str)
@pytest.mark.first(1)
def test_upsampling_in_any_ratio(low, high, scale):
    x, guide = random(1, *low, 2), uniform(1, *high, 3)
    run = partial(solvers.bilateral_solver_upsample, smoothness=3.0, iterations=300, tolerance=1e-7, **SIGMAS)
    expected = oracles.bilateral_solver_upsample(x[0], guide[0], 0.25, 3.0, tuple(SIGMAS.values()))
    assert_close(run(x, guide, scale=scale)[0], expected, 1e-4)
    np.testing.assert_array_equal(run(x, guide), run(x, guide, scale=scale))


def test_default_width_numbers_all_vertices():
    """Of any image: of sparse samples at its size, of 2x, and of many pixels."""
    for low, high, least in (
        ((480, 640), (480, 640), 8),
        ((60, 80), (480, 640), 8),
        ((240, 320), (480, 640), 2),
        ((1500, 2000), (3000, 4000), 2),
    ):
        width = fbs._block(low, high, 3, 0.02, 0.04)
        assert width >= least and np.prod([float(n) for n in fbs._cells(high, 3, (width, 0.02, 0.04))]) < 2**31
    assert fbs._block((60, 80), (480, 640), 3, 0.02, 0.04) == 8
    guide, x = np.ones((1, 480, 640, 3), np.float32), np.ones((1, 240, 320, 1), np.float32)
    assert jax.eval_shape(solvers.bilateral_solver_upsample, x, guide).shape == (1, 480, 640, 1)


@pytest.mark.thorough
def test_colours_without_a_sample_take_what_is_around():
    """A dark line between the samples of a bright plane, whose vertices no data reaches."""
    guide = np.full((1, 12, 12, 1), 0.9, np.float32)
    guide[:, :, 5:7] = 0.1
    trust = np.zeros((1, 12, 12, 1), np.float32)
    trust[:, 1::4, 1::9] = 1
    out = solvers.bilateral_solver_upsample(
        np.where(trust > 0, 0.7, np.nan).astype(np.float32), guide, confidence=trust
    )
    np.testing.assert_allclose(out, 0.7, rtol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(guide=uniform(1, 4, 6, 2)), "guide: expected 1 or 3 channels, got 2"),
        (dict(guide=uniform(1, 4, 5, 3)), r"guide: expected shape \(1, 4, 6, \*\)"),
        (dict(confidence=uniform(1, 4, 6, 2)), r"confidence: expected shape \(1, 4, 6, 1\)"),
        (dict(smoothness=0.0), "smoothness: expected a number > 0"),
        (dict(sigma_spatial=0.0), "sigma_spatial: expected a number > 0"),
        (dict(iterations=0), "iterations: expected an integer >= 1"),
        (dict(sigma_luma=1e-5, sigma_chroma=1e-5), r"expected values that make fewer than 2\^31 vertices"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(1, 4, 6, 1), guide=uniform(1, 4, 6, 3))
    with pytest.raises(ValueError, match=message):
        solvers.bilateral_solver(**(good | change))
