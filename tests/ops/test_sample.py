import importlib
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxup import ops
from tests.compare import assert_close, assert_finite
from tests.oracles.sample import sample as oracle

each_method = pytest.mark.parametrize("method", ["bilinear", "nearest"])
each_padding = pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
each_alignment = pytest.mark.parametrize("align_corners", [False, True], ids=["edges", "corners"])


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scattered(grid, image, groups=1, batch=2, seed=1):
    """Points on both sides of every border, some several images away."""
    low, high = np.full(2, -2.5) - image, 2.0 * np.array(image) + 2.5
    return np.random.default_rng(seed).uniform(low, high, (batch, *grid, groups, 2)).astype(np.float32)


SIZES = [((3, 4), (6, 5), 2), ((1, 1), (4, 4), 1), ((5, 1), (2, 7), 6), ((4, 3), (1, 1), 3)]  # image, grid, groups


@each_method
@each_padding
@each_alignment
def test_equals_the_loops(method, padding, align_corners):
    options = dict(method=method, padding=padding, align_corners=align_corners)
    pairs = [(random(2, *image, 6), scattered(grid, image, groups)) for image, grid, groups in SIZES]
    outputs = jax.jit(lambda pairs: [ops.sample(*pair, **options) for pair in pairs])(pairs)  # one program
    for pair, out in zip(pairs, outputs, strict=True):
        assert_close(out, oracle(*pair, **options), 2e-6)


@each_method
@each_padding
@each_alignment
@pytest.mark.torch
def test_equals_torch(method, padding, align_corners):
    """Values and both gradients of `grid_sample`, whose grid holds (x, y) in -1 .. 1."""
    torch = pytest.importorskip("torch")
    x, points = random(2, 4, 5, 3), scattered((6, 7), (4, 5))[:, :, :, 0]
    size, shift = (np.array([4, 5]) - align_corners, 1 - align_corners)
    grid = ((2 * points.astype(np.float64) + shift) / size - 1)[..., ::-1].copy()
    cotangent = random(2, 6, 7, 3, seed=2)

    @jax.jit
    def run(*inputs):
        sample = partial(ops.sample, method=method, padding=padding, align_corners=align_corners)
        ours, pullback = jax.vjp(sample, *inputs)
        return ours, *pullback(cotangent)

    ours, d_x, d_points = run(x, points)
    image, grid = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x.transpose(0, 3, 1, 2), grid))
    theirs = torch.nn.functional.grid_sample(image, grid, method, padding, align_corners).permute(0, 2, 3, 1)
    theirs.backward(torch.tensor(cotangent, dtype=torch.float64))
    assert_close(ours, theirs.detach().numpy(), 1e-5)
    assert_close(d_x, image.grad.permute(0, 2, 3, 1).numpy(), 1e-5)
    assert_close(d_points, grid.grad.numpy()[..., ::-1] * 2 / size, 1e-4)


def test_forms_for_cpus_equal_gathers_and_scatters():
    """One form for CPUs, the other for batches on several devices and for GPUs; here with odd groups of 3 channels."""
    module = importlib.import_module("jaxup.ops.sample")
    generator, shape = np.random.default_rng(0), (2, 3, 7, 2)
    table, ct = random(2, 4, 5, 6), random(2, 3, 7, 6, seed=2)
    corners = [jnp.asarray(generator.integers(0, n - 1, shape, np.int32)) for n in (4, 5)]
    parts = [generator.random(shape, np.float32) for _ in range(2)]

    @jax.jit
    def run(table, *parts):
        gathers = lambda table, *parts: module._by_gathers(table, *corners, *parts, linear=True)  # noqa: E731
        out, pullback = jax.vjp(gathers, table, *parts)
        read, pull = module._behind_a_branch, module._pull_by_points
        return (out, pullback(ct)), (read(table, *corners, *parts), pull(ct, table, *corners, *parts))

    by_gathers, for_cpus = run(table, *parts)
    assert_close(for_cpus, by_gathers, 1e-6)


def test_loops_are_for_cpus_only():
    """A batch on several devices would be gathered by a loop, and so would GPUs do one point at a time."""
    x, points = random(4, 5, 5, 64), scattered((3, 3), (5, 5), 2, batch=4)
    mesh = jax.make_mesh((4,), ("data",))
    placed = jax.device_put((x, points), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    run = jax.grad(lambda *a: jnp.sum(jnp.sin(ops.sample(*a))))
    assert "platform_index" in str(jax.make_jaxpr(run)(x, points))
    assert "platform_index" not in str(jax.make_jaxpr(run)(*placed))


def test_rows_of_all_images_are_counted_in_32_bits():
    """64 images of 8192 x 8192 pixels have more rows than that: they are read image by image."""
    module = importlib.import_module("jaxup.ops.sample")

    def form(images):
        places = [jax.ShapeDtypeStruct((images, 2, 2, 2), dtype) for dtype in (jnp.int32,) * 2 + (jnp.float32,) * 2]
        inputs = jax.ShapeDtypeStruct((images, 8192, 8192, 4), jnp.float32), *places
        return str(jax.make_jaxpr(lambda *inputs: module._read(inputs, True))(*inputs))

    assert "platform_index" in form(15) and "platform_index" not in form(64)


def test_a_gradient_needs_no_scratch():
    """Less than the output. A scatter would have the products of all points and corners in memory, 4 times that."""
    x, points = ((1, 32, 32, 64), (1, 64, 64, 4, 2))
    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 64, 64, 64), x, points)]
    compiled = jax.jit(lambda ct, *a: jax.vjp(ops.sample, *a)[1](ct)).lower(*inputs).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 4 * 64**3


def test_pixel_centres_return_the_image():
    x = random(1, 4, 5, 3)
    points = np.indices((4, 5), np.float32).transpose(1, 2, 0)[None]
    for method in ("bilinear", "nearest"):
        np.testing.assert_array_equal(ops.sample(x, points, method=method), x)


def test_half_pixel_grid_is_bilinear_resizing():
    x = random(2, 4, 5, 3)
    rows, cols = ((np.arange(3 * n) + 0.5) / 3 - 0.5 for n in (4, 5))
    points = np.stack(np.broadcast_arrays(rows[:, None], cols[None, :]), -1).astype(np.float32)
    sampled = ops.sample(x, np.stack([points, points]), padding="border")
    assert_close(sampled, ops.resize(x, scale=3, method="bilinear"), 1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["border", "reflection"]))
def test_samples_lie_within_the_image(seed, padding):
    x, points = random(1, 3, 4, 2, seed=seed), scattered((5, 6), (3, 4), batch=1, seed=seed)
    out = ops.sample(x, points, padding=padding)
    assert np.all(out >= x.min() - 1e-6) and np.all(out <= x.max() + 1e-6)
    assert_close(ops.sample(np.ones_like(x), points, padding=padding), np.ones_like(out), 1e-6)


def test_clamped_points_have_no_gradient():
    x = random(1, 3, 4, 2)
    points = np.float32([[-0.5, 1.5], [1.5, 9.0], [1.5, 1.5]]).reshape(1, 1, 3, 2)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(ops.sample(x, p, padding="border")))))(points)
    np.testing.assert_array_equal(np.asarray(gradient)[0, 0] != 0, [[False, True], [True, False], [True, True]])


@each_padding
def test_far_and_infinite_points_are_finite(padding):
    x = random(1, 3, 4, 2)
    points = np.float32([[1e30, 0], [-np.inf, np.inf], [0, -1e30]]).reshape(1, 1, 3, 2)
    if padding == "reflection":
        points = np.clip(points, -1e30, 1e30)  # an infinite position has no mirror image
    out, pullback = jax.vjp(lambda *a: ops.sample(*a, padding=padding), x, points)
    assert_finite((out, pullback(jnp.ones_like(out))))
    if padding == "zeros":
        assert not np.any(out)


def test_types_of_image_and_points_may_differ():
    """Positions keep their precision beside a 16-bit image."""
    x, points = random(1, 3, 4, 2), scattered((5, 6), (3, 4), batch=1)
    low = jnp.asarray(x, jnp.bfloat16)
    out = ops.sample(low, points)
    assert out.dtype == jnp.bfloat16
    assert_close(out.astype(jnp.float32), oracle(low.astype(jnp.float32), points), 4e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=random(3, 4, 2)), "x: expected 4 axes"),
        (dict(x=random(2, 0, 4, 2)), "x: expected at least one pixel"),
        (dict(x=np.zeros((2, 3, 4, 2), np.int32)), "x: expected a floating-point type"),
        (dict(points=np.zeros((2, 3, 4, 2), np.int32)), "points: expected a floating-point type"),
        (dict(points=random(2, 4, 2)), "points: expected 4 or 5 axes"),
        (dict(points=random(1, 5, 6, 2)), r"points: expected shape \(2, \*, \*, 2\), got shape \(1, 5, 6, 2\)"),
        (dict(points=random(2, 5, 6, 3)), r"points: expected shape \(2, \*, \*, 2\)"),
        (dict(points=random(2, 5, 6, 3, 2)), "points: expected a divisor of the channels of x = 2, got 3"),
        (dict(points=random(2, 5, 6, 0, 2)), "points: expected at least one group"),
        (dict(method="bicubic"), "method: expected one of 'bilinear', 'nearest', got 'bicubic'"),
        (dict(padding="wrap"), "padding: expected one of"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(2, 3, 4, 2), points=random(2, 5, 6, 2))
    with pytest.raises(ValueError, match=message):
        ops.sample(**(good | change))
