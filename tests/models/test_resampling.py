from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.models.resampling import RESAMPLINGS, Resampling
from tests.compare import assert_close
from tests.modules import count, random, randomised

STAGES = (64, 128, 256)  # of the denoising networks of Table 7


def parameters(method, **options):
    return count(nnx.eval_shape(lambda: Resampling(method=method, features=STAGES, rngs=nnx.Rngs(0), **options)))


@pytest.mark.parametrize(
    "family, linear, nonlinear, with_context",
    [
        ("holistic", "7.17K", "0.69M", "2.76M"),
        ("modelwise_o2o", "16", "56", "152"),
        ("shared_o2o", "48", "168", "456"),
        ("unshared_o2o", "7.17K", "25.1K", "68.1K"),
        ("m2o", "1.38M", "3.45M", "11.7M"),
    ],
)
def test_index_networks_have_the_parameters_of_table_7(family, linear, nonlinear, with_context):
    cases = {linear: (False, False), nonlinear: (True, False), with_context: (True, True)}
    for printed, (nonlinear, context) in cases.items():
        unit = {"K": 1e3, "M": 1e6}.get(printed[-1], 1)
        value = float(printed.rstrip("KM")) * unit
        rounding = 0 if unit == 1 else 10.0 ** -len(printed.rstrip("KM").partition(".")[2]) * unit
        for method in (family, f"{family}-bilinear"):
            assert abs(parameters(method, nonlinear=nonlinear, context=context) - value) <= rounding


@pytest.mark.parametrize(
    "method, expected",
    [
        ("max-carafe", 201_964),  # 7.29 M - 7.09 M in Table 7
        ("avg-carafe", 201_964),
        ("conv-deconv", 2 * sum((9 * c + 1) * c for c in STAGES)),
        ("max-unpool", 0),
        ("avg-nearest", 0),
        ("space-to-depth", 0),
    ],
)
def test_parameters_of_the_others(method, expected):
    assert parameters(method) == expected


EACH = [method for method in RESAMPLINGS if method not in ("avg-carafe", "max-carafe", "shared_o2o")]
EACH = [method for method in EACH if not method.endswith("o-bilinear")]  # as "holistic-bilinear"


@pytest.mark.parametrize("method", EACH)
def test_down_and_up(method):
    """Shapes and dtypes in both precisions; every parameter has a gradient."""
    stages = Resampling(method=method, features=(8, 4), rngs=nnx.Rngs(0))
    randomised(stages, 0.1)

    def both(module, x):
        y, memory = module.down(1, x)
        return y, module.up(1, y[..., :4], memory)

    def loss(module, x):
        return sum(jnp.sum(jnp.sin(3 * out)) for out in both(module, x)), both(module, x)

    x = jnp.asarray(random(2, 6, 4, 4))
    gradients, (small, large) = nnx.jit(nnx.grad(loss, has_aux=True))(stages, x)
    assert small.shape == (2, 3, 2, stages.down_features(1))
    assert large.shape == (2, 6, 4, stages.up_features(1))
    for path, gradient in nnx.to_flat_state(gradients):
        unused = path[1] == 0 and method != "modelwise_o2o"  # the other stage
        assert (np.abs(gradient[...]).max() > 0) != unused, path
    stages.eval()
    half = jax.eval_shape(partial(both, stages), x.astype(jnp.bfloat16))
    assert {out.dtype for out in half} == {jnp.dtype(jnp.bfloat16)}


def make(method, **options):
    return Resampling(method=method, features=(4, 8), rngs=nnx.Rngs(0), **options)


def test_blind_and_guided():
    x, z = jnp.asarray(random(1, 4, 6, 4)), jnp.asarray(random(1, 2, 3, 4))
    y, memory = make("avg-nearest").down(0, x)
    assert memory is None
    assert_close(y, x.reshape(1, 2, 2, 3, 2, 4).mean((2, 4)), 1e-6)
    stages = make("max-unpool")
    y, memory = stages.down(0, x)
    assert_close(y, x.reshape(1, 2, 2, 3, 2, 4).max((2, 4)), 0)
    assert_close(stages.up(0, y, memory), jnp.where(x == ops.resize(y, scale=2, method="nearest"), x, 0), 0)
    stages = make("space-to-depth")
    assert_close(stages.up(0, z, None), ops.pixel_shuffle(z, scale=2), 0)
    stages = make("m2o")
    y, index = stages.down(0, x)
    assert_close(y, ops.indexed_pool(x, index.encoder), 0)
    assert_close(stages.up(0, z, index), ops.indexed_upsample(z, index.decoder), 0)
    stages = make("a2u")
    assert_close(stages.up(0, jnp.ones_like(z), stages.down(0, x)[1])[:, 2:-2, 2:-2], jnp.ones((1, 0, 2, 4)), 1e-6)


def test_modelwise_is_one_network():
    stages = make("modelwise_o2o")
    assert len(stages.down_layers) == 1
    x = jnp.asarray(random(1, 4, 6, 4))
    index = stages.down(0, x)[1], stages.down(1, jnp.concatenate([x, x], 3))[1]
    assert_close(index[1].decoder[..., 4:], index[0].decoder, 1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make("max-nearest"), "method: expected one of 'avg-nearest'"),
        (lambda: Resampling(method="a2u", features=(0,), rngs=nnx.Rngs(0)), "features: expected an integer >= 1"),
        (lambda: Resampling(method="space-to-depth", features=(6,), rngs=nnx.Rngs(0)), "features: expected multiples"),
        (lambda: make("max-unpool").down(0, random(1, 3, 4, 4)), "scale: expected a divisor of the height of x"),
        (lambda: make("max-unpool").down(1, random(1, 4, 4, 4)), r"x: expected shape \(\*, \*, \*, 8\)"),
        (lambda: make("conv-deconv").up(1, random(1, 4, 4, 4), None), r"z: expected shape \(\*, \*, \*, 8\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
