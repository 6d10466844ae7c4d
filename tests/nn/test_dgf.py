"""The deep guided filter: loops over windows, sizes, and what it refuses."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxup import nn
from jaxup.ops import guided_filter, resize
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, random
from tests.oracles.deeplab import deep_guided_filter


@pytest.mark.parametrize("grid, size", [((3, 2), (7, 9)), ((1, 1), (4, 1))], ids=str)
@pytest.mark.first(1, 2)
def test_equals_the_loops(grid, size):
    module, params = drawn(nn.DeepGuidedFilter, 2, 3, features=5, radius=2, eps=0.3)
    x, guide = random(2, *grid, 2), random(2, *size, 3)
    assert_close(call(module, x, guide), deep_guided_filter(np.float64(x), guide, params, 2, 0.3), 1e-5)


def test_size():
    """Of the classes of VOC."""
    assert count(abstract(nn.DeepGuidedFilter, 21, 3)) == 64 * 4 + 21 * 65 == 1621


@pytest.mark.thorough
def test_subsampled():
    """From every second pixel: the fast guided filter."""
    module, _ = drawn(nn.DeepGuidedFilter, 2, 3, features=4, subsample=2)
    x, guide = random(1, 3, 4, 2), random(1, 9, 11, 3)

    @jax.jit
    def expected(x, guide):
        learned = module.second(jax.nn.relu(module.first(guide)))
        y = resize(x, size=(9, 11), method="bilinear", align_corners=True)
        return guided_filter(y, learned, radius=4, eps=1e-2, per_channel=True, subsample=2)

    assert_close(call(module, x, guide), expected(x, guide), 1e-6)


def test_errors():
    build = partial(abstract, nn.DeepGuidedFilter, 2, 3)
    for options, message in (
        ({"features": 0}, "features: expected an integer >= 1"),
        ({"radius": -1}, "radius: expected an integer >= 0"),
        ({"eps": 0.0}, "eps: expected a number > 0"),
        ({"subsample": 0}, "subsample: expected an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**options)
    module = build()
    for x, guide, message in (
        ((1, 2, 2, 3), (1, 4, 4, 3), r"x: expected shape \(\*, \*, \*, 2\)"),
        ((1, 2, 2, 2), (1, 4, 4, 1), r"guide: expected shape \(\*, \*, \*, 3\)"),
        ((1, 2, 2, 2), (2, 4, 4, 3), r"guide: expected shape \(1, \*, \*, \*\)"),
    ):
        with pytest.raises(ValueError, match=message):
            module(random(*x), random(*guide))
