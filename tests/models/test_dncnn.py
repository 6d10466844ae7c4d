"""DnCNN and DnCNN-SegNet: sizes of the paper's Table 7, and what every network of it does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import models
from jaxup.interop.backbones import Shapes
from tests.compare import assert_close, assert_finite
from tests.modules import count, multiply_adds
from tests.registry.examples import marked

BASE = 7_087_873
KINDS = {"": (False, False), " NL": (True, False), " NL+C": (True, True)}
# Table 7: parameters beyond those of DnCNN-SegNet, linear, nonlinear and with context, and G multiply-adds.
INDEX = {
    "holistic": ((7_168, 693_504, 2_757_888), (18.16, 19.30, 22.75)),
    "modelwise_o2o": ((16, 56, 152), (18.14, 18.14, 18.14)),
    "shared_o2o": ((48, 168, 456), (18.14, 18.14, 18.14)),
    "unshared_o2o": ((7_168, 25_088, 68_096), (18.16, 18.19, 18.32)),
    "m2o": ((1_376_256, 3_447_808, 11_705_344), (20.44, 23.88, 37.67)),
}
OTHERS = {"max-unpool": (0, 18.14), "max-carafe": (201_964, 19.11), "conv-carafe": (201_964, 15.23)}


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def small(method="max-unpool", **options):
    return models.DnCNNSegNet(features=4, method=method, **options, rngs=nnx.Rngs(0))


def build_whole(cls, **options):
    return cls(rngs=Shapes(), **options)


def abstract(method, x):
    return nnx.eval_shape(lambda x: small(method)(x), x)


def convolutions(network, size=224):
    """Multiply-adds in units of 2^30."""
    return multiply_adds(network, (1, size, size, 1)) / 2**30


def test_size_of_dncnn():
    network = nnx.eval_shape(partial(build_whole, models.DnCNN))
    assert count(network) == 557_057
    assert convolutions(network) == pytest.approx(25.89, abs=0.005)


@pytest.mark.parametrize("method", OTHERS)
def test_size_of_dncnn_segnet(method):
    """7.09, 7.29 and 7.29 M."""
    network = nnx.eval_shape(partial(build_whole, models.DnCNNSegNet, method=method))
    assert (count(network) - BASE, convolutions(network)) == (
        OTHERS[method][0],
        pytest.approx(OTHERS[method][1], abs=0.006),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("family", marked(INDEX, {"holistic"}))
@pytest.mark.first(1, 3)
def test_size_of_index_networks(family):
    """The increments; what XLA counts differs from the table by the products with padding, at most 2.3 %."""
    for (nonlinear, context), more, cost in zip(KINDS.values(), *INDEX[family], strict=True):
        options = dict(method=family, nonlinear=nonlinear, context=context)
        network = nnx.eval_shape(partial(build_whole, models.DnCNNSegNet, **options))
        assert count(network) == BASE + more
        network.eval()
        graph, state = nnx.split(network)
        run = jax.jit(lambda state, x, graph=graph: nnx.merge(graph, state)(x))
        with jax.default_matmul_precision("highest"):  # as many products as plain convolutions
            lowered = run.lower(state, jax.ShapeDtypeStruct((1, 224, 224, 1), jnp.float32))
        assert lowered.cost_analysis()["flops"] / 2**31 == pytest.approx(cost, rel=0.023)


def test_dncnn_follows_its_equation():
    network, x = models.DnCNN(2, features=3, layers=3, rngs=nnx.Rngs(0)), random(1, 5, 7, 2)
    network.eval()
    assert network.layers[0].norm is None

    @nnx.jit
    def both(network, x):
        first, second = network.layers
        y = nnx.relu(second.norm(second.conv(nnx.relu(first.conv(x)))))
        return network(x), x - network.last(y)

    assert_close(*both(network, x), 1e-6)


def test_stages_of_dncnn_segnet():
    """The layers of Fig. 12 by their widths, with downsampling after the second, fourth and seventh."""
    network = nnx.eval_shape(lambda: models.DnCNNSegNet(rngs=Shapes()))
    widths = [[layer.conv.out_features for layer in block] for block in (*network.encoder, *network.decoder)]
    assert widths == [[64, 64], [128, 128], [256] * 3, [512] * 2, [256], [128, 128], [64, 64], [64, 64]]
    assert sum(map(len, widths)) + 1 == 17
    assert network.resampling.features == (64, 128, 256)
    strided = nnx.eval_shape(lambda: small("conv-carafe"))
    assert [layer.conv.strides for block in strided.encoder for layer in block] == [1, 2, 1, 2, 1, 1, 2, 1, 1]


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["conv-carafe", pytest.param("modelwise_o2o", marks=pytest.mark.slow)])
@pytest.mark.first(1, 1)
def test_gradients_reach_every_parameter(method):
    network, x = small(method, nonlinear=True), random(2, 16, 24, 1)
    network.eval()  # in training mode no gradient reaches a bias before BatchNorm
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def run(params, x):
        def loss(params):
            y = nnx.merge(graph, params, rest)(x)
            return jnp.mean(y**2), y

        return jax.grad(loss, has_aux=True)(params)

    gradients, y = run(params, x)
    assert y.shape == x.shape
    assert_finite(gradients)
    for path, gradient in nnx.to_flat_state(gradients):
        assert jnp.any(gradient[...] != 0), path


def test_modelwise_networks_share_one_index_network():
    for method, networks in {"modelwise_o2o": 1, "shared_o2o": 3}.items():
        assert len(nnx.eval_shape(lambda method=method: small(method)).resampling.down_layers) == networks


def test_index_maps_of_the_stages():
    y, memories = nnx.eval_shape(lambda x: small("m2o").encode(x), random(1, 16, 8, 1))
    assert y.shape == (1, 2, 1, 32)
    assert [index.decoder.shape for index in memories] == [(1, 16, 8, 4), (1, 8, 4, 8), (1, 4, 2, 16)]


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: models.DnCNN(layers=2, rngs=nnx.Rngs(0)), "layers: expected an integer >= 3"),
        (
            lambda: nnx.eval_shape(lambda: models.DnCNN(features=2, rngs=Shapes())(random(1, 4, 4, 3))),
            r"x: expected shape \(\*, \*, \*, 1\)",
        ),
        (lambda: abstract("max-unpool", random(1, 12, 16, 1)), "a divisor of the height of x = 12, got 8"),
        (
            lambda: abstract("conv-carafe", random(1, 8, 20, 1)),
            "downsampling: expected a divisor of the width of x = 20",
        ),
        (lambda: small("conv-deconv"), "method: expected one of 'avg-nearest'"),
        (lambda: small("space-to-depth"), "method: expected one of"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
