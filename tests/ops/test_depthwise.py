import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup.ops import depthwise
from jaxup.ops.depthwise import depthwise_conv
from tests.compare import assert_close

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize("size, stride, dilation, padding", [
    *((3, s, d, ((d, d), (d, d))) for s, d in itertools.product((1, 2), (1, 2))),
    (5, 2, 1, "SAME"),
    (3, 2, 1, "VALID"),
    (1, 3, 1, ((0, 0), (0, 0))),
])  # fmt: skip
def test_depthwise_convolution(size, stride, dilation, padding):
    """XLA's grouped convolution, and its gradients; last rows and columns that no window reaches among them."""
    random = np.random.default_rng(0)
    x, kernel = random.standard_normal((2, 8, 11, 4)), random.standard_normal((size, size, 1, 4))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    options = dict(padding=padding, rhs_dilation=(dilation, dilation))
    grouped = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4)

    def both(convolve, more):
        run = lambda x, k: convolve(x, k, (stride, stride), **options, **more)  # noqa: E731
        y, pullback = jax.vjp(run, x, kernel)
        return y, pullback(jnp.cos(jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)))

    ours, theirs = jax.jit(lambda: (both(depthwise_conv, {}), both(jax.lax.conv_general_dilated, grouped)))()
    assert_close(ours, theirs, 2e-6)


@pytest.mark.parametrize("size, stride, dilation", [(3, 1, 2), (2, 2, 1)])
def test_gradient_of_the_kernel_by_rows(size, stride, dilation, monkeypatch):
    """XLA's, where there are many pixels, and its change along a direction."""
    monkeypatch.setattr(depthwise, "_MANY", 1)
    random = np.random.default_rng(0)
    x, kernel = random.standard_normal((2, 7, 9, 4)), random.standard_normal((size, size, 1, 4))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)

    def both(convolve, **more):
        options = dict(padding="SAME", rhs_dilation=(dilation, dilation), **more)
        loss = lambda x, k: jnp.sum(jnp.sin(convolve(x, k, (stride, stride), **options)))  # noqa: E731
        return jax.jvp(jax.grad(loss, 1), (x, kernel), (jnp.cos(x), jnp.cos(kernel)))

    grouped = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4)
    assert_close(*jax.jit(lambda: (both(depthwise_conv), both(jax.lax.conv_general_dilated, **grouped)))(), 4e-6)


def test_sums_are_in_float32():
    x = jnp.full((1, 1, 9, 1), 1.0, jnp.bfloat16)
    kernel = jnp.full((1, 9, 1, 1), 1 + 2**-7, jnp.float32)
    y = depthwise_conv(x, kernel, (1, 1), "VALID", rhs_dilation=(1, 1))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y, 9 * (1 + 2**-7), rtol=2**-8)
