"""The fully connected CRF: loops over pairs, the lattice, and what it does to an image."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxup.solvers import dense_crf
from jaxup.solvers.crf import _exact_sums
from jaxup.solvers.permutohedral import lattice_sum, make_lattice
from tests.compare import assert_close, assert_finite
from tests.oracles import crf as oracle

OPTIONS = dict(
    iterations=3, bilateral_weight=1.5, sigma_spatial=3.0, sigma_colour=0.3, smooth_weight=0.7, sigma_smooth=1.2
)


def inputs(height, width, labels=3, channels=3, batch=1):
    random = np.random.default_rng(height)
    x = random.normal(0, 2, (batch, height, width, labels)).astype(np.float32)
    return x, random.uniform(0, 1, (batch, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize(
    "shape, options",
    [
        ((4, 5), OPTIONS),
        ((1, 1), OPTIONS),
        ((5, 1), OPTIONS | {"iterations": 0}),
        ((3, 4), OPTIONS | {"smooth_weight": 0.0, "iterations": 10}),
    ],
)
@pytest.mark.first(2, 4)
def test_equals_the_loops(shape, options):
    x, guide = inputs(*shape)
    found = dense_crf(x, guide, **options, method="exact")
    assert_close(found[0], oracle.dense_crf(np.float64(x[0]), np.float64(guide[0]), **options), 1e-5)


def test_blocks_of_pixels_change_nothing(monkeypatch):
    """Also where the last one is smaller."""
    points, q = (np.random.default_rng(i).normal(size=(20, 3)).astype(np.float32) for i in (0, 1))
    whole = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 2) @ q
    monkeypatch.setattr("jaxup.solvers.crf._BLOCK", 20 * 7)
    assert_close(jax.jit(lambda points, q: _exact_sums(points)(q))(points, q), whole, 1e-5)


@jax.jit
def on_lattice(points, values):
    lattice = make_lattice(points)
    return lattice_sum(lattice, values), lattice.weight


@pytest.mark.thorough
@pytest.mark.parametrize("dimensions", [5, 1, 2])
@pytest.mark.first(1, 3)
def test_lattice_equals_the_dictionaries(dimensions):
    """Far from zero, and with points that share vertices."""
    random = np.random.default_rng(dimensions)
    points = np.float32(random.normal(0, 0.4, (12, dimensions)) + 7)
    points[3] = points[2]
    values = np.float32(random.normal(size=(12, 2)))
    found, weight = on_lattice(points, values)
    assert_close(found, oracle.lattice_sum(np.float64(points), np.float64(values)), 2e-4)
    assert np.min(weight) >= -1e-5 and np.allclose(weight.sum(1), 1, atol=1e-5)


def scene(height, width):
    """A disc before a gradient, noisy logits that know it, and the labels."""
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    random = np.random.default_rng(0)
    guide = np.where(disc[..., None], (0.7, 0.3, 0.2), 0.3) + rows[..., None] / height * 0.1
    guide = guide + random.normal(0, 0.02, (height, width, 3))
    x = (disc[..., None] * 2.0 - 1) * (1, -1) + random.normal(0, 1.5, (height, width, 2))
    return np.float32(x)[None], np.float32(guide)[None], np.where(disc, 0, 1)


@pytest.mark.thorough
def test_lattice_is_near_the_exact_sums():
    """Both mend noisy logits along the edges of the image."""
    x, guide, labels = scene(24, 30)
    options = dict(sigma_spatial=8.0, sigma_colour=0.1, bilateral_weight=3.0, smooth_weight=1.0)
    exact, near = (dense_crf(x, guide, **options, method=method)[0] for method in ("exact", "lattice"))
    wrong = [np.mean(np.argmax(y, -1) != labels) for y in (x[0], exact, near)]
    assert wrong[0] > 0.15 and max(wrong[1:]) < 0.01
    assert np.mean(np.abs(exact - near)) < 0.005
    assert np.allclose(near.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("method", [pytest.param("lattice", marks=pytest.mark.thorough), "exact"])
def test_constant_logits_and_permuted_labels(method):
    """What knows nothing stays so, and labels are alike."""
    x, guide = inputs(5, 6)
    run = partial(dense_crf, guide=guide, **OPTIONS, method=method)
    assert_close(run(np.zeros_like(x)), np.full_like(x, 1 / 3), 1e-6)
    assert_close(run(x[..., [2, 0, 1]]), run(x)[..., [2, 0, 1]], 1e-5)
    assert_close(run(x + 5), run(x), 1e-5)


def test_images_of_a_batch_by_themselves():
    x, guide = inputs(4, 5, channels=1, batch=2)
    found = dense_crf(x, guide, **OPTIONS, method="exact")
    assert_close(found[1], oracle.dense_crf(np.float64(x[1]), np.float64(guide[1]), **OPTIONS), 1e-5)


@pytest.mark.slow
def test_gradients():
    """In the logits of both, and of the exact sums in guide and options."""
    with jax.enable_x64(True):
        x, guide = (np.float64(y) for y in inputs(3, 4))
        options = {**OPTIONS, "iterations": 2}

        def run(x, guide, sigma, weight):
            return dense_crf(x, guide, **{**options, "sigma_colour": sigma, "bilateral_weight": weight}, method="exact")

        check_grads(run, (x, guide, 0.3, 1.5), order=1, modes=["rev"], rtol=1e-4)
        check_grads(lambda x: dense_crf(x, guide, **options), (x,), order=1, modes=["rev"], rtol=1e-4)
        assert_finite(jax.grad(lambda guide: jnp.sum(dense_crf(x, guide, **options) ** 2))(guide))


def test_types():
    for method in ("lattice", "exact"):
        x, guide = (jax.ShapeDtypeStruct((2, 7, 5, n), jnp.bfloat16) for n in (4, 3))
        y = jax.eval_shape(partial(dense_crf, method=method), x, guide)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(guide=np.ones((1, 4, 6, 3), np.float32)), r"guide: expected shape \(1, 4, 5, \*\)"),
        (dict(x=np.ones((4, 5, 3), np.float32)), r"x: expected 4 axes"),
        (dict(method="grid"), "method: expected one of 'lattice', 'exact', got 'grid'"),
        (dict(iterations=-1), "iterations: expected an integer >= 0"),
        (dict(sigma_smooth=0.0), "sigma_smooth: expected a number > 0"),
        (dict(smooth_weight=-1.0), "smooth_weight: expected a number >= 0, got -1.0"),
        (dict(bilateral_weight=np.ones(2)), "bilateral_weight: expected 0 axes"),
    ],
)
def test_errors(change, message):
    x, guide = inputs(4, 5)
    with pytest.raises(ValueError, match=message):
        dense_crf(**(dict(x=x, guide=guide) | change))
