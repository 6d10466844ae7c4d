"""Images whose rows are split over devices: values and gradients of one device, and nothing is gathered."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup import ops
from tests.compare import assert_close
from tests.registry import EXAMPLES
from tests.registry.examples import marked
from tests.test_matrix import GRADIENTS, ROUNDING, with_gradients

DEVICES = 4
SPLIT = PartitionSpec(None, "rows")
GRID = (16, 3)
# What is read for one row may be anywhere in the image.
ANYWHERE = ("resize_bilinear_align_corners", "window_attend", "max_unpool", "sample", "sample_nearest")
ANYWHERE += ("neighbourhood_attend", "roi_align", "multilevel_roi_align", "anisotropic_bilateral_upsample")
NO_IMAGES = ("box_coding", "paste_masks")
UNEQUAL = ("resize_bicubic_antialias", "resize_area")  # their sizes have no divisor that the devices can share
# Of each kind one or two; the others by night.
OFTEN = ("attention_upsample", "reassemble", "downsample_reassemble", "bilateral_filter", "deformable_average")
OFTEN += ("gaussian_filter", "joint_bilateral_upsample_any_ratio", "resize_bilinear", "pac_conv_transpose")
OVER_AUTO = ("attention_upsample", "reassemble", "resize_bilinear")

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices: run on the CPU, or where there are as many"
)


def mesh_of(kind):
    return jax.make_mesh((DEVICES,), ("rows",), axis_types=(kind,), devices=jax.devices()[:DEVICES])


def placed(example, mesh, inputs):
    """The inputs of an example on the mesh: images with rows that can be split, and the others."""
    count = len(example.inputs.images(1, 1))
    specs = [SPLIT if i < count and x.shape[1] % DEVICES == 0 else PartitionSpec() for i, x in enumerate(inputs)]
    return [jax.device_put(np.asarray(x), NamedSharding(mesh, s)) for x, s in zip(inputs, specs, strict=True)]


def assert_only_neighbours(compiled):
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text


def named(names):
    return [example for example in EXAMPLES if example.name in names]


def shared(example):
    return example.name not in (*ANYWHERE, *UNEQUAL, *NO_IMAGES)


SHARED = [example for example in EXAMPLES if shared(example)]
by_name = partial(pytest.mark.parametrize, "example", ids=lambda example: example.name)


@by_name(marked(SHARED, named(("resize_bilinear",)), [e for e in SHARED if e.name not in OFTEN]))
def test_operators_over_explicit_axes(example):
    """Compiled with all gradients: JAX knows how arguments are split, and so do the operators."""
    inputs = example.inputs(2, GRID)
    expected = jax.jit(with_gradients(example))(*inputs)
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        arguments = placed(example, mesh, inputs)
        run = jax.jit(with_gradients(example)).lower(*arguments).compile()
        actual = run(*arguments)
    assert_only_neighbours(run)
    assert_close(actual[0], expected[0], ROUNDING)
    assert_close(actual[1], expected[1], GRADIENTS)
    for y in jax.tree.leaves(actual[0]):
        assert y.sharding.is_equivalent_to(NamedSharding(mesh, SPLIT), y.ndim)


@by_name(SHARED)
@pytest.mark.first(10, 18)
def test_operators_outside_of_compiled_functions(example):
    """Traced only: what an array is split by is known there over Auto axes, too."""
    mesh = mesh_of(AxisType.Auto)
    arguments = placed(example, mesh, example.inputs(1, GRID))
    traced = str(jax.make_jaxpr(lambda: example.fn(*arguments))())
    assert "shard_map" in traced and "all_gather" not in traced


@by_name(marked(SHARED, (), [e for e in SHARED if e.name not in OVER_AUTO]))
def test_over_rows_over_auto_axes(example):
    """In a compiled function over Auto axes, where nobody but the caller knows."""
    inputs, count = example.inputs(2, GRID), len(example.inputs.images(1, 1))
    expected = jax.jit(with_gradients(example))(*inputs)
    mesh = mesh_of(AxisType.Auto)

    def over_rows(*arrays):
        tables = arrays[count:]
        return ops.over_rows(*arrays[:count], function=lambda *images: example.fn(*images, *tables), reach=6, mesh=mesh)

    split = type(example)(example.name, over_rows, example.inputs, example.scratch, example.differentiable)
    arguments = placed(example, mesh, inputs)
    run = jax.jit(with_gradients(split)).lower(*arguments).compile()
    assert_only_neighbours(run)
    actual = run(*arguments)
    assert_close(actual[0], expected[0], ROUNDING)
    assert_close(actual[1], expected[1], GRADIENTS)


@by_name(named(ANYWHERE))
def test_what_cannot_be_split_is_refused(example):
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="expected rows on one device"):
        jax.eval_shape(example.fn, *placed(example, mesh, example.inputs(1, GRID)))


@by_name(named(UNEQUAL))
def test_heights_that_devices_cannot_share_are_refused(example):
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="rows: expected heights with a common divisor"):
        jax.eval_shape(example.fn, *placed(example, mesh, example.inputs(1, GRID)))


def blurred(x):
    """A row with five above and five below, and what is beyond the border is not as an operator would have it."""
    padded = jnp.pad(x, ((0, 0), (5, 5), (0, 0), (0, 0)), constant_values=7)
    return sum((k + 1) * padded[:, k : k + x.shape[1]] for k in range(11))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_margins_higher_than_the_rows_of_a_device(kind):
    """Four rows each: ten are needed on each side, which are those of three neighbours."""
    x, mesh = np.random.default_rng(0).normal(size=(2, 16, 2, 1)).astype(np.float32), mesh_of(kind)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, SPLIT))
        run = jax.jit(lambda x: ops.over_rows(x, function=blurred, reach=5, axis="rows")).lower(split).compile()
    assert_only_neighbours(run)
    np.testing.assert_allclose(run(split), blurred(jnp.asarray(x)), rtol=1e-6)


def test_batch_and_rows_may_both_be_split():
    mesh = jax.make_mesh((2, 2), ("data", "rows"), axis_types=(AxisType.Explicit,) * 2, devices=jax.devices()[:4])
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 1)).astype(np.float32)
    with jax.set_mesh(mesh):
        spec = PartitionSpec("data", "rows")
        y = jax.jit(partial(ops.resize, scale=2))(jax.device_put(x, NamedSharding(mesh, spec)))
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, spec), y.ndim)
    np.testing.assert_allclose(y, ops.resize(jnp.asarray(x), scale=2), rtol=1e-6)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_max_pooling_keeps_rows_split(kind):
    """Positions count from the first row of the image, not of a device's strip."""
    x, mesh = np.random.default_rng(0).integers(0, 9, (2, 16, 6, 2)).astype(np.float32), mesh_of(kind)
    pool = partial(ops.max_pool, scale=2)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, SPLIT))
        run = jax.jit(pool).lower(split).compile()
        found = run(split)
    assert_only_neighbours(run)
    for actual, expected in zip(found, pool(jnp.asarray(x)), strict=True):
        np.testing.assert_array_equal(actual, expected)
        assert actual.sharding.is_equivalent_to(NamedSharding(mesh, SPLIT), actual.ndim)


@pytest.mark.parametrize(
    ("function", "spec", "message"),
    [
        (partial(ops.box_filter, radius=7), SPLIT, "rows: expected more than the 4 x 4 of the devices"),
        (partial(ops.pixel_unshuffle, scale=8), SPLIT, "rows: expected heights with a common divisor"),
        (partial(ops.max_index, scale=8), SPLIT, "rows: expected heights with a common divisor"),
        (partial(ops.resize, size=(15, 4)), SPLIT, r"rows: expected heights .* got \[16\] to \[15\]"),
        (partial(ops.resize, scale=2), PartitionSpec(None, "rows", "columns"), "sharding: expected batch and rows"),
        (lambda x: ops.guided_filter(x, x, radius=1, eps=1.0, subsample=2), SPLIT, "expected rows on one device"),
    ],
)
def test_refusals_are_clear(function, spec, message):
    mesh = jax.make_mesh((4, 1), ("rows", "columns"), axis_types=(AxisType.Explicit,) * 2, devices=jax.devices()[:4])
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=message):
        jax.eval_shape(function, jax.device_put(np.ones((1, 16, 8, 1), np.float32), NamedSharding(mesh, spec)))


def test_over_rows_needs_an_axis():
    with pytest.raises(ValueError, match="axis: expected one of the mesh"):
        ops.over_rows(jnp.ones((1, 16, 2, 1)), function=blurred, reach=5)
    with pytest.raises(ValueError, match="reach: expected"):
        ops.over_rows(jnp.ones((1, 16, 2, 1)), function=blurred, reach=-1, mesh=mesh_of(AxisType.Auto))
