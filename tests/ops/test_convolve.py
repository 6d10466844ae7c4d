import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup.ops.convolve import convolve, convolve_layer
from tests.compare import assert_close
from tests.ops.convolutions import LAYOUT, assert_equals_lax, random

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize(
    "padding, size",
    [
        ("VALID", (3, 2)),
        ("SAME", (2, 5)),
        ([(2, 0), (0, 3)], (3, 3)),
        ([(4, 2), (0, 5)], (3, 2)),
        ([(0, 3), (3, 0)], (2, 2)),
        ("VALID", (1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("features", [2, 5, 64])
def test_equals_lax(monkeypatch, padding, size, features):
    """Values, both gradients, and the change along a direction, with a last block of rows that is not full."""
    monkeypatch.setattr("jaxup.ops.patches._BLOCK", 2 * 2 * 9)
    x, kernel = random(2, 8, 6, 3), random(*size, 3, features)

    assert_equals_lax(x, kernel, padding, 1e-5)


def test_gradients_of_zeros_out_of_reach():
    """They are a convolution with less than no padding, for which XLA's own reads what is not there."""
    x, kernel = random(1, 9, 8, 12), random(1, 2, 12, 12)

    def gradients(run):
        return jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(run(*a))), (0, 1)))(x, kernel)

    ours = gradients(lambda x, kernel: convolve(x, kernel, (1, 1), ((0, 0), (3, 0))))
    assert_close(
        ours,
        gradients(lambda x, kernel: convolve(jnp.pad(x, ((0, 0), (0, 0), (3, 0), (0, 0))), kernel, (1, 1), "VALID")),
        1e-5,
    )


@pytest.mark.parametrize("size, padding", [((3, 2), "SAME"), ((1, 3), ((0, 0), (3, 0)))], ids=str)
def test_bfloat16_is_multiplied_by_products_and_rounded_once(size, padding, monkeypatch):
    """Values and both gradients, also of zeros out of reach; of whole numbers, whose sums float32 holds."""
    monkeypatch.setattr("jaxup.ops.convolve._PIXELS", 1)
    monkeypatch.setattr("jaxup.ops.convolve._CHANNELS", 6)
    arrays = [jnp.round(9 * random(*shape)).astype(jnp.bfloat16) for shape in ((2, 5, 4, 12), (*size, 12, 13))]

    def run(x, kernel):
        y, back = jax.vjp(lambda *a: convolve(*a, (1, 1), padding), x, kernel)
        return y, *back(y)

    assert "conv_general_dilated" not in str(jax.make_jaxpr(lambda *a: convolve(*a, (1, 1), padding))(*arrays))
    y, *gradients = jax.jit(run)(*arrays)
    wide = [x.astype(jnp.float32) for x in arrays]
    expected, back = jax.vjp(lambda *a: convolve(*a, (1, 1), padding, precision="highest"), *wide)
    for actual, exact in zip((y, *gradients), (expected, *back(y.astype(jnp.float32))), strict=True):
        rounded = exact.astype(jnp.bfloat16)
        assert jnp.abs(exact).max() < 2**24 and (rounded.astype(jnp.float32) != exact).any()
        np.testing.assert_array_equal(actual, rounded)


def test_strides_dilations_and_groups_are_those_of_lax():
    x, kernel = random(1, 7, 8, 4), random(3, 3, 2, 6)
    options = LAYOUT | dict(rhs_dilation=(1, 2), feature_group_count=2)
    actual, expected = (f(x, kernel, (2, 1), "SAME", **options) for f in (convolve, jax.lax.conv_general_dilated))
    np.testing.assert_array_equal(actual, expected)


def test_patches_of_the_gradient_are_formed_by_and_by():
    """Of all pixels at once they would be nine times the input."""
    x, kernel, ct = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 128, 64, 32), (3, 3, 32, 5), (1, 128, 64, 5)))
    run = jax.jit(lambda ct, x, kernel: jax.vjp(lambda k: convolve(x, k, (1, 1), "SAME"), kernel)[1](ct))
    used = run.lower(ct, x, kernel).compile().memory_analysis().temp_size_in_bytes
    assert used <= 3.5 * 4 * 128 * 64 * 32


def test_gradients_of_16_bits_are_summed_in_float32(monkeypatch):
    """Each of 512 blocks adds 8 to a sum that bfloat16 would not let pass 2048."""
    monkeypatch.setattr("jaxup.ops.patches._BLOCK", 1)
    x, kernel = jnp.ones((1, 512, 10, 1), jnp.bfloat16), jnp.ones((1, 3, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda k: jnp.sum(convolve(x, k, (1, 1), "VALID").astype(jnp.float32)))(kernel)
    assert gradient.dtype == jnp.bfloat16 and (gradient == 4096).all()


def test_precision_is_handed_on():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))

    def run(x, kernel):
        pull = jax.vjp(lambda k: convolve(x, k, (1, 1), "SAME", precision="highest"), kernel)[1]
        return pull(jnp.ones((1, 4, 4, 1)))

    with jax.default_matmul_precision("default"):
        program = str(jax.make_jaxpr(run)(x, kernel))
    products = [line for line in program.splitlines() if "conv_general_dilated[" in line or "dot_general[" in line]
    assert products and program.count("HIGHEST") >= 2 * len(products)


@pytest.mark.parametrize(
    "pixels, size, channels, features, patches",
    [
        (4, 5, 1, 16, True),
        (64, 3, 15, 17, False),
        (64, 3, 32, 17, True),
        (60, 3, 32, 32, False),
        (64, 5, 31, 64, False),
        (64, 5, 32, 64, True),
    ],
)
def test_layers_form_patches_where_they_are_faster(pixels, size, channels, features, patches, monkeypatch):
    monkeypatch.setattr("jaxup.ops.convolve._MANY", 64)
    x, kernel = random(pixels // 4, 2, 2, channels), random(size, size, channels, features)
    ct = random(pixels // 4, 2, 2, features)

    def gradients(run):
        return lambda x, kernel, ct: jax.vjp(lambda *inputs: run(*inputs, (1, 1), "SAME", **LAYOUT), x, kernel)[1](ct)

    assert ("scan" in str(jax.make_jaxpr(gradients(convolve_layer))(x, kernel, ct))) == patches
    ours, theirs = jax.jit(lambda *a: [gradients(f)(*a) for f in (convolve_layer, jax.lax.conv_general_dilated)])(
        x, kernel, ct
    )
    assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_no_sum_over_devices_is_in_a_loop(monkeypatch, devices):
    """On several CPU devices a program with one may hang; on one device the gradient is a loop over blocks of rows."""
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr("jaxup.ops.patches._BLOCK", 8)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    x, kernel = jax.ShapeDtypeStruct((4, 8, 6, 2), jnp.float32), jax.ShapeDtypeStruct((3, 3, 2, 2), jnp.float32)
    gradient = jax.grad(lambda kernel, x: jnp.sum(convolve(x, kernel, (1, 1), "SAME") ** 2))
    text = jax.jit(gradient, in_shardings=(whole, split), out_shardings=whole).lower(kernel, x).compile().as_text()
    summed = [computation for computation in text.split("\n\n") if " all-reduce(" in computation]
    assert all("ENTRY" in computation for computation in summed) == (devices > 1)
    assert summed and ((" while(" in text) == (devices == 1))
