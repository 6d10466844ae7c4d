import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops.downsample import strided_filter
from tests import goldens
from tests.compare import assert_close
from tests.modules import random
from tests.oracles.a2u import downsample_reassemble as oracle


@pytest.mark.parametrize(
    "grid, scale, kernel_size, groups",
    [((3, 2), (2, 2), 6, 1), ((2, 3), (2, 3), 5, 2), ((1, 1), (3, 1), 2, 4), ((1, 4), (4, 4), 1, 2)],
)
def test_equals_the_loops(grid, scale, kernel_size, groups):
    x = random(2, scale[0] * grid[0], scale[1] * grid[1], 4)
    kernels = random(2, *grid, groups, kernel_size**2)
    actual = ops.downsample_reassemble(x, kernels, scale=scale, kernel_size=kernel_size, groups=groups)
    assert_close(actual, oracle(x, kernels, scale, kernel_size, groups), 1e-6)


@pytest.mark.parametrize("size, filters", [(6, 1), (3, 4)], ids=["shared", "per channel"])
def test_filters_are_kernels_that_are_the_same_everywhere(size, filters):
    x, weights = random(2, 6, 8, 4), random(2, size, size, filters)
    kernels = np.broadcast_to(weights.reshape(2, 1, 1, size**2, filters), (2, 3, 4, size**2, filters)).swapaxes(3, 4)
    expected = ops.downsample_reassemble(x, kernels, scale=2, kernel_size=size, groups=filters)
    assert_close(jax.jit(strided_filter, static_argnums=2)(x, weights, (2, 2)), expected, 1e-6)


@pytest.mark.parametrize("case", goldens.cases("a2u/op_*"))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(scale=3), "scale: expected a divisor of the height of x = 4, got 3"),
        (dict(scale=(2, 4)), "scale: expected a divisor of the width of x = 6, got 4"),
        (dict(kernel_size=0), "kernel_size: expected an integer >= 1, got 0"),
        (dict(groups=3), "groups: expected a divisor of the channels of x = 2, got 3"),
        (dict(kernels=random(1, 2, 3, 8)), r"kernels: expected shape \(1, 2, 3, 9\)"),
        (dict(kernels=random(2, 3, 9)), "kernels: expected 4 or 5 axes"),
        (dict(x=jnp.zeros((1, 4, 6, 2), int)), "x: expected a floating-point type, got int32"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(1, 4, 6, 2), kernels=random(1, 2, 3, 9), scale=2, kernel_size=3)
    with pytest.raises(ValueError, match=message):
        ops.downsample_reassemble(**(good | change))
