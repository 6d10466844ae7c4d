import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests import goldens
from tests.compare import assert_close
from tests.modules import random
from tests.oracles import features as oracle


@pytest.mark.parametrize("case", goldens.cases("upa/kernel__*", quick=("kernel__x7_R2",)))
def test_golden(case):
    goldens.check(goldens.load(case))


def inputs(grid, size, channels=2):
    draw = np.random.default_rng(0).uniform
    maps = [draw(low, high, (2, *grid, 1)).astype(np.float32) for low, high in ((0.5, 3), (0.3, 2), (-3, 3), (0.2, 1))]
    return random(2, *grid, channels), draw(0, 1, (2, *size, 3)).astype(np.float32), *maps


@pytest.mark.parametrize(
    "grid, size, scale, options",
    [
        ((3, 2), (12, 6), None, {}),
        ((3, 4), (11, 9), (3, 2), dict(centre="floor")),  # the last cells have more pixels
        ((4, 3), (6, 10), None, dict(reach=0.5)),  # no whole ratio
        ((1, 1), (3, 1), None, {}),
    ],
    ids=str,
)
def test_equals_the_loops(grid, size, scale, options):
    options = dict(radius=2, reach=1.0, centre="nearest") | options
    arrays = inputs(grid, size)
    ratio = tuple(n / m for n, m in zip(size, grid, strict=True)) if scale is None else scale
    actual = ops.anisotropic_bilateral_upsample(*arrays, scale=scale, **options)
    assert_close(actual, oracle.anisotropic(*arrays, ratio, **options), 2e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(theta=np.ones((2, 3, 3, 1), np.float32)), r"theta: expected shape \(2, 3, 2, 1\)"),
        (dict(guide=np.ones((1, 6, 4, 3), np.float32)), r"guide: expected shape \(2, \*, \*, \*\)"),
        (dict(scale=0), "scale, reach: expected numbers above 0"),
        (dict(centre="left"), "centre: expected one of 'nearest', 'floor', got 'left'"),
        (dict(radius=0), "radius: expected an integer >= 1, got 0"),
    ],
)
def test_errors(change, message):
    names = ("x", "guide", "sigma_x", "sigma_y", "theta", "sigma_range")
    arrays = dict(zip(names, inputs((3, 2), (6, 4)), strict=True))
    with pytest.raises(ValueError, match=message):
        ops.anisotropic_bilateral_upsample(**(arrays | change))


def test_constants_are_kept():
    x, *others = inputs((2, 3), (5, 7))
    out = ops.anisotropic_bilateral_upsample(0 * x + 4, *others, radius=1)
    assert_close(out, jnp.full((2, 5, 7, 2), 4.0), 1e-6)
