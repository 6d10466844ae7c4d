import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup.ops import convolve as module
from jaxup.ops.convolve import convolve, convolve_layer
from jaxup.ops.winograd import ROWS, transforms
from tests.compare import assert_close
from tests.ops.convolutions import LAYOUT, assert_equals_lax, random

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(autouse=True)
def for_small_layers(monkeypatch):
    monkeypatch.setattr(module, "_PIXELS", 1)
    monkeypatch.setattr(module, "_CHANNELS", 1)


@pytest.mark.parametrize("rows", ROWS)
def test_transforms_are_those_of_the_sum(rows):
    """In float64, y_k = sum_j w_j x_(k+j)."""
    outputs, kernel, pixels = transforms(rows)
    expected = np.array([[[p == k + j for p in range(6)] for j in range(rows)] for k in range(7 - rows)])
    np.testing.assert_allclose(np.einsum("nk,nj,np->kjp", outputs, kernel, pixels), expected, atol=1e-14)


@pytest.mark.parametrize(
    "padding, size",
    [
        ("VALID", (3, 2)),
        ("SAME", (3, 3)),
        ("SAME", (5, 5)),
        ([(2, 0), (0, 3)], (5, 3)),
        ([(4, 2), (0, 5)], (3, 2)),
        ([(6, 1), (3, 0)], (5, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels, features, block", [(3, 5, 8), (5, 3, 30), (4, 12, 1024)])
def test_equals_lax(monkeypatch, padding, size, channels, features, block):
    """Values, both gradients, and the change along a direction, with last blocks that are not full."""
    monkeypatch.setattr("jaxup.ops.patches._BLOCK", block)
    x, kernel = random(2, 13, 6, channels), random(*size, channels, features)

    assert_equals_lax(x, kernel, padding, 2e-5)


@pytest.mark.parametrize("size", ROWS)
def test_rounding_is_a_few_times_that_of_plain_sums(size):
    x, kernel = np.maximum(random(1, 24, 24, 64), 0), random(size, size, 64, 64)

    def values(run, *inputs):
        return np.asarray(jax.jit(lambda *a: run(*a, (1, 1), "SAME", **LAYOUT))(*inputs))

    with jax.enable_x64(True):
        exact = values(jax.lax.conv_general_dilated, x.astype(np.float64), kernel.astype(np.float64))
    ours, plain = (
        np.sqrt(np.mean((values(run, x, kernel) - exact) ** 2)) for run in (convolve, jax.lax.conv_general_dilated)
    )
    assert ours < 4 * plain


@pytest.mark.parametrize(
    "change, convolutions",
    [({}, 6), ({"dtype": jnp.float16}, 1), ({"rows": 4}, 1), ({"precision": "highest"}, 1)],
    ids=str,
)
def test_where_it_is_used(change, convolutions):
    x, kernel = (
        jnp.ones(s, change.get("dtype", jnp.float32)) for s in ((1, 6, 6, 2), (change.get("rows", 3), 3, 2, 17))
    )
    program = str(
        jax.make_jaxpr(lambda *a: convolve_layer(*a, (1, 1), "SAME", precision=change.get("precision"), **LAYOUT))(
            x, kernel
        )
    )
    assert program.count("conv_general_dilated[") == convolutions


def test_the_highest_precision_is_that_of_plain_sums():
    x, kernel = random(1, 9, 9, 8), random(3, 3, 8, 8)
    with jax.default_matmul_precision("highest"):
        ours, plain = (
            jax.jit(lambda *a, run=run: run(*a, (1, 1), "SAME", **LAYOUT))(x, kernel)
            for run in (convolve, jax.lax.conv_general_dilated)
        )
    np.testing.assert_array_equal(ours, plain)


def test_few_channels_or_pixels_are_summed_plainly(monkeypatch):
    monkeypatch.setattr(module, "_PIXELS", 36)
    monkeypatch.setattr(module, "_CHANNELS", 2)

    def count(x, kernel):
        run = jax.make_jaxpr(lambda *a: convolve(*a, (1, 1), "SAME"))
        return str(run(jnp.ones(x), jnp.ones(kernel))).count("conv_general_dilated[")

    assert count((1, 6, 6, 2), (3, 3, 2, 2)) == 6
    assert (
        count((1, 6, 5, 2), (3, 3, 2, 2)) == count((1, 6, 6, 1), (3, 3, 1, 2)) == count((1, 6, 6, 2), (3, 1, 2, 2)) == 1
    )


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [PartitionSpec("data"), PartitionSpec(None, "data")], ids=["images", "rows"])
def test_images_may_be_split_over_devices(kind, spec, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    x, kernel = random(4, 8, 6, 3), random(3, 3, 3, 4)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))

    def run(x, kernel):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel, (1, 1), "SAME"))), (0, 1))(
            x, kernel
        )

    with jax.set_mesh(mesh):
        split = (
            jax.device_put(x, NamedSharding(mesh, spec)),
            jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())),
        )
        several = jax.jit(run)(*split)
    assert_close(jax.tree.map(np.asarray, several), jax.tree.map(np.asarray, jax.jit(run)(x, kernel)), 1e-5)


@pytest.mark.parametrize("sizes, fewer", [("b, 8", True), ("b, h", False)])
def test_sizes_may_be_symbolic(sizes, fewer):
    """A batch; rows of a number that is not known are summed plainly."""
    x, kernel = random(2, 8, 6, 3), random(3, 3, 3, 4)
    shape = (*export.symbolic_shape(sizes), 6, 3)

    def run(x, kernel):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel, (1, 1), "SAME"))), (0, 1))(
            x, kernel
        )

    exported = export.export(jax.jit(run))(jax.ShapeDtypeStruct(shape, jnp.float32), kernel)
    assert (exported.mlir_module().count("stablehlo.convolution") > 6) == fewer
    assert_close(exported.call(x, kernel), jax.jit(run)(x, kernel), 1e-5)
