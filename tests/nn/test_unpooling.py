import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import nn, ops
from tests.compare import assert_finite
from tests.modules import random, scratch
from tests.oracles.index import max_pool, max_unpool


@pytest.mark.parametrize("grid, scale", [((3, 2), (2, 3)), ((1, 1), (4, 4)), ((2, 5), (1, 1))], ids=str)
def test_equals_the_loops(grid, scale):
    shape = scale[0] * grid[0], scale[1] * grid[1]
    x, guide = random(2, *grid, 3), np.round(random(2, *shape, 3))
    out = nn.MaxUnpool(scale=scale)(x, guide)
    np.testing.assert_array_equal(out, max_unpool(x, max_pool(guide, scale)[1], shape))


def test_holistic_max_index():
    """One position for all channels: the maximum of the largest channel."""
    x, guide = random(2, 2, 3, 5), random(2, 4, 6, 3)
    indices = max_pool(guide.max(-1, keepdims=True), (2, 2))[1]
    out = nn.MaxUnpool(scale=2, holistic=True)(x, guide)
    np.testing.assert_array_equal(out, max_unpool(x, np.broadcast_to(indices, x.shape), (4, 6)))


def test_pooling_undoes_it():
    x, guide = random(1, 2, 3, 4), random(1, 4, 6, 4)
    up = nn.MaxUnpool()(x, guide)
    np.testing.assert_array_equal(ops.indexed_pool(up, ops.max_index(guide)), x)


def test_gradients():
    x, guide = jnp.asarray(random(1, 2, 3, 4)), 1e4 * jnp.asarray(random(1, 4, 6, 4))
    _, pullback = jax.vjp(nn.MaxUnpool(), x, guide)
    weights = random(1, 4, 6, 4)
    to_x, to_guide = pullback(jnp.asarray(weights))
    np.testing.assert_array_equal(to_x, ops.indexed_pool(weights, ops.max_index(guide)))
    np.testing.assert_array_equal(to_guide, 0)
    assert_finite(to_x)


@pytest.mark.parametrize("gradients, bound", [(False, 0.3), (True, 1)])
def test_scratch_memory(gradients, bound):
    used = scratch(nn.MaxUnpool(), (1, 64, 64, 256), (1, 128, 128, 256), gradients=gradients)
    assert used <= bound, used


@pytest.mark.parametrize("holistic, expected", [(False, r"\(1, 4, 6, 3\)"), (True, r"\(1, 4, 6, \*\)")])
def test_bad_guide(holistic, expected):
    with pytest.raises(ValueError, match=f"guide: expected shape {expected}, got shape"):
        nn.MaxUnpool(holistic=holistic)(jnp.ones((1, 2, 3, 3)), jnp.ones((1, 4, 5, 4)))
