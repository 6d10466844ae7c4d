from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.models.resampling import RESAMPLINGS, Resampling
from jaxup.nn.indexnet import FAMILIES
from tests.compare import assert_close
from tests.modules import abstract, count, drawn, initial, random
from tests.registry.examples import thorough

STAGES = (64, 128, 256)  # of the denoising networks of Table 7


def parameters(method, **options):
    return count(abstract(Resampling, method=method, features=STAGES, **options))


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


LARGE = ("modelwise_o2o", "unshared_o2o", "a2u", "a2u-softmax", "max-a2u")  # their siblings compile faster


@pytest.mark.parametrize("method", [thorough(method) if method in LARGE else method for method in EACH])
@pytest.mark.first(4, 10)
def test_down_and_up(method):
    """Shapes and dtypes in both precisions; every parameter has a gradient."""
    stages, _ = drawn(Resampling, method=method, features=(8, 4), deviation=0.2)

    def both(module, x):
        y, memory = module.down(1, x)
        return y, module.up(1, y[..., :4], memory)

    def loss(module, x):
        outputs = both(module, x)
        return sum(jnp.sum(jnp.sin(3 * out)) for out in outputs), outputs

    x = random(2, 6, 4, 4)
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
    return drawn(Resampling, method=method, features=(4, 8), **options, deviation=0.3)[0]


def down(stages, stage, x):
    return nnx.jit(lambda stages, x: stages.down(stage, x))(stages, x)


@pytest.mark.slow
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


@pytest.mark.parametrize("method", ["conv-carafe", "a2u", thorough("a2u-softmax"), thorough("max-a2u")])
def test_kernels_are_the_weights_of_the_averages(method):
    stages = make(method)

    @nnx.jit
    def run(stages, x, z):
        memory = stages.down(0, x)[1]
        kernels = stages.kernels(0, z, memory)
        size = {25: 5, 9: 3}[kernels.shape[-1]]
        average = ops.reassemble(z, kernels[..., 0, :], scale=2, kernel_size=size)
        return kernels, average, stages.up(0, z, memory)

    kernels, average, out = run(stages, random(1, 4, 6, 4), random(1, 2, 3, 4))
    assert_close(out, average, 1e-5)
    assert_close(np.sum(kernels, -1), np.ones((1, 4, 6, 1)), 1e-5)


def test_holistic_maxima():
    """All channels are pooled, and return, where the largest of them has its maximum."""
    x, z = random(1, 4, 6, 4), random(1, 2, 3, 4)
    stages = make("holistic-max-unpool")
    y, memory = down(stages, 0, x)
    up = np.asarray(nnx.jit(lambda stages, *xs: stages.up(0, *xs))(stages, z, memory))
    y = np.asarray(y)
    largest = x.max(3)
    for i, j in np.ndindex(2, 3):
        u, v = np.unravel_index(np.argmax(largest[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]), (2, 2))
        np.testing.assert_array_equal(y[0, i, j], x[0, 2 * i + u, 2 * j + v])
        expected = np.zeros((2, 2, 4), np.float32)
        expected[u, v] = z[0, i, j]
        np.testing.assert_array_equal(up[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], expected)


def test_max_pooling_before_affinity_aware_upsampling():
    x = random(1, 4, 6, 4)
    y, memory = down(make("max-a2u"), 0, x)
    assert_close(y, x.reshape(1, 2, 2, 3, 2, 4).max((2, 4)), 0)
    np.testing.assert_array_equal(memory, x)


@pytest.mark.parametrize("encoder, decoder", [("sigmoid", "softmax"), ("softmax+sigmoid", "sigmoid+softmax")])
def test_normalisations_of_table_6(encoder, decoder):
    options = dict(nonlinear=False, context=False, encoder_normalization=encoder, decoder_normalization=decoder)
    stages = make("holistic", **options)
    x = random(1, 4, 6, 4)
    index = down(stages, 0, x)[1]
    for map_, steps in zip(index, (encoder, decoder), strict=True):
        cells = np.asarray(map_).reshape(2, 2, 3, 2).sum((1, 3))
        assert np.allclose(cells, 1, atol=1e-5) == steps.endswith("softmax")
    kernel = stages.down_layers[0].columns[0].kernel[...]
    logits = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    steps = {"sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax}
    for name in encoder.split("+"):
        logits = steps[name](logits)
    assert_close(np.asarray(index.encoder)[0, ::2, ::2, 0], np.asarray(logits)[0, ..., 0], 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.first(2)
def test_index_networks_start_as_he_has_it(family):
    """Variance 2 / fan-in, the "improved Xavier" of Lu et al., Sec. 6.2; a kernel sees K^2 inputs of each channel."""
    stages = initial(Resampling, method=family, features=(64,))
    kernels = [np.asarray(column.kernel[...]) for column in stages.down_layers[0].columns]
    fan_in = np.prod(kernels[0].shape[:3])
    values = np.concatenate([np.ravel(kernel) for kernel in kernels])
    error = 5 / np.sqrt(2 * values.size)  # five standard errors
    assert abs(values.std() * np.sqrt(fan_in / 2) - 1) < error


@pytest.mark.thorough
def test_modelwise_is_one_network():
    stages = make("modelwise_o2o")
    assert len(stages.down_layers) == 1
    x = random(1, 4, 6, 4)
    index = down(stages, 0, x)[1], down(stages, 1, np.concatenate([x, x], 3))[1]
    assert_close(np.asarray(index[1].decoder)[..., 4:], index[0].decoder, 1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make("max-bicubic"), "method: expected one of 'avg-nearest'"),
        (lambda: Resampling(method="a2u", features=(0,), rngs=nnx.Rngs(0)), "features: expected an integer >= 1"),
        (
            lambda: make("avg-nearest").kernels(0, random(1, 2, 2, 4), None),
            "method: expected one that averages by kernels: avg-carafe, .* got 'avg-nearest'",
        ),
        (lambda: make("holistic", encoder_normalization="max"), "encoder_normalization: expected one of 'sigmoid'"),
        (lambda: Resampling(method="space-to-depth", features=(6,), rngs=nnx.Rngs(0)), "features: expected multiples"),
        (lambda: make("max-unpool").down(0, random(1, 3, 4, 4)), "scale: expected a divisor of the height of x"),
        (lambda: make("max-unpool").down(1, random(1, 4, 4, 4)), r"x: expected shape \(\*, \*, \*, 8\)"),
        (lambda: make("conv-deconv").up(1, random(1, 4, 4, 4), None), r"z: expected shape \(\*, \*, \*, 8\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["unshared_o2o", thorough("holistic"), thorough("max-a2u"), thorough("max-carafe")])
def test_a_decoder_of_fewer_channels(method):
    """Index maps are averaged over consecutive channels; layers of upsampling have the decoder's."""
    stages = Resampling(method=method, features=(4, 8), decoder_features=(4, 4), rngs=nnx.Rngs(0))
    x, z = jnp.asarray(random(1, 4, 6, 8)), jnp.asarray(random(1, 2, 3, 4))
    y, memory = stages.down(1, x)
    up = stages.up(1, z, memory)
    assert (y.shape, up.shape, stages.up_features(1)) == ((1, 2, 3, 8), (1, 4, 6, 4), 4)
    if method == "unshared_o2o":
        index = (memory.decoder[..., ::2] + memory.decoder[..., 1::2]) / 2
        assert_close(up, ops.indexed_upsample(z, index), 1e-6)


def test_errors_of_a_decoder():
    for fewer in ((4,), (4, 3)):
        with pytest.raises(ValueError, match=r"decoder_features: expected divisors of \(4, 8\)"):
            make("holistic", decoder_features=fewer)
