import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops.neighbourhood import neighbour_counts
from tests import goldens
from tests.compare import assert_close
from tests.modules import random
from tests.oracles import features as oracle


@pytest.mark.parametrize("case", goldens.cases("naf/core__*", quick=("core__k3_ratio2.4",)))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "queries, keys, size", [(12, 4, 3), (13, 5, 3), (5, 5, 3), (9, 2, 5), (1, 1, 9), (40, 9, 9), (3, 7, 3)]
)
def test_counts(queries, keys, size):
    """As many neighbours as the window has, or all of the query's residue."""
    counts = neighbour_counts(queries, keys, size)
    for i, row in enumerate(counts):
        expected = np.bincount(oracle.neighbours(i, queries, keys, size), minlength=keys)
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    "size, grid, kernel, heads",
    [((18, 6), (6, 3), 3, 2), ((7, 11), (3, 4), 3, 1), ((4, 3), (1, 2), 5, 2), ((2, 3), (3, 5), 3, 1)],
    ids=str,
)
def test_equals_the_loops(size, grid, kernel, heads):
    arrays = random(2, *size, 8), random(2, *grid, 8), random(2, *grid, 4)
    actual = ops.neighbourhood_attend(*arrays, kernel_size=kernel, num_heads=heads)
    assert_close(actual, oracle.neighbourhood_attend(*arrays, kernel, heads), 1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(value=random(1, 2, 3, 5)), "num_heads: expected a divisor of the channels of value = 5, got 2"),
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(key=random(1, 2, 3, 6)), r"key: expected shape \(1, \*, \*, 4\)"),
    ],
)
def test_errors(change, message):
    arrays = dict(query=random(1, 4, 6, 4), key=random(1, 2, 3, 4), value=random(1, 2, 3, 6))
    with pytest.raises(ValueError, match=message):
        ops.neighbourhood_attend(**(arrays | dict(kernel_size=3, num_heads=2) | change))


def test_constants_are_kept():
    out = ops.neighbourhood_attend(random(1, 5, 7, 4), random(1, 2, 3, 4), jnp.full((1, 2, 3, 2), 3.0), kernel_size=9)
    assert_close(out, jnp.full((1, 5, 7, 2), 3.0), 1e-6)
