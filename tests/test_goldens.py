"""The golden comparison itself: it accepts what its bounds allow, and nothing else."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from tests import goldens

CONFIG = {"float32_reference_rel_err": {"out/y": 1e-7, "grad_in/x": 1e-4, "grad_param/w": 1e-7}}


def product(inputs, params):
    x = inputs["x"]
    return x * params["w"].astype(x.dtype) + 0 * params["zero"].astype(x.dtype)


@pytest.fixture
def golden():
    """y = x * w, whose gradients are known by hand; `zero` has no influence."""
    x, w, cot = np.float32([[1, -2], [3, 4]]), np.float32([[2, 2], [0.5, 1]]), np.float32([[1, 1], [2, -1]])
    return goldens.Golden(
        name="by/hand",
        meta=CONFIG,
        inputs={"x": x},
        params={"w": w, "zero": np.float32([[1, 1], [1, 1]])},
        outputs={"y": x * w},
        cotangents={"y": cot},
        grad_inputs={"x": cot * w},
        grad_params={"w": cot * x, "zero": np.zeros_like(x)},
    )


def test_the_function_itself_passes(golden):
    goldens.check(golden, product)
    goldens.check(golden, lambda inputs, params: {"y": product(inputs, params)})


def test_half_precision_has_its_own_type(golden):
    with pytest.raises(AssertionError, match="expected bfloat16, got float32"):
        goldens.check_half(golden, lambda inputs, params: product(inputs, params).astype(jnp.float32))


def test_vjp_uses_the_stored_cotangents(golden):
    outputs, gradients = goldens.vjp(golden, product)
    chex.assert_trees_all_close(outputs, golden.outputs)
    chex.assert_trees_all_close(gradients, {k: jnp.asarray(v) for k, v in golden.gradients.items()})


@pytest.mark.parametrize("error", [2e-5, -2e-5, np.nan, np.inf])
def test_a_wrong_value_fails(golden, error):
    y = golden.outputs["y"].copy()
    y[0, 0] += error * 4  # the largest magnitude is 4: just twice the bound, and on another entry
    with pytest.raises(AssertionError, match=r"by/hand y: .*\(0, 0\)"):
        goldens.check_values(golden, {"y": y})


def test_an_error_inside_the_bound_passes(golden):
    goldens.check_values(golden, {"y": golden.outputs["y"] + np.float32(3e-5)})


# G = 6. x: ten times the recorded 1e-4 of its largest entry 2 (2e-3); w: 1e-4 * 6 + 1e-6 * 6; zero: 1e-6 * 6.
@pytest.mark.parametrize(("name", "bound"), [("in/x", 2e-3), ("param/w", 6.06e-4), ("param/zero", 6e-6)])
def test_gradient_bounds(golden, name, bound):
    gradients = golden.gradients
    wrong = lambda error: gradients | {name: gradients[name] + np.float32(error)}  # noqa: E731
    goldens.check_gradients(golden, wrong(0.9 * bound))
    with pytest.raises(AssertionError, match=name):
        goldens.check_gradients(golden, wrong(1.1 * bound))


@pytest.mark.parametrize(
    "fn",
    [
        lambda inputs, params: product(inputs, params).T,  # same shape, other order
        lambda inputs, params: product(inputs, params) + 1e-3,  # gradients right, values wrong
        lambda inputs, params: product(inputs, params)[:1],
        lambda inputs, params: product(inputs, params)[None],
        lambda inputs, params: {"y": product(inputs, params), "other": inputs["x"]},
        lambda inputs, params: {},
    ],
)
def test_wrong_functions_fail(golden, fn):
    with pytest.raises((AssertionError, ValueError)):
        goldens.check(golden, fn)


def test_right_values_with_a_wrong_gradient_fail(golden):
    def constant_in_w(inputs, params):
        return inputs["x"] * golden.params["w"] + 0 * params["zero"]

    with pytest.raises(AssertionError, match="param/w"):
        goldens.check(golden, constant_in_w)


def test_every_case_loads():
    """Also that every stored gradient has the shape of what was given."""
    folder = goldens.shared("goldens")
    cases = sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.npz"))
    assert cases
    for case in cases:
        golden = goldens.load(case)
        assert golden.cotangents.keys() <= golden.outputs.keys(), case
        for given, gradients in [(golden.inputs, golden.grad_inputs), (golden.params, golden.grad_params)]:
            for name, gradient in gradients.items():
                assert gradient.shape == given[name].shape, (case, name)
