import jax
import jax.numpy as jnp
import numpy as np

from jaxup.ops.convolve import convolve
from tests.compare import assert_close

LAYOUT = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def assert_equals_lax(x, kernel, padding, relative):
    """Values, both gradients, and the change along a direction."""

    def run(convolution):
        def values(*inputs):
            return convolution(*inputs, (1, 1), padding, **LAYOUT)

        def loss(*inputs):
            return jnp.sum(jnp.sin(values(*inputs)))

        changed = jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (jnp.cos(x), jnp.cos(kernel)))
        return values(x, kernel), changed

    assert_close(jax.jit(lambda: run(convolve))(), jax.jit(lambda: run(jax.lax.conv_general_dilated))(), relative)
