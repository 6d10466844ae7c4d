"""Filters against loops, against the golden vectors, and by what they must leave unchanged."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxup import ops, solvers
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.oracles import filters as oracle
from tests.registry.examples import marked, thorough

VALUES = 2e-6  # float32, relative to the largest magnitude

each_window = pytest.mark.parametrize(
    ("size", "radius"),
    [
        ((1, 1), (1, 1)),
        ((1, 7), (1, 2)),
        ((5, 4), (7, 7)),  # beyond the image
        ((6, 9), (1, 1)),
        ((6, 9), (3, 0)),
    ],
    ids=str,
)


def images(*channels, size=(5, 6), batch=2, dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    return [random.uniform(0, 1, (batch, *size, c)).astype(dtype) for c in channels]


def double(*xs):
    return [np.asarray(x, np.float64) for x in xs]


# Values


@each_window
def test_box_filter_equals_loops(size, radius):
    (x,) = images(2, size=size)
    assert_close(ops.box_filter(x, radius=radius), oracle.box_filter(*double(x), radius), VALUES)


@each_window
def test_gaussian_filter_equals_loops(size, radius):
    (x,) = images(2, size=size)
    y = ops.gaussian_filter(x, sigma=1.3, radius=radius)
    assert_close(y, oracle.gaussian_filter(*double(x), 1.3, radius), VALUES)


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_gaussian_kernel_ends_at_four_sigma(sigma, radius):
    (x,) = images(1, size=(9, 9))
    assert_close(ops.gaussian_filter(x, sigma=sigma), ops.gaussian_filter(x, sigma=sigma, radius=radius), 0)


@each_window
@pytest.mark.parametrize("channels", [1, 3])
def test_guided_filter_equals_loops(size, radius, channels):
    src, guide = images(2, channels, size=size)
    y = jax.jit(partial(ops.guided_filter, radius=radius, eps=1e-2))(src, guide)
    assert_close(y, oracle.guided_filter(*double(src, guide), radius, 1e-2), VALUES)


@pytest.mark.parametrize(("size", "radius"), [((1, 1), 1), ((1, 7), 2), ((5, 4), 7), ((6, 9), 2)], ids=str)
@pytest.mark.parametrize("channels", [None, 3])
def test_bilateral_filter_equals_loops(size, radius, channels):
    x, guide = images(2, channels or 2, size=size)
    options = dict(radius=radius, sigma_spatial=1.5, sigma_range=0.3)
    y = ops.bilateral_filter(x, None if channels is None else guide, **options)
    assert_close(y, oracle.bilateral_filter(*double(x, x if channels is None else guide), **options), VALUES)


@pytest.mark.parametrize(
    ("size", "scale", "radius", "given_lr"),
    [
        ((1, 1), (1, 1), 0, True),
        ((1, 1), (4, 3), 2, False),
        ((1, 7), (2, 2), 1, True),
        ((5, 4), (2, 3), 1, False),
        ((5, 4), (3, 3), 2, True),
        ((4, 5), (4, 4), 2, False),
        ((2, 4), (2, 1), 5, False),
        ((6, 9), (1, 1), 1, True),
    ],
    ids=str,
)
def test_joint_bilateral_upsample_equals_loops(size, scale, radius, given_lr):
    src, guide_lr = images(2, 3, size=size)
    (guide,) = images(3, size=(scale[0] * size[0], scale[1] * size[1]), seed=1)
    options = dict(radius=radius, sigma_spatial=0.8, sigma_range=0.3)
    y = ops.joint_bilateral_upsample(src, guide, scale=scale, guide_lr=guide_lr if given_lr else None, **options)
    lr = guide_lr.astype(np.float64) if given_lr else None
    assert_close(y, oracle.joint_bilateral_upsample(*double(src, guide), **options, guide_lr=lr), VALUES)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [((2, 4), (15, 30), 7.5), ((4, 4), (10, 15), (2.5, 3.75)), ((3, 3), (6, 4), (2, 4 / 3)), ((1, 5), (3, 13), None)],
    ids=str,
)
@pytest.mark.parametrize("given_lr", [False, True])
def test_joint_bilateral_upsample_in_any_ratio(low, high, scale, given_lr):
    (x, guide_lr), (guide,) = images(2, 3, size=low), images(3, size=high, seed=1)
    options = dict(radius=1, sigma_spatial=0.8, sigma_range=0.3)
    lr = guide_lr if given_lr else None
    y = ops.joint_bilateral_upsample(x, guide, scale=scale, guide_lr=lr, **options)
    lr = lr if lr is None else lr.astype(np.float64)
    assert_close(y, oracle.joint_bilateral_upsample(*double(x, guide), **options, guide_lr=lr), VALUES)


def test_guided_filter_takes_any_number_of_channels():
    src, guide = images(1, 5)
    y = jax.jit(partial(ops.guided_filter, radius=1, eps=1e-2))(src, guide)
    assert_close(y, oracle.guided_filter(*double(src, guide), (1, 1), 1e-2), VALUES)


# Golden vectors


@pytest.mark.parametrize(
    "case",
    [name for folder in ("guided_filter/*", "resfu/gaussian_*", "joint_bilateral/*") for name in goldens.cases(folder)],
)
def test_golden(case):
    goldens.check(goldens.load(case))


def test_guided_filter_per_channel_golden():
    """Each channel of the source under its own channel of the guide is a grey filter, mapped over channels."""
    golden = goldens.load("resfu/guided_filter__r4_scale1")
    one = partial(ops.guided_filter, radius=golden.config["radius"], eps=golden.config["epsilon"])

    def per_channel(inputs, _):
        return jax.vmap(one, in_axes=3, out_axes=3)(inputs["p"][..., None], inputs["I"][..., None])[..., 0]

    goldens.check(golden, per_channel)


# Gradients and numerics

OPERATORS = {
    "box": (lambda x: ops.box_filter(x, radius=(1, 2)), [(2, 3, 4, 2)]),
    "gaussian": (lambda x, s: ops.gaussian_filter(x, sigma=s, radius=1), [(2, 3, 4, 2), ()]),
    "guided": (
        lambda p, i, e: ops.guided_filter(p, i, radius=1, eps=e),
        [(2, 3, 4, 2), (2, 3, 4, 2), ()],
    ),
    "bilateral": (
        lambda x, g, s, r: ops.bilateral_filter(x, g, radius=1, sigma_spatial=s, sigma_range=r),
        [(2, 3, 4, 1), (2, 3, 4, 2), (), ()],
    ),
    "upsample": (
        lambda x, g, s, r, lr: ops.joint_bilateral_upsample(
            x, g, scale=2, radius=1, sigma_spatial=s, sigma_range=r, guide_lr=lr
        ),
        [(2, 2, 3, 2), (2, 4, 6, 2), (), (), (2, 2, 3, 2)],
    ),
}

each_operator = pytest.mark.parametrize(("fn", "shapes"), OPERATORS.values(), ids=OPERATORS)


def inputs(shapes, dtype):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.uniform(0.3, 1, s), dtype) for s in shapes]


@each_operator
def test_gradients_of_every_argument(fn, shapes):
    with jax.enable_x64(True):
        check_grads(jax.jit(fn), inputs(shapes, jnp.float64), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@each_operator
def test_16_bit_inputs_are_computed_in_float32(fn, shapes):
    """The result is the float32 result, rounded once: half a unit in the last of 8 bits."""
    half = inputs(shapes, jnp.bfloat16)
    y = jax.jit(fn)(*half)
    assert y.dtype == jnp.bfloat16
    expected = np.asarray(jax.jit(fn)(*[x.astype(jnp.float32) for x in half]))
    assert np.all(np.abs(np.asarray(y, np.float32) - expected) <= 1.01 * 2**-8 * np.abs(expected))


@each_operator
def test_no_images(fn, shapes):
    arrays = [x[:0] if x.ndim else x for x in inputs(shapes, jnp.float32)]
    assert jax.jit(fn)(*arrays).size == 0


@each_operator
def test_mixed_dtypes_return_the_first(fn, shapes):
    with jax.enable_x64(True):
        for first, others in ((jnp.float32, jnp.float64), (jnp.float64, jnp.float32), (jnp.bfloat16, jnp.float32)):
            given = [jax.ShapeDtypeStruct(s, others if i else first) for i, s in enumerate(shapes)]
            assert jax.eval_shape(fn, *given).dtype == first


@pytest.mark.parametrize("offset", [1000.0, -30000.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_guided_filter_far_from_zero(offset, channels):
    """E[I I] - E[I]^2 without centring is wrong in the first digit here."""
    src, guide = images(1, channels, size=(12, 14), batch=1)
    src, guide = src + np.float32(offset), np.float32(0.1) * guide + np.float32(offset)
    y = ops.guided_filter(src, guide, radius=2, eps=1e-4)
    expected = oracle.guided_filter(*double(src, guide), (2, 2), 1e-4)
    spacing = np.spacing(np.float32(abs(offset)))
    assert np.max(np.abs(y - expected)) <= 2 * spacing


def test_box_filter_far_from_zero():
    """A cumulative sum would lose four digits here."""
    x = 1000 + images(1, size=(4, 2000), batch=1)[0]
    y = ops.box_filter(x, radius=3)
    assert_close(y, oracle.box_filter(*double(x), (3, 3)), 3e-7)


def test_guided_filter_solves_nearly_grey_colours():
    """Three almost equal channels: determinants in float32 have no correct digit left."""
    noise, base, src = images(3, 1, 1, size=(12, 14), batch=1)
    guide = base + np.float32(1e-3) * noise
    y = ops.guided_filter(src, guide, radius=2, eps=1e-6)
    assert_close(y, oracle.guided_filter(*double(src, guide), (2, 2), 1e-6), 1e-3)


LOW_RANK = {
    "grey": lambda g, m: g[..., [0, 0, 0]],
    "duplicated": lambda g, m: g[..., [0, 0, 1]],
    "saturated": lambda g, m: np.where(m, 255, g),
    "one saturated channel": lambda g, m: np.where(m & (np.arange(3) == 1), 255, g),
    "grey parts": lambda g, m: np.where(m, g[..., :1], g),
    "many mixtures": lambda g, m: np.concatenate([g, g @ np.arange(12.0).reshape(3, 4), g[..., :1]], axis=-1),
    "flat": lambda g, m: np.full_like(g, 200),
}


@pytest.mark.parametrize("kind", marked(LOW_RANK, set(LOW_RANK) - {"many mixtures"}))
@pytest.mark.parametrize(("subsample", "bound"), [(1, 1e-3), thorough(2, 5e-3)])  # fewer pixels, more of rounding
def test_guided_filter_under_guides_of_low_rank(kind, subsample, bound):
    """Values are those of float64, where even this eps is far above rounding, and no gradient is larger than there.

    In directions that the guide does not have, its own gradient depends on the size of eps alone.
    """
    random = np.random.default_rng(0)
    guide = np.round(random.uniform(20, 230, (1, 12, 14, 3)))
    guide = np.float32(LOW_RANK[kind](guide, np.arange(14)[None, None, :, None] > 5))
    x = np.float32(random.uniform(1, 3, (1, 12, 14, 1)))

    @jax.jit
    def run(x, guide):
        y, pull = jax.vjp(partial(ops.guided_filter, radius=4, eps=1e-6, subsample=subsample), x, guide)
        return y, *pull(jnp.sin(3 * y))

    y, d_x, d_guide = run(x, guide)
    with jax.enable_x64(True):
        expected = run(*double(x, guide))
    assert_close(y, expected[0], bound)
    assert_close(d_x, expected[1], 2 * bound)
    assert np.max(np.abs(d_guide)) <= 2 * np.max(np.abs(expected[2])) + 1e-3  # a NaN is not


def test_grey_as_rgb_is_grey():
    x, grey = images(1, 1, size=(12, 14), batch=1)
    grey = np.round(255 * grey)

    @jax.jit
    def run(x, guide):
        y, pull = jax.vjp(partial(ops.guided_filter, radius=3, eps=1e-6), x, guide)
        d_x, d_guide = pull(jnp.sin(3 * y))
        return y, d_x, d_guide.sum(-1)

    assert_close(run(x, np.repeat(grey, 3, -1)), run(x, grey), 1e-3)


def test_extreme_sigmas_stay_finite():
    src, guide = images(2, 3, size=(4, 6), batch=1)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(src, guide, sigma):
        options = dict(radius=1, sigma_spatial=sigma, sigma_range=sigma)
        up = ops.joint_bilateral_upsample(src[:, ::2, ::2], guide, scale=2, **options)
        smooth = ops.gaussian_filter(src, sigma=sigma, radius=1)
        return jnp.sum(jnp.sin(up) + jnp.sin(smooth) + jnp.sin(ops.bilateral_filter(src, guide, **options)))

    for sigma in (0.0, 1e-30, 1e-9, 1e-4, 1e9):
        for given_guide in (guide, np.full_like(guide, 0.5)):
            assert_finite(loss(src, given_guide, jnp.float32(sigma)))


def test_tiny_sigmas_choose_the_most_alike_neighbour():
    guide_lr = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4, 1)
    guide = np.repeat(np.repeat(guide_lr, 2, 1), 2, 2)[:, :, ::-1]
    y = ops.joint_bilateral_upsample(
        guide_lr, guide, scale=2, radius=3, sigma_spatial=1e3, sigma_range=1e-6, guide_lr=guide_lr
    )
    assert_close(y, guide, 0)


@pytest.mark.parametrize(
    ("fn", "reach"),
    [
        (lambda x: ops.box_filter(x, radius=1), 1),
        (lambda x: ops.gaussian_filter(x, sigma=1.0, radius=1), 1),
        (lambda x: ops.guided_filter(x, x, radius=1, eps=0.1), 2),
        (lambda x: ops.bilateral_filter(x, radius=1, sigma_spatial=1.0, sigma_range=1.0), 1),
    ],
    ids=["box", "gaussian", "guided", "bilateral"],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_pixels_stay_local(fn, reach, bad):
    (x,) = images(1, size=(9, 9), batch=1)
    x[0, 4, 4] = bad
    finite = np.isfinite(fn(x)[0, :, :, 0])
    far = np.max(np.abs(np.mgrid[-4:5, -4:5]), axis=0) > reach
    assert finite[far].all() and not finite[4, 4]


@pytest.mark.parametrize(
    ("fn", "old"),
    [
        (partial(ops.guided_filter, guide=np.ones((1, 4, 6, 1), np.float32), radius=1, eps=0.1), "src"),
        (
            partial(
                ops.joint_bilateral_upsample,
                guide=np.ones((1, 4, 6, 1), np.float32),
                radius=1,
                sigma_spatial=1.0,
                sigma_range=1.0,
            ),
            "src",
        ),
        (partial(solvers.guided_interpolation, guide=np.ones((1, 4, 6, 1), np.float32)), "src"),
        (partial(solvers.bilateral_solver_upsample, guide=np.ones((1, 4, 6, 1), np.float32)), "src"),
        (partial(solvers.bilateral_solver, guide=np.ones((1, 4, 6, 1), np.float32)), "target"),
    ],
    ids=lambda v: v.func.__name__ if isinstance(v, partial) else v,
)
def test_the_first_argument_under_its_old_name(fn, old):
    (x,) = images(1, size=(4, 6), batch=1)
    with pytest.warns(DeprecationWarning, match=f"^{fn.func.__name__}: the argument {old} is now called x"):
        renamed = fn(**{old: x})
    assert_close(renamed, fn(x=x), 0)
    with pytest.raises(TypeError):
        fn(**{old: x}, x=x)


# Properties


@jax.jit
def all_filters(x, guide, sigma):
    options = dict(radius=2, sigma_spatial=sigma, sigma_range=sigma)
    return {
        "box": ops.box_filter(x, radius=2),
        "gaussian": ops.gaussian_filter(x, sigma=sigma, radius=2),
        "guided": ops.guided_filter(x, guide, radius=2, eps=sigma),
        "bilateral": ops.bilateral_filter(x, guide, **options),
        "upsample": ops.joint_bilateral_upsample(x[:, :2, :3], guide, scale=2, **options),
    }


@settings(deadline=None)
@given(level=st.floats(0.125, 1024, width=32), sigma=st.floats(0.0625, 4, width=32))
def test_constants_are_preserved(level, sigma):
    (guide,) = images(3, size=(4, 6))
    for y in all_filters(np.full((2, 4, 6, 1), level, np.float32), guide, sigma).values():
        assert np.max(np.abs(y - level)) <= 1e-6 * abs(level)


@settings(deadline=None)
@given(seed=st.integers(0, 100), sigma=st.floats(0.0625, 4, width=32))
def test_bilateral_means_stay_within_their_windows(seed, sigma):
    x, guide = images(1, 3, size=(4, 6), seed=seed)
    y = {name: np.asarray(y) for name, y in all_filters(x, guide, sigma).items()}
    for name, cells, scale in (("bilateral", x, 1), ("upsample", x[:, :2, :3], 2)):
        for b, i, j in np.ndindex(y[name].shape[:3]):
            near = oracle.window(cells.shape[1:3], (i // scale, j // scale), (2, 2))
            seen = [cells[b, p, q] for p, q in near]
            assert np.min(seen) - 1e-6 <= y[name][b, i, j] <= np.max(seen) + 1e-6


def test_guided_filter_of_a_flat_guide_is_two_box_means():
    """A large eps, or a guide without detail, leaves a = 0 and b = mean(p)."""
    x, guide = images(1, 3, size=(4, 6))
    smooth = ops.box_filter(ops.box_filter(x, radius=2), radius=2)
    assert_close(all_filters(x, guide, 1e9)["guided"], smooth, VALUES)
    assert_close(all_filters(x, np.ones_like(guide), 1e-3)["guided"], smooth, VALUES)


def test_guided_filter_keeps_linear_functions_of_the_guide():
    (guide,) = images(3, size=(4, 6))
    x = guide @ np.float32([[2.0], [-1.0], [0.5]]) + np.float32(3)
    assert_close(all_filters(x, guide, 1e-9)["guided"], x, 1e-5)


def test_an_offset_of_the_guide_changes_nothing():
    x, guide = images(1, 3, size=(4, 6))
    guide = np.round(guide * 256) / np.float32(256)  # exact after the offset too
    assert_close(all_filters(x, guide + np.float32(512), 0.01), all_filters(x, guide, 0.01), VALUES)


def test_upsampling_by_one_is_the_joint_bilateral_filter():
    x, guide = images(1, 3, size=(4, 6))
    options = dict(radius=2, sigma_spatial=0.2, sigma_range=0.2)
    up = jax.jit(partial(ops.joint_bilateral_upsample, scale=1, **options))(x, guide)
    assert_close(up, all_filters(x, guide, 0.2)["bilateral"], VALUES)


def test_memory_of_the_bilateral_filter_does_not_grow_with_the_radius():
    (x,) = images(3, size=(32, 32), batch=1)

    def scratch(radius):
        def loss(x):
            return jnp.sum(ops.bilateral_filter(x, radius=radius, sigma_spatial=3.0, sigma_range=0.1) ** 2)

        return jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis().temp_size_in_bytes

    padding = (32 + 2 * 4) ** 2 / (32 + 2) ** 2
    assert scratch(4) <= 1.1 * padding * scratch(1)


# Bad arguments

X, G = np.zeros((2, 4, 6, 1), np.float32), np.zeros((2, 4, 6, 3), np.float32)
JBU = dict(scale=2, radius=1, sigma_spatial=1.0, sigma_range=1.0)
BILATERAL = dict(radius=1, sigma_spatial=1.0, sigma_range=1.0)
LOW = X[:, :2, :3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.box_filter(X[0], radius=1), r"^x: .*4 axes.*\(4, 6, 1\)"),
        (lambda: ops.box_filter(X.astype(int), radius=1), "^x: .*floating-point type, got int"),
        (lambda: ops.box_filter(X, radius=-1), "^radius: .*>= 0, got -1"),
        (lambda: ops.box_filter(X, radius=1.5), r"^radius: .*integer.*got 1\.5"),
        (lambda: ops.box_filter(X, radius=(1, 2, 3)), r"^radius: .*pair.*got \(1, 2, 3\)"),
        (lambda: ops.gaussian_filter(X[0], sigma=1.0), "^x: .*4 axes"),
        (lambda: ops.gaussian_filter(X, sigma=0.0), r"^sigma: .*> 0, got 0\.0"),
        (lambda: ops.gaussian_filter(X, sigma=np.ones(2)), r"^sigma: .*0 axes.*\(2,\)"),
        (lambda: ops.gaussian_filter(X, sigma=1.0, radius=-2), "^radius: .*>= 0, got -2"),
        (lambda: jax.jit(lambda s: ops.gaussian_filter(X, sigma=s))(1.0), "^radius: .*sigma is traced"),
        (lambda: ops.guided_filter(X[0], G, radius=1, eps=1.0), "^x: .*4 axes"),
        (lambda: ops.guided_filter(X, G[0], radius=1, eps=1.0), "^guide: .*4 axes"),
        (lambda: ops.guided_filter(X, G.astype(int), radius=1, eps=1.0), "^guide: .*floating"),
        (lambda: ops.guided_filter(X, G[:, :3], radius=1, eps=1.0), r"^guide: .*\(2, 4, 6, \*\).*\(2, 3, 6, 3\)"),
        (lambda: ops.guided_filter(X, G[..., :0], radius=1, eps=1.0), "^guide: .*one channel"),
        (lambda: ops.guided_filter(X, G, radius=-1, eps=1.0), "^radius: .*got -1"),
        (lambda: ops.guided_filter(X, G, radius=1, eps=0.0), r"^eps: .*> 0, got 0\.0"),
        (lambda: ops.guided_filter(X, G, radius=1, eps=float("nan")), "^eps: .*> 0, got nan"),
        (lambda: ops.bilateral_filter(X[0], **BILATERAL), "^x: .*4 axes"),
        (lambda: ops.bilateral_filter(X, G[:1], **BILATERAL), r"^guide: .*\(2, 4, 6, \*\).*\(1, 4, 6, 3\)"),
        (lambda: ops.bilateral_filter(X, **BILATERAL | dict(radius=-1)), "^radius: .*got -1"),
        (lambda: ops.bilateral_filter(X, **BILATERAL | dict(radius=(1, 1))), "^radius: .*integer"),
        (lambda: ops.bilateral_filter(X, **BILATERAL | dict(sigma_spatial=-1.0)), "^sigma_spatial: .*> 0"),
        (lambda: ops.bilateral_filter(X, **BILATERAL | dict(sigma_range=0.0)), "^sigma_range: .*> 0"),
        (lambda: ops.joint_bilateral_upsample(LOW[0], G, **JBU), "^x: .*4 axes"),
        (lambda: ops.joint_bilateral_upsample(X, G, **JBU), r"^guide: .*\(2, 8, 12, \*\).*\(2, 4, 6, 3\)"),
        (lambda: ops.joint_bilateral_upsample(LOW, G[..., :0], **JBU), "^guide: .*one channel"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU, guide_lr=G), r"^guide_lr: .*\(2, 2, 3, 3\)"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU, guide_lr=LOW), r"^guide_lr: .*\(2, 2, 3, 3\)"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(scale=0)), "^scale: .*>= 1, got 0"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(scale=1.5)), r"^scale: .*whole .* of 3, got 1\.5"),
        (lambda: ops.joint_bilateral_upsample(X, G, **JBU | dict(scale=(1.25, 1))), r"^guide: .*\(2, 5, 6, \*\)"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(scale=np.nan)), "^scale: .*>= 1, got nan"),
        (
            lambda: ops.joint_bilateral_upsample(X, G[:, :3], **JBU | dict(scale=None)),
            "^guide: .*no less than the 4 x 6",
        ),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(radius=-1)), "^radius: .*got -1"),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(sigma_spatial=0.0)), "^sigma_spatial: "),
        (lambda: ops.joint_bilateral_upsample(LOW, G, **JBU | dict(sigma_range=-0.5)), "^sigma_range: "),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
