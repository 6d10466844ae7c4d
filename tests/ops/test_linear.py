"""Forward mode, and forward over reverse, of every operator whose derivative is written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops.depthwise import depthwise_conv
from jaxup.ops.regions import convolve_channels
from tests.modules import random

POINTS = np.stack(np.meshgrid(np.arange(2) + 0.25, np.arange(3) + 0.5, indexing="ij"), -1)[None]

OPERATORS = {
    "reassemble": (
        lambda x, k: ops.reassemble(x, k, scale=2, kernel_size=3, border="reflect"),
        [random(1, 2, 3, 2), random(1, 4, 6, 9)],
    ),
    "sample": (ops.sample, [random(1, 3, 4, 2), POINTS]),
    "resize": (lambda x: ops.resize(x, size=(5, 4), method="bicubic"), [random(1, 3, 4, 2)]),
    "deformable average": (
        ops.deformable_average,
        [random(1, 2, 3, 2), random(1, 2, 3, 4), 0.3 * random(1, 2, 3, 4, 2)],
    ),
    "fine neighbours": (
        lambda x, k: ops.fine_neighbour_attention(x, k, scale=2, kernel_size=3),
        [random(1, 2, 3, 17), random(1, 4, 6, 9)],
    ),
    "fine neighbours of few channels": (
        lambda x, k: ops.fine_neighbour_attention(x, k, scale=2, kernel_size=3),
        [random(1, 2, 3, 2), random(1, 4, 6, 9)],
    ),
    "indexed pooling": (ops.indexed_pool, [random(1, 4, 6, 2), random(1, 4, 6, 2)]),
    "indexed upsampling": (ops.indexed_upsample, [random(1, 2, 3, 2), random(1, 4, 6, 2)]),
    "area": (lambda x: ops.resize(x, size=(2, 3), method="area"), [random(1, 4, 6, 2)]),
    "pac": (
        lambda x, g, k: ops.pac_conv_transpose(x, g, k, scale=2),
        [random(1, 2, 3, 2), random(1, 4, 6, 2), random(3, 3, 1, 1)],
    ),
    "attention": (
        lambda q, k, v: ops.attention_upsample(q, k, v, scale=2, kernel_size=3),
        [random(1, 4, 6, 2), random(1, 2, 3, 2), random(1, 2, 3, 2)],
    ),
    "attention kernels": (
        lambda q, k: ops.attention_kernels(q, k, scale=2, kernel_size=3),
        [random(1, 4, 6, 2), random(1, 2, 3, 2)],
    ),
    "joint bilateral": (
        lambda x, g: ops.joint_bilateral_upsample(x, g, scale=2, radius=1, sigma_spatial=1.0, sigma_range=1.0),
        [random(1, 2, 3, 2), random(1, 4, 6, 2)],
    ),
    "depthwise": (
        lambda x, k: depthwise_conv(x, k, (2, 1), "SAME", rhs_dilation=(1, 2)),
        [random(1, 4, 5, 2), random(3, 3, 1, 2)],
    ),
    "channels by themselves": (
        lambda x, k: convolve_channels(x, k, (2, 2), 1),
        [random(1, 4, 6, 2), random(4, 4, 1, 2)],
    ),
}


@pytest.mark.first(3, len(OPERATORS))
@pytest.mark.parametrize("name", OPERATORS)
def test_forward_mode(name):
    """Changes along a direction, of the output and of a gradient, are those that central differences find."""
    f, inputs = OPERATORS[name]
    with jax.enable_x64(True):
        at = [np.asarray(x, np.float64) for x in inputs]
        along = [np.cos(1.0 + np.arange(x.size)).reshape(x.shape) for x in at]

        def both(*x):
            def loss(*x):
                return jnp.sum(jnp.sin(f(*x)))

            return f(*x), jax.grad(loss, tuple(range(len(x))))(*x)

        @jax.jit
        def moved(step, x, d_x):
            here = [a + step * b for a, b in zip(x, d_x, strict=True)]
            return jax.jvp(both, here, d_x)

        step = 1e-6
        results = jax.device_get([moved(s, at, along) for s in (0.0, -step, step)])
    (_, tangents), (before, _), (after, _) = results
    for tangent, low, high in zip(*map(jax.tree.leaves, (tangents, before, after)), strict=True):
        assert tangent.dtype == np.float64
        assert np.abs(tangent).max() > 1e-3
        np.testing.assert_allclose(tangent, (high - low) / (2 * step), rtol=1e-6, atol=1e-7)


def test_a_derivative_along_one_argument_computes_nothing_of_the_others():
    x, kernels = random(1, 2, 3, 2), random(1, 4, 6, 9)
    text = jax.make_jaxpr(lambda k, d: jax.jvp(lambda k: ops.reassemble(x, k, scale=2, kernel_size=3), (k,), (d,)))(
        kernels, kernels
    )
    assert str(text).count("= linear[") == 1
