import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop.backbones import Shapes
from jaxup.models import ReconstructionNetwork
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, random
from tests.registry.examples import marked, thorough

# The rows of Table 3, and A2U, with their parameters.
ROWS = {
    "avg-nearest": 776_129,
    "conv-bilinear": 969_889,
    "space-to-depth": 1_868_009,
    "conv-deconv": 1_163_649,
    "conv-carafe": 1_157_517,
    "max-unpool": 776_129,
    "modelwise_o2o": 776_281,
    "holistic": 1_466_945,
    "m2o": 3_704_257,
    "a2u": 793_823,
    "a2u-k1": 779_295,
    "a2u-softmax": 793_823,
    "holistic-max-unpool": 776_129,
}


@pytest.mark.parametrize("method", ROWS)
def test_parameter_counts(method):
    assert count(nnx.eval_shape(lambda: ReconstructionNetwork(method=method, rngs=Shapes()))) == ROWS[method]


def test_parameters_of_the_layers():
    """C(32)-D-C(64)-D-C(128)-D-C(256)-C(128)-U-C(64)-U-C(32)-U-C(1): weights, two per BatchNorm channel, one bias."""
    widths = [1, 32, 64, 128, 256, 128, 64, 32, 1]
    convolutions = sum(9 * i * o for i, o in itertools.pairwise(widths))
    assert ROWS["avg-nearest"] == convolutions + 2 * sum(widths[1:-1]) + 1


# One of each kind; tests/models/test_resampling.py has the stages of all.
QUICK = {"avg-nearest", "space-to-depth", "conv-carafe", "holistic"}


@pytest.mark.parametrize("method", marked(ROWS, QUICK))
@pytest.mark.first(2, 3)
def test_every_row_trains(method):
    """Gradients reach every parameter; batch statistics move."""
    (network, _), x = drawn(ReconstructionNetwork, method=method, widths=(4,)), random(2, 4, 6, 1)
    before = jax.tree.map(np.asarray, nnx.state(network, nnx.BatchStat))
    gradients = nnx.jit(nnx.grad(lambda network: jnp.mean(jnp.abs(network(x) - x))))(network)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.abs(gradient[...]).max() > 0, path
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, nnx.state(network, nnx.BatchStat))
    assert all(jax.tree.leaves(moved))


@pytest.mark.thorough
def test_evaluation_is_of_each_image_alone():
    """And leaves the statistics; in training images see each other through them."""
    (network, _), x = drawn(ReconstructionNetwork, method="modelwise_o2o", widths=(4,)), random(2, 4, 6, 1)
    together = call(network, x)
    assert together.shape == x.shape
    network.eval()
    before = jax.tree.map(np.asarray, nnx.state(network))
    first = call(network, x)
    assert_close(first[:1], call(network, np.stack([x[0], x[0]]))[:1], 1e-5)
    assert np.abs(first - together).max() > 1e-2
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(network))


@pytest.mark.parametrize("method, width", [("space-to-depth", 16), ("avg-nearest", 4)])
def test_widths_follow_the_method(method, width):
    network = nnx.eval_shape(lambda: ReconstructionNetwork(method=method, widths=(4, 8), rngs=Shapes()))
    assert network.encoder[1].conv.in_features == width
    assert network.last.in_features == (1 if method == "space-to-depth" else 4)


@pytest.mark.parametrize("method", ["conv-carafe", thorough("max-a2u")])
def test_kernels_give_the_largest_map(method):
    (network, _), x = drawn(ReconstructionNetwork, method=method, widths=(2, 4)), random(1, 8, 12, 1)
    network.eval()

    @nnx.jit
    def both(network, x):
        kernels = network.kernels(x)
        z, memories = network.encode(x)
        z = network.decoder[1](network.resampling.up(1, network.decoder[0](z), memories[1]))
        enlarged = ops.reassemble(z, kernels, scale=2, kernel_size=int(kernels.shape[-1] ** 0.5))
        return network(x), network.last(enlarged)

    assert_close(*both(network, x), 1e-5)


def test_options_of_index_networks():
    options = dict(nonlinear=False, context=False, encoder_normalization="softmax", decoder_normalization="softmax")
    network = nnx.eval_shape(lambda: ReconstructionNetwork(method="m2o", widths=(4,), rngs=Shapes(), **options))
    (index,) = network.resampling.down_layers
    assert index.columns[0].kernel.shape == (2, 2, 4, 4) and index.columns[0].mix is None
    assert (index.encoder_normalization, index.decoder_normalization) == ("softmax", "softmax")


def test_bad_input():
    network = abstract(ReconstructionNetwork, method="avg-nearest", widths=(4, 8))
    run = lambda x: nnx.eval_shape(lambda network: network(x), network)  # noqa: E731
    with pytest.raises(ValueError, match="stride: expected a divisor of width = 6, got 4"):
        run(random(1, 8, 6, 1))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 1\)"):
        run(random(1, 8, 8, 3))
    with pytest.raises(ValueError, match="method: expected one that averages by kernels"):
        nnx.eval_shape(lambda network: network.kernels(random(1, 8, 8, 1)), network)
