import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.models import DMSG
from tests import goldens
from tests.compare import assert_close
from tests.modules import drawn, random


@pytest.mark.parametrize("case", goldens.cases("dmsg/*", quick=["msgnet_x2"]))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("scale, count", [(2, 198_148), (4, 326_404), (8, 454_660), (16, 582_916)])
@pytest.mark.first(1)
def test_parameters_and_sizes(scale, count):
    network = nnx.eval_shape(lambda: DMSG(scale=scale, rngs=nnx.Rngs(0)))
    assert sum(np.prod(leaf.shape) for _, leaf in nnx.to_flat_state(nnx.state(network))) == count
    run = lambda x, guide: DMSG(scale=scale, rngs=nnx.Rngs(0))(x, guide)  # noqa: E731
    for grid in ((3, 4), (1, 1)):
        large = tuple(scale * n for n in grid)
        out = nnx.eval_shape(run, jnp.ones((1, *grid, 1)), jnp.ones((1, *large, 3)))
        assert out.shape == (1, *large, 1)


@pytest.mark.slow
def test_a_network_that_adds_nothing_enlarges_means():
    network, _ = drawn(DMSG, scale=2)
    network.last.kernel[...] = jnp.zeros_like(network.last.kernel[...])
    network.last.bias[...] = jnp.zeros_like(network.last.bias[...])
    x, guide = random(1, 4, 5, 1), random(1, 8, 10, 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    means = np.mean([padded[:, i : i + 4, j : j + 5] for i in range(3) for j in range(3)], axis=0)
    expected = ops.resize(jnp.asarray(means), scale=2, method="bicubic", cubic_coefficient=-0.5)
    assert_close(network(jnp.asarray(x), jnp.asarray(guide)), expected, 1e-5)


@pytest.mark.parametrize(
    "x, guide, message",
    [
        ((1, 3, 4, 2), (1, 6, 8, 3), r"x: expected shape"),
        ((1, 3, 4, 1), (1, 6, 9, 3), r"guide: expected shape \(1, 6, 8, \*\)"),
        ((1, 3, 4, 1), (1, 6, 8, 1), r"guide: expected shape"),
    ],
)
def test_bad_input(x, guide, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: DMSG(scale=2, rngs=nnx.Rngs(0))(jnp.ones(x), jnp.ones(guide)))


def test_bad_scale():
    with pytest.raises(ValueError, match="scale: expected a power of two, got 3"):
        nnx.eval_shape(lambda: DMSG(scale=3, rngs=nnx.Rngs(0)))
