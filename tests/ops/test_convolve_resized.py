import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup.ops.convolve_resized import convolve_resized
from jaxup.ops.resize import resize
from tests.compare import assert_close
from tests.ops.convolutions import LAYOUT, random

pytestmark = pytest.mark.usefixtures("one_device")


def one_after_the_other(x, kernel, size, **how):
    return jax.lax.conv_general_dilated(resize(x, size=size, **how), kernel, (1, 1), "SAME", **LAYOUT)


def with_gradients(run):
    """Values, gradients and the change along a direction."""

    def of(x, kernel):
        y, back = jax.vjp(run, x, kernel)
        return y, back(jnp.sin(y)), jax.jvp(run, (x, kernel), (jnp.cos(x), jnp.cos(kernel)))[1]

    return jax.jit(of)


@pytest.mark.parametrize(
    "low, kernel, size, how",
    [
        ((2, 3), 5, (8, 12), {}),
        ((3, 2), 3, (7, 9), dict(align_corners=True)),
        ((1, 1), 3, (2, 5), {}),
        ((3, 4), 3, (9, 8), dict(method="bicubic")),
        ((3, 4), 5, (9, 8), dict(method="nearest")),
        ((3, 4), 1, (6, 8), {}),
        ((6, 8), 1, (3, 4), {}),
        ((6, 8), 3, (6, 8), {}),
        ((6, 8), 3, (4, 6), dict(align_corners=True)),
    ],
    ids=str,
)
def test_equals_a_convolution_of_the_resized_map(low, kernel, size, how):
    x, weights = random(2, *low, 24), random(kernel, kernel, 24, 3)
    ours = with_gradients(lambda *a: convolve_resized(*a, size, **how))(x, weights)
    assert_close(ours, with_gradients(lambda *a: one_after_the_other(*a, size, **how))(x, weights), 1e-5)


@pytest.mark.parametrize(
    "shape, kernel, size, less",
    [
        ((1, 8, 8, 2048), (5, 5, 2048, 32), (128, 128), True),
        ((1, 32, 32, 512), (3, 3, 512, 512), (64, 64), True),
        ((1, 64, 64, 128), (3, 3, 128, 128), (128, 128), False),
        ((1, 512, 512, 64), (3, 3, 64, 64), (1024, 1024), False),
    ],
    ids=str,
)
def test_the_resized_map_is_not_made_where_that_is_less(shape, kernel, size, less):
    """Nor is anything of its size, forward or with gradients, where it is many times that of the map."""
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, kernel)]
    program = str(jax.make_jaxpr(lambda *a: convolve_resized(*a, size))(*arrays))
    assert ("conv_general_dilated" not in program) == less
    if less and size[0] > 64:
        compiled = with_gradients(lambda *a: convolve_resized(*a, size)).lower(*arrays).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 4 * np.prod(size) * shape[3] / 4


def test_bfloat16_is_rounded_once():
    x, kernel = (y.astype(jnp.bfloat16) for y in (random(1, 2, 3, 24), random(3, 3, 24, 3)))
    ours = convolve_resized(x, kernel, (6, 9))
    exact = one_after_the_other(x.astype(jnp.float32), kernel.astype(jnp.float32), (6, 9))
    assert ours.dtype == jnp.bfloat16
    assert_close(ours, exact.astype(jnp.bfloat16), 2**-8)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_batch_over_devices(kind):
    x, kernel = random(2, 2, 3, 24), random(3, 3, 24, 3)

    def run(x, kernel):
        return with_gradients(lambda *a: convolve_resized(*a, (6, 9)))(x, kernel)

    expected = run(x, kernel)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        put = (
            jax.device_put(y, NamedSharding(mesh, spec))
            for y, spec in ((x, PartitionSpec("d")), (kernel, PartitionSpec()))
        )
        assert_close(run(*put), expected, 1e-5)
