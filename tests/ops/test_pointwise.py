import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.ops import pointwise
from jaxup.ops.pointwise import pointwise_conv, pointwise_dot
from jaxup.ops.regions import convolve_groups
from tests.compare import assert_close

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize("convolve", [pointwise_conv, convolve_groups])
@pytest.mark.parametrize("strides, padding", [((1, 1), "SAME"), ((2, 3), "VALID"), ((2, 1), ((0, 1), (2, 0)))])
def test_pointwise_convolution(convolve, strides, padding):
    """XLA's convolution, and its gradients."""
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in ((2, 7, 8, 3), (1, 1, 3, 5)))
    options = dict(feature_group_count=1, rhs_dilation=(1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def both(function):
        y, pullback = jax.vjp(lambda x, k: function(x, k, strides, padding, **options), x, kernel)
        return y, pullback(jnp.cos(jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)))

    assert_close(*jax.jit(lambda: (both(convolve), both(jax.lax.conv_general_dilated)))(), 2e-6)


@pytest.fixture
def for_few_channels(monkeypatch):
    """What is chosen for many."""
    monkeypatch.setattr(pointwise, "_SOME", 1)
    monkeypatch.setattr(pointwise, "_MANY", 1)


@pytest.mark.usefixtures("for_few_channels")
@pytest.mark.parametrize("outputs", [1, 7])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (2, 2, 3, 3), (2, 5, 300, 3)])
def test_linear_layer(shape, outputs):
    """JAX's product with any leading axes, its gradients, and their change along a direction.

    That of the kernel by blocks, if there are many pixels, and by what is left over.
    """
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in (shape, (3, outputs)))

    def both(product):
        axes = ((len(shape) - 1,), (0,)), ((), ())
        loss = lambda x, kernel: jnp.sum(jnp.sin(product(x, kernel, axes)))  # noqa: E731
        return product(x, kernel, axes), jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

    assert_close(*jax.jit(lambda: (both(pointwise_dot), both(jax.lax.dot_general)))(), 4e-6)


@pytest.mark.parametrize(
    "inputs, outputs, pixels, by_blocks",
    [
        (256, 512, 1024, True),
        (256, 514, 1024, False),
        (255, 510, 1024, False),
        (64, 16, 1024, True),
        (64, 17, 1024, False),
        (63, 4, 1024, False),
        (256, 4, 1023, False),
    ],
)
def test_blocks_where_outputs_are_few_or_inputs_many(inputs, outputs, pixels, by_blocks):
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, pixels, 1, inputs), (1, 1, inputs, outputs))]
    gradient = jax.grad(lambda kernel, x: jnp.sum(pointwise_conv(x, kernel, (1, 1), "VALID")))
    assert ("scan" in str(jax.make_jaxpr(gradient)(*reversed(shapes)))) == by_blocks


def test_sums_are_in_float32():
    x, kernel = jnp.ones((1, 1, 1, 512), jnp.bfloat16), jnp.full((1, 1, 512, 1), 1 + 2**-7, jnp.bfloat16)
    y = pointwise_conv(x, kernel, (1, 1), "VALID")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y, 512 * (1 + 2**-7), rtol=2**-8)


@pytest.mark.usefixtures("for_few_channels")
@pytest.mark.parametrize("rows, outputs", [(8, 512), (32, 6), (32, 1)])
def test_gradients_of_16_bits(rows, outputs):
    """Sums of many pixels, at once and by blocks, and of 512 outputs: bfloat16 alone would not count beyond 256."""
    x, kernel = jnp.ones((1, rows, 64, 3), jnp.bfloat16), jnp.ones((1, 1, 3, outputs), jnp.bfloat16)
    run = jax.grad(lambda x, k: jnp.sum(pointwise_conv(x, k, (1, 1), "VALID").astype(jnp.float32)), (0, 1))
    for gradient, total in zip(run(x, kernel), (outputs, 64 * rows), strict=True):
        assert gradient.dtype == jnp.bfloat16 and (gradient == total).all()


@pytest.mark.thorough
def test_linear_module():
    x = jnp.linspace(-1, 1, 2 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 3)
    for options in (dict(dtype=jnp.bfloat16, precision="highest"), dict(preferred_element_type=jnp.float32)):
        ours, theirs = (
            nnx.Linear(3, 4, **options, **more, rngs=nnx.Rngs(0)) for more in ({"dot_general": pointwise_dot}, {})
        )
        assert ours(x).dtype == theirs(x).dtype
        assert_close(ours(x), theirs(x), 1e-2)


@pytest.mark.thorough
def test_module():
    """In the place of the convolution of a Flax module, with its type, precision and bias."""
    options = dict(strides=2, padding="SAME", dtype=jnp.bfloat16, precision="highest")
    ours, theirs = (
        nnx.Conv(3, 5, (1, 1), **options, **more, rngs=nnx.Rngs(0))
        for more in ({"conv_general_dilated": pointwise_conv}, {})
    )
    x = jnp.linspace(-1, 1, 2 * 5 * 4 * 3, dtype=jnp.float32).reshape(2, 5, 4, 3)
    assert_close(ours(x), theirs(x), 1e-2)
