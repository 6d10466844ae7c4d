import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxup.ops import pixel_shuffle, pixel_unshuffle, resize, zero_upsample
from tests import goldens
from tests.oracles import resize as oracle

PLAIN = ["nearest", "nearest_exact", "area"]
KERNEL_OPTIONS = [
    {"method": method, "align_corners": align_corners, "antialias": antialias}
    for method in ("bilinear", "bicubic")
    for align_corners in (False, True)
    for antialias in (False, True)
]
OPTIONS = [{"method": method} for method in PLAIN] + KERNEL_OPTIONS
MORE_OPTIONS = [
    {"method": "bicubic", "cubic_coefficient": -0.6},
    {"method": "bicubic", "antialias": True, "cubic_coefficient": -1.0, "border": "mirror"},
    {"method": "bicubic", "border": "mirror"},
    {"method": "bicubic", "border": "drop"},
    {"method": "bilinear", "antialias": True, "border": "mirror"},
    {"method": "bilinear", "antialias": True, "border": "clamp"},
]
# All but PyTorch's align_corners with antialias, which moves the image.
CENTRED_OPTIONS = [o for o in OPTIONS + MORE_OPTIONS if not (o.get("align_corners") and o.get("antialias"))]
# Up and down, whole ratios and others, odd and even, one pixel and one line.
SIZES = [((4, 5), (8, 15)), ((7, 9), (3, 4)), ((1, 41), (36, 1))]

settings.register_profile("resize", deadline=None, derandomize=True, database=None)
properties = settings(settings.get_profile("resize"), max_examples=8)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def name(options):
    return "-".join(str(v if isinstance(v, str | float) else k) for k, v in options.items() if v)


OPTION_NAMES = ("scale", "size", "method", "align_corners", "antialias", "cubic_coefficient", "border")
run = jax.jit(resize, static_argnames=OPTION_NAMES)


def with_gradients(pairs, options):
    """Of each image and cotangent the result and its pullback in double precision, all by one program."""

    def one(x, ct):
        y, pull = jax.vjp(lambda x: resize(x, size=ct.shape[1:3], **options), x)
        return y, pull(ct)[0]

    with jax.enable_x64(True):
        return jax.jit(lambda pairs: [one(*pair) for pair in pairs])(pairs)


each_option = pytest.mark.parametrize("options", OPTIONS, ids=name)


@pytest.mark.parametrize("options", OPTIONS + MORE_OPTIONS, ids=name)
@pytest.mark.first(2)
def test_resize_equals_oracle(options):
    pairs = [(random(2, *shape, 3), random(2, *size, 3)) for shape, size in SIZES]
    for (x, ct), (actual, gradient) in zip(pairs, with_gradients(pairs, options), strict=True):
        expected = oracle.resize(x, ct.shape[1:3], **options)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
        # The map is linear, so its transpose is what makes these two equal for random x and cotangent.
        np.testing.assert_allclose(np.sum(np.asarray(gradient) * x), np.sum(ct * expected), rtol=1e-10)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, (2, 1)], ids=str)
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.first(5)
def test_resize_by_scale(scale, method):
    sy, sx = (scale, scale) if isinstance(scale, int) else scale
    x = random(1, 3, 4, 2).astype(np.float32)
    actual = run(x, scale=scale, method=method)
    np.testing.assert_allclose(actual, oracle.resize(x, (3 * sy, 4 * sx), method), atol=1e-6)


@pytest.mark.parametrize("options", CENTRED_OPTIONS, ids=name)
def test_same_size_is_the_identity(options):
    x = random(1, 5, 4, 2).astype(np.float32)
    np.testing.assert_array_equal(run(x, size=(5, 4), **options), x)


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_bilinear_gradients_by_whole_factors_are_the_transpose(cells):
    """Of each row of the cotangent, a unit vector, the gradient is a row of the matrix; in one program for all."""
    scales = (2, 3, 4, 7, 8, 33)

    def gradient(scale):
        units = jnp.eye(cells * scale)[:, :, None, None]
        return jax.linear_transpose(lambda x: resize(x, scale=(scale, 1)), units[:, :cells])(units)[0]

    for scale, rows in zip(scales, jax.jit(lambda: [gradient(s) for s in scales])(), strict=True):
        matrix = oracle.resize(np.eye(cells)[:, :, None, None], (cells * scale, 1), "bilinear")[:, :, 0, 0].T
        np.testing.assert_allclose(rows[:, :, 0, 0], matrix, atol=1e-6)


def test_not_a_number_in_a_cotangent_stays_at_the_cells_that_its_pixel_reads():
    ct = np.zeros((1, 15, 6, 1), np.float32)
    ct[0, 7, 0] = np.nan  # a centre of its cell, where only that one counts; and at the left border
    pull = jax.jit(lambda ct: jax.vjp(lambda x: resize(x, size=(15, 6)), jnp.zeros((1, 5, 3, 1)))[1](ct)[0])
    np.testing.assert_array_equal(np.argwhere(np.isnan(pull(ct)[0, :, :, 0])), [[2, 0]])


def test_derivatives_of_second_order():
    with jax.enable_x64(True):
        x = jnp.asarray(random(1, 3, 2, 1))
        check_grads(lambda x: jnp.sin(resize(x, scale=2, method="bicubic")), (x,), order=2, modes=["rev"])


def test_not_a_number_stays_among_its_neighbours():
    x = np.zeros((1, 9, 9, 1), np.float32)
    x[0, 4, 4] = np.nan
    for method, reach in {"nearest": 1, "area": 1, "bilinear": 2, "bicubic": 4}.items():
        bad = np.isnan(run(x, scale=2, method=method))[0, :, :, 0]
        rows = np.arange(18)
        near = (rows >= 9 - reach) & (rows <= 8 + reach)
        np.testing.assert_array_equal(bad, near[:, None] & near[None, :])


def test_not_a_number_does_not_reach_the_centres_of_other_pixels():
    """By 3, a pixel in three lies at the centre of its cell, where the neighbour has the weight 0."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = np.nan
    bad = np.isnan(run(x, scale=3, method="bilinear"))[0, :, :, 0]
    near = np.abs((np.arange(15) + 0.5) / 3 - 0.5 - 2) < 0.99
    np.testing.assert_array_equal(bad, near[:, None] & near[None, :])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("size", [(6, 10), (1, 1)])
def test_half_precision_rounds_once(dtype, size):
    x = random(1, 3, 50, 2).astype(dtype)
    exact = np.asarray(run(x.astype(np.float32), size=size, method="area"))
    np.testing.assert_array_equal(run(x, size=size, method="area"), exact.astype(dtype))


def from_torch(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.torch
@each_option
def test_resize_equals_torch(options):
    torch = pytest.importorskip("torch")
    sizes = [((5, 4), (10, 12)), ((11, 7), (3, 9)), ((1, 6), (5, 1))]
    pairs = [(random(1, *shape, 2), random(1, *size, 2)) for shape, size in sizes]
    mode = {**options, "mode": options["method"].replace("_", "-")}
    del mode["method"]
    for (x, ct), (actual, gradient) in zip(pairs, with_gradients(pairs, options), strict=True):
        input = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        expected = torch.nn.functional.interpolate(input, size=ct.shape[1:3], **mode)
        expected.backward(torch.tensor(ct.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(actual, from_torch(expected), atol=1e-12)
        np.testing.assert_allclose(gradient, from_torch(input.grad), atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("method", ["nearest", "nearest_exact", "bilinear", "bicubic", "area"])
def test_resize_by_scale_equals_torch_in_float32(method):
    torch = pytest.importorskip("torch")
    x = random(1, 13, 10, 2).astype(np.float32)
    input = torch.tensor(x.transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(input, scale_factor=3, mode=method.replace("_", "-"))
    actual = run(x, scale=3, method=method)
    np.testing.assert_allclose(actual, from_torch(expected), atol=2e-5)


@pytest.mark.parametrize("size", [(4, 3), (12, 20)])
@pytest.mark.parametrize(("method", "theirs"), [("bilinear", "triangle"), ("bicubic", "cubic")])
def test_antialias_equals_jax_image(size, method, theirs):
    x = random(1, 9, 10, 2).astype(np.float32)
    expected = jax.image.resize(x, (1, *size, 2), theirs, antialias=True)
    np.testing.assert_allclose(run(x, size=size, method=method, antialias=True), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 3), (12, 20)])
def test_antialias_equals_pillow(size):
    image = pytest.importorskip("PIL.Image")
    x = random(9, 10).astype(np.float32)
    expected = np.asarray(image.fromarray(x).resize(size[::-1], image.Resampling.BICUBIC))
    actual = run(x[None, :, :, None], size=size, method="bicubic", antialias=True)
    np.testing.assert_allclose(np.asarray(actual)[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "case", [*goldens.cases("resize/*"), *goldens.cases("pixel_shuffle/*"), *goldens.cases("conv_transpose/zero_up_*")]
)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.thorough
@properties
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    options=st.sampled_from(OPTIONS + MORE_OPTIONS),
)
def test_constants_are_preserved(shape, size, options):
    out = run(np.full((1, *shape, 1), 1.5, np.float32), size=size, **options)
    np.testing.assert_allclose(out, np.full((1, *size, 1), 1.5), rtol=1e-6)


@properties
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    options=st.sampled_from([o for o in CENTRED_OPTIONS if not o["method"].startswith("nearest")]),
)
def test_a_mirrored_image_gives_the_mirrored_result(shape, size, options):
    x = random(1, *shape, 2).astype(np.float32)
    mirrored = np.asarray(run(x[:, ::-1, ::-1], size=size, **options))[:, ::-1, ::-1]
    np.testing.assert_allclose(mirrored, run(x, size=size, **options), atol=1e-5)


@properties
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    options=st.sampled_from([o for o in OPTIONS + MORE_OPTIONS if o["method"] != "bicubic"]),
)
def test_averages_stay_within_the_image(shape, size, options):
    x = random(1, *shape, 2).astype(np.float32)
    out = np.asarray(run(x, size=size, **options))
    assert np.all(out <= x.max((1, 2), keepdims=True) + 1e-6)
    assert np.all(out >= x.min((1, 2), keepdims=True) - 1e-6)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (4, 1)], ids=str)
@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (3, 2), (1, 4)], ids=str)
def test_rearrangements_equal_oracle(grid, scale):
    (h, w), (sy, sx) = grid, scale
    low, packed, high = random(2, h, w, 3), random(2, h, w, 3 * sy * sx), random(2, sy * h, sx * w, 3)
    operators = (zero_upsample, pixel_shuffle, pixel_unshuffle)
    together = jax.jit(lambda *xs: [fn(x, scale=scale) for fn, x in zip(operators, xs, strict=True)])
    with jax.enable_x64(True):
        zeros, shuffled, unshuffled = together(low, packed, high)
    np.testing.assert_array_equal(zeros, oracle.zero_upsample(low, sy, sx))
    np.testing.assert_array_equal(shuffled, oracle.pixel_shuffle(packed, sy, sx))
    np.testing.assert_array_equal(unshuffled, oracle.pixel_unshuffle(high, sy, sx))


@properties
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    scale=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 3),
)
def test_unshuffle_inverts_shuffle(grid, scale, channels):
    x = random(1, *grid, channels * scale[0] * scale[1]).astype(np.float32)
    both = jax.jit(lambda x: pixel_unshuffle(pixel_shuffle(x, scale=scale), scale=scale))
    np.testing.assert_array_equal(both(x), x)


IMAGE = jnp.zeros((1, 4, 6, 8))


@pytest.mark.parametrize("fn", [resize, zero_upsample, pixel_shuffle, pixel_unshuffle])
@pytest.mark.parametrize(
    ("x", "scale", "message"),
    [
        (jnp.zeros((4, 6, 8)), 2, r"x: expected 4 axes \[B, H, W, C\], got shape \(4, 6, 8\)"),
        (jnp.zeros((1, 4, 6, 8), jnp.int32), 2, "x: expected a floating-point type, got int32"),
        (IMAGE, 0, "scale: expected an integer >= 1, got 0"),
        (IMAGE, (2, -1), "scale: expected an integer >= 1, got -1"),
        (IMAGE, 1.5, "scale: expected an integer >= 1, got 1.5"),
        (IMAGE, (2, 2, 2), "scale: expected an integer or a pair"),
    ],
    ids=["rank", "dtype", "zero", "negative", "fraction", "triple"],
)
def test_wrong_image_or_scale(fn, x, scale, message):
    with pytest.raises(ValueError, match=message):
        fn(x, scale=scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "scale, size: expected exactly one of them, got scale=None, size=None"),
        ({"scale": 2, "size": (8, 8)}, "scale, size: expected exactly one of them"),
        ({"size": (0, 8)}, "size: expected an integer >= 1, got 0"),
        ({"size": (8, -3)}, "size: expected an integer >= 1, got -3"),
        ({"scale": 2, "method": "cubic"}, "method: expected one of 'nearest', .* got 'cubic'"),
        ({"scale": 2, "border": "wrap"}, "border: expected one of 'clamp', 'mirror', 'drop', got 'wrap'"),
        ({"scale": 2, "method": "nearest", "align_corners": True}, "align_corners: .* method 'nearest'"),
        ({"scale": 2, "method": "area", "align_corners": True}, "align_corners: .* method 'area'"),
        ({"scale": 2, "method": "nearest_exact", "antialias": True}, "antialias: .* method 'nearest_exact'"),
        ({"scale": 2, "method": "area", "antialias": True}, "antialias: .* method 'area'"),
        ({"scale": 2, "method": "nearest", "border": "clamp"}, "border: .* method 'nearest'"),
        ({"scale": 2, "cubic_coefficient": 0.0}, "cubic_coefficient: .* method 'bilinear'"),
    ],
)
def test_wrong_resize_options(options, message):
    with pytest.raises(ValueError, match=message):
        resize(IMAGE, **options)


def test_no_pixels():
    with pytest.raises(ValueError, match=r"x: expected at least one pixel, got shape \(1, 0, 6, 8\)"):
        resize(jnp.zeros((1, 0, 6, 8)), scale=2)


def test_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match="scale: expected a divisor of channels = 8, got 9"):
        pixel_shuffle(IMAGE, scale=3)
    with pytest.raises(ValueError, match="scale: expected a divisor of height = 4, got 3"):
        pixel_unshuffle(IMAGE, scale=3)
    with pytest.raises(ValueError, match="scale: expected a divisor of width = 6, got 4"):
        pixel_unshuffle(IMAGE, scale=4)
