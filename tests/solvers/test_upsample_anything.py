import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import solvers
from tests import goldens
from tests.compare import assert_close


@pytest.mark.parametrize("case", goldens.cases("upa/[fl]*", quick=("loss__x4",)))
@pytest.mark.first(1, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def images(*shape):
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.thorough
def test_images_of_a_batch_do_not_see_each_other():
    guide, x = images(2, 6, 8, 3), images(2, 3, 4, 2)
    run = jax.jit(lambda x, guide: solvers.upsample_anything(x, guide, steps=2, radius=1))
    both = run(x, guide)
    one = run(x[1:].repeat(2, 0), guide[1:].repeat(2, 0))
    assert_close(both[1], one[0], 1e-4)
    assert both.shape == (2, 6, 8, 2) and both.dtype == jnp.float32


@pytest.mark.thorough
def test_edges_of_the_image_are_edges_of_the_map():
    """A step that the low-resolution map has in the middle of a cell; the fit finds the image again."""
    guide = jnp.where(jnp.arange(24) < 10, 0.1, 0.9)[None, None, :, None] * jnp.ones((1, 8, 1, 3))
    x = jnp.array([2.0, 2.0, 5.0, 8.0, 8.0, 8.0])[None, None, :, None] * jnp.ones((1, 2, 1, 1))
    fit = solvers.fit_bilateral(guide, size=(2, 6), steps=20, radius=2, sigma_range=0.8)
    assert fit.loss.shape == (20,) and fit.loss[-1] < 0.5 * fit.loss[0]
    out = np.asarray(fit.apply(x, guide, radius=2))[0, :, :, 0]
    assert np.abs(np.diff(out, axis=1)).argmax(1).tolist() == [9] * 8


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(guide=np.ones((2, 6, 8, 3), np.float32)), r"guide: expected shape \(1, \*, \*, \*\)"),
        (dict(steps=-1), "steps: expected an integer >= 0, got -1"),
        (dict(sigma_range=0.0), "sigma_range: expected a number > 0, got 0.0"),
        (dict(x=np.ones((1, 3, 4), np.float32)), "x: expected "),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        solvers.upsample_anything(**(dict(x=images(1, 3, 4, 2), guide=images(1, 6, 8, 3)) | change))
