import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import random
from tests.oracles import index as oracle

GRIDS = pytest.mark.parametrize("grid, scale", [((3, 2), (2, 3)), ((1, 1), (4, 4)), ((1, 5), (1, 2))], ids=str)


@pytest.mark.parametrize("case", goldens.cases("maxpool_unpool/*"))
def test_golden(case):
    goldens.check(goldens.load(case))


@GRIDS
@pytest.mark.parametrize("channels", [1, 3])
def test_indexed_equals_the_loops(grid, scale, channels):
    shape = (2, scale[0] * grid[0], scale[1] * grid[1])
    x, y, index = random(*shape, 3), random(2, *grid, 3), random(*shape, channels)
    assert_close(ops.indexed_pool(x, index, scale=scale), oracle.indexed_pool(x, index, scale), 1e-6)
    assert_close(ops.indexed_upsample(y, index, scale=scale), oracle.indexed_upsample(y, index, scale), 1e-6)


@pytest.mark.parametrize("shape, scale", [((6, 6), (2, 3)), ((7, 5), (3, 2)), ((4, 4), (4, 4)), ((2, 5), (1, 1))])
def test_max_pool_equals_the_loops(shape, scale):
    """Ties, and rows and columns left over."""
    x = np.round(random(2, *shape, 3))
    values, indices = ops.max_pool(x, scale=scale)
    expected = oracle.max_pool(x, scale)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(ops.max_unpool(values, indices, size=shape), oracle.max_unpool(*expected, shape))


@GRIDS
def test_max_index_unifies(grid, scale):
    """With the indicator of the maximum, the indexed operators are max pooling and max unpooling."""
    x, y = random(2, scale[0] * grid[0], scale[1] * grid[1], 3), random(2, *grid, 3)
    index = ops.max_index(x, scale=scale)
    values, indices = ops.max_pool(x, scale=scale)
    np.testing.assert_array_equal(ops.indexed_pool(x, index, scale=scale), values)
    np.testing.assert_array_equal(ops.indexed_upsample(y, index, scale=scale), ops.max_unpool(y, indices, scale=scale))
    np.testing.assert_array_equal(oracle.indexed_pool(np.ones_like(x), index, scale), 1)


def test_mean_and_nearest_are_indexed():
    """Uniform indices are average pooling, indices of ones nearest interpolation."""
    x = random(1, 4, 6, 2)
    assert_close(
        ops.indexed_pool(x, np.full((1, 4, 6, 1), 0.25, np.float32)), ops.resize(x, size=(2, 3), method="area"), 1e-6
    )
    up = ops.indexed_upsample(x, np.ones((1, 8, 12, 1), np.float32))
    np.testing.assert_array_equal(up, ops.resize(x, scale=2, method="nearest"))


def test_the_first_of_equal_values_has_the_gradient():
    gradient = jax.grad(lambda x: jnp.sum(ops.max_pool(x).values))(jnp.ones((1, 2, 4, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_unusual_values():
    x = jnp.array([[-jnp.inf, -jnp.inf, 1.0, jnp.nan], [-jnp.inf, -jnp.inf, jnp.inf, 2.0]]).reshape(1, 2, 4, 1)
    values, indices = ops.max_pool(x)
    np.testing.assert_array_equal(values.ravel(), [-np.inf, np.nan])
    np.testing.assert_array_equal(indices.ravel(), [0, 3])
    assert_finite(jax.grad(lambda x: jnp.sum(ops.max_pool(x).values))(x))


def test_positions_below_the_map_are_dropped():
    indices = jnp.array([[5, 6]]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(ops.max_unpool(jnp.ones((1, 1, 2, 1)), indices, size=(2, 3)).ravel(), [0] * 5 + [1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: ops.indexed_pool(x, x, scale=(2, 4)), "scale: expected a divisor of width = 6, got 4"),
        (lambda x: ops.indexed_pool(x, x[:, :2]), r"index: expected shape \(1, 4, 6, \*\), got shape \(1, 2, 6, 3\)"),
        (lambda x: ops.indexed_pool(x, x[..., :2]), r"index: expected 1 or 3 channels, got shape \(1, 4, 6, 2\)"),
        (lambda x: ops.indexed_upsample(x, x), r"index: expected shape \(1, 8, 12, \*\)"),
        (lambda x: ops.max_index(x, scale=3), "scale: expected a divisor of height = 4, got 3"),
        (lambda x: ops.max_pool(x, scale=0), "scale: expected an integer >= 1, got 0"),
        (lambda x: ops.max_unpool(x, x, scale=2), "indices: expected an integer dtype, got float32"),
        (lambda x: ops.max_unpool(x, jnp.ones((1, 4), int), scale=2), r"indices: expected shape \(1, 4, 6, 3\)"),
        (lambda x: ops.max_unpool(x, jnp.ones(x.shape, int)), "scale, size: expected exactly one of them"),
    ],
)
def test_bad_inputs(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 4, 6, 3)))
