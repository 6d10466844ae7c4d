import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxup import solvers
from tests.compare import assert_close, assert_finite
from tests.modules import random
from tests.oracles import solvers as oracles
from tests.oracles.solvers import wls_smooth as oracle
from tests.registry.examples import thorough


@pytest.mark.parametrize("grid", [(5, 7), (1, 6), (1, 1)], ids=str)
@pytest.mark.parametrize("sparse", [False, True], ids=["smoothing", "interpolation"])
@pytest.mark.first(2)
def test_equals_the_dense_solution(grid, sparse):
    x, guide = random(2, *grid, 2), random(2, *grid, 3)
    confidence = np.clip(random(2, *grid, 1), 0, None) + 0.01 if sparse else None
    actual = solvers.wls_smooth(x, guide, smoothness=20.0, sigma=0.8, iterations=2, confidence=confidence)
    for b in range(2):
        trust = None if confidence is None else confidence[b].astype(np.float64)
        expected = oracle(x[b].astype(np.float64), guide[b].astype(np.float64), 20.0, 0.8, 2, trust)
        assert_close(actual[b], expected, 1e-5)


@pytest.mark.thorough
def test_gradients():
    """Of values, confidence, guide and both numbers."""
    with jax.enable_x64(True):
        x, guide, trust = (jnp.asarray(random(1, 3, 4, c), jnp.float64) for c in (1, 2, 1))

        def fn(x, guide, trust, smoothness, sigma):
            return solvers.wls_smooth(
                x, guide, smoothness=smoothness, sigma=sigma, iterations=2, confidence=jnp.exp(trust)
            )

        check_grads(jax.jit(fn), (x, guide, trust, 3.0, 0.7), order=1, modes=["fwd", "rev"])


@pytest.mark.thorough
def test_a_guide_without_edges_has_finite_gradients():
    x, guide = jnp.asarray(random(1, 3, 4, 1)), jnp.ones((1, 3, 4, 2))
    grads = jax.grad(lambda g: solvers.wls_smooth(x, g, smoothness=3.0, sigma=0.5).sum())(guide)
    assert_finite(grads)


@pytest.mark.thorough
def test_huge_smoothness_keeps_means():
    """Links that leave nothing of the one beside them in float32: every line becomes its mean, and the gradient too."""
    x, guide = jnp.asarray(random(1, 3, 4, 1)), jnp.ones((1, 3, 4, 1))
    y, pull = jax.vjp(lambda x: solvers.wls_smooth(x, guide, smoothness=1e12, sigma=1.0), x)
    assert_close(y, jnp.full_like(x, x.mean()), 1e-3)
    assert_close(pull(x)[0], jnp.full_like(x, x.mean()), 1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [1, thorough(3), (2, 4), thorough(4)], ids=str)
@pytest.mark.first(1)
def test_upsampling_keeps_constants(scale):
    sy, sx = scale if isinstance(scale, tuple) else (scale, scale)
    out = solvers.guided_interpolation(jnp.full((2, 2, 3, 1), 5.0), random(2, 2 * sy, 3 * sx, 3), scale=scale)
    assert out.shape == (2, 2 * sy, 3 * sx, 1)
    np.testing.assert_allclose(out, 5, rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        thorough([(2, 2), (4, 8), (8, 16), (15, 31)], None),  # 7.5 and 15.5
        ([(2, 4), (5, 15)], (2.5, 3.75)),
        thorough([(3, 2), (9, 6), (18, 12)], 6),  # broken ratios change nothing for others
        thorough([(3, 2), (4, 7)], None),
    ],
    ids=str,
)
def test_upsampling_in_any_ratio(sizes, scale):
    (low, *levels), numbers = sizes, dict(smoothness=1.5, sigma=0.8, sigma_src=0.6, iterations=2, prior=0.05)
    x, guide = random(1, *low, 2), random(1, *levels[-1], 3)
    expected = oracles.guided_interpolation(*(a[0].astype(np.float64) for a in (x, guide)), levels, **numbers)
    assert_close(solvers.guided_interpolation(x, guide, scale=scale, **numbers)[0], expected, 1e-5)


@pytest.mark.thorough
def test_upsampling_stops_at_the_edge_of_the_guide():
    """The edge of the guide is not where the middle between the pixels is."""
    guide = jnp.repeat(jnp.where(jnp.arange(8) < 3, 0.0, 1.0)[None, None, :, None], 4, axis=1)
    src = jnp.array([[2.0, 8.0]]).reshape(1, 1, 2, 1)
    out = solvers.guided_interpolation(src, guide, scale=4)
    np.testing.assert_allclose(out[0, :, :, 0], np.repeat([[2, 2, 2, 8, 8, 8, 8, 8]], 4, 0), atol=0.05)


@pytest.mark.thorough
def test_half_precision_and_jit():
    src, guide = jnp.asarray(random(1, 2, 3, 1)), jax.nn.sigmoid(jnp.asarray(random(1, 4, 6, 3)))
    full = solvers.guided_interpolation(src, guide, scale=2)
    half = solvers.guided_interpolation(src.astype(jnp.bfloat16), guide, scale=2)
    assert half.dtype == jnp.bfloat16
    assert_close(half, full, 2e-2)
    assert_close(jax.jit(lambda s, g: solvers.guided_interpolation(s, g, scale=2))(src, guide), full, 1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(scale=0), "scale: expected a number >= 1, got 0"),
        (dict(guide=np.ones((1, 5, 6, 3), np.float32)), r"guide: expected shape \(1, 4, 6, \*\)"),
        (dict(smoothness=0.0), "smoothness: expected a number > 0, got 0.0"),
        (dict(sigma_src=-1.0), "sigma_src: expected a number > 0, got -1.0"),
        (dict(iterations=0), "iterations: expected an integer >= 1, got 0"),
        (dict(enlarge="cubic"), "enlarge: expected one of 'nearest', 'bilinear', 'bicubic', got 'cubic'"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(1, 2, 3, 1), guide=random(1, 4, 6, 3), scale=2)
    with pytest.raises(ValueError, match=message):
        solvers.guided_interpolation(**(good | change))
    with pytest.raises(ValueError, match=r"confidence: expected shape \(1, 2, 3, 1\)"):
        solvers.wls_smooth(
            random(1, 2, 3, 2), random(1, 2, 3, 1), smoothness=1.0, sigma=1.0, confidence=random(1, 2, 3, 2)
        )
