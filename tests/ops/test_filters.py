"""Filters against loops, against the golden vectors, and by what they must leave unchanged."""

import re
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
from tests.compare import assert_close
from tests.modules import on_device
from tests.ops.filters import VALUES, all_filters, box, double, each_window, gaussian, images
from tests.oracles import filters as oracle
from tests.registry.examples import marked

# Values


@each_window
def test_box_filter_equals_loops(size, radius):
    (x,) = images(2, size=size)
    assert_close(box(x, radius=radius), oracle.box_filter(*double(x), radius), VALUES)


@each_window
def test_gaussian_filter_equals_loops(size, radius):
    (x,) = images(2, size=size)
    y = gaussian(x, sigma=1.3, radius=radius)
    assert_close(y, oracle.gaussian_filter(*double(x), 1.3, radius), VALUES)


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_gaussian_kernel_ends_at_four_sigma(sigma, radius):
    (x,) = images(1, size=(9, 9))
    assert_close(gaussian(x, sigma=sigma), gaussian(x, sigma=sigma, radius=radius), 0)


# Golden vectors


FOLDERS = ("guided_filter/*", "resfu/gaussian_*", "joint_bilateral/*")
CASES = [name for folder in FOLDERS for name in goldens.cases(folder)]


@pytest.mark.parametrize("case", marked(CASES, [case for case in CASES if not case.endswith("gray")]))
@pytest.mark.first(3)
def test_golden(case):
    goldens.check(goldens.load(case))


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
    return [on_device(random.uniform(0.3, 1, s), dtype) for s in shapes]


@each_operator
@pytest.mark.first(3)
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


def test_box_filter_far_from_zero():
    """A cumulative sum would lose four digits here."""
    x = 1000 + images(1, size=(4, 2000), batch=1)[0]
    y = box(x, radius=3)
    assert_close(y, oracle.box_filter(*double(x), (3, 3)), 3e-7)


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
    finite = np.isfinite(jax.jit(fn)(x)[0, :, :, 0])
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
        renamed = jax.make_jaxpr(lambda x: fn(**{old: x}))(x)
    addresses = partial(re.sub, "0x[0-9a-f]+", "")
    assert addresses(str(renamed)) == addresses(str(jax.make_jaxpr(lambda x: fn(x=x))(x)))  # the same program
    with pytest.raises(TypeError):
        fn(**{old: x}, x=x)


@settings(deadline=None)
@given(level=st.floats(0.125, 1024, width=32), sigma=st.floats(0.0625, 4, width=32))
def test_constants_are_preserved(level, sigma):
    (guide,) = images(3, size=(4, 6))
    for y in all_filters(np.full((2, 4, 6, 1), level, np.float32), guide, sigma).values():
        assert np.max(np.abs(y - level)) <= 1e-6 * abs(level)


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


def test_an_eager_call_is_one_program():
    """Operation by operation it would take a hundred times as long."""
    x = np.ones((1, 4, 5, 2), np.float32)
    calls = [
        lambda x: ops.box_filter(x, radius=1),
        lambda x: ops.gaussian_filter(x, sigma=1.0),
        lambda x: ops.guided_filter(x, x, radius=1, eps=0.1, subsample=2),
    ]
    for call in calls:
        assert [str(eqn.primitive) for eqn in jax.make_jaxpr(call)(x).eqns] == ["jit"]
