"""The golden comparison itself: it accepts what its bounds allow, and nothing else."""

import contextlib
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import goldens
from tests.golden_files import FIELDS

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


def test_gradients_use_the_stored_cotangents(golden):
    outputs, gradients, _ = goldens.compiled(golden, product)(golden.inputs)
    chex.assert_trees_all_close(outputs, golden.outputs)
    chex.assert_trees_all_close(gradients, {k: jnp.asarray(v) for k, v in golden.gradients.items()})


@pytest.mark.parametrize("error", [2e-5, -2e-5, np.nan, np.inf])
def test_a_wrong_value_fails(golden, error):
    y = golden.outputs["y"].copy()
    y[0, 0] += error * 4  # the largest magnitude is 4: just twice the bound, and on another entry
    with pytest.raises(AssertionError, match=r"by/hand out/y: .*\(0, 0\)"):
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


def test_a_gradient_at_a_kink_is_that_of_float64():
    """Rounding decides on which side a float32 rectifier stands. A gradient that is wrong in float64, too, fails."""
    ones, tiny = np.ones((1, 1), np.float32), 1e-9
    for distance, fails in [(tiny, False), (-tiny, True)]:
        golden = goldens.Golden(
            name="a/kink", meta={"config": {}}, inputs={"x": ones}, outputs={"y": ones},
            cotangents={"y": ones}, grad_inputs={"x": 2 * ones},
        )  # fmt: skip
        kink = lambda inputs, params: inputs["x"] + jax.nn.relu(inputs["x"] - (1 - distance))  # noqa: B023, E731
        with pytest.raises(AssertionError, match="grad_in/x") if fails else contextlib.nullcontext():
            goldens.check(golden, kink, half=False)


def test_right_values_with_a_wrong_gradient_fail(golden):
    def constant_in_w(inputs, params):
        return inputs["x"] * golden.params["w"] + 0 * params["zero"]

    with pytest.raises(AssertionError, match="param/w"):
        goldens.check(golden, constant_in_w)


@pytest.fixture
def sampled():
    """The same case as a file of recipes and samples."""
    x, w = np.random.RandomState(1).standard_normal((2, 3)) * 2 + 1, np.random.RandomState(2).uniform(0, 1, (2, 3))
    x, w = x.astype(np.float32), w.astype(np.float32)
    arrays = {"out/y": x * w, "grad_in/x": w, "grad_param/w": x}  # the cotangent is one everywhere
    meta = {
        "operator": "product",
        "config": {},
        "in_gen": {"x": {"seed": 1, "shape": [2, 3], "dist": "normal", "scale": 2.0, "shift": 1.0}},
        "param_gen": {"w": {"seed": 2, "shape": [2, 3], "dist": "uniform", "lo": 0, "hi": 1}},
        "cot_gen": {"y": {"seed": 3, "shape": [2, 3], "dist": "normal", "scale": 0.0, "shift": 1.0}},
        "sampled": {key: {"shape": [2, 3], "step": 2} for key in arrays},
        "max_abs": {key: float(np.abs(array).max()) for key, array in arrays.items()},
        "grad_max": float(np.abs(x).max()),
    }
    return {"meta": json.dumps(meta)} | {key: array.ravel()[::2] for key, array in arrays.items()}


def write(folder, case, arrays):
    path = folder / f"{case}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def times(inputs, params, config):
    return inputs["x"] * params["w"]


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setitem(goldens.OPERATORS, "product", times)
    return goldens.OPERATORS


def test_recipes_and_samples(tmp_path, sampled):
    write(tmp_path, "product/a", sampled)
    golden = goldens.read(tmp_path, "product/a")
    goldens.check(golden, lambda inputs, params: times(inputs, params, {}), half=False)
    y, bound = times(golden.inputs, golden.params, {}), 1e-5 * golden.meta["max_abs"]["out/y"]
    for entry, fails in [((0, 1), False), ((0, 2), True)]:  # only every second one is stored
        wrong = y.copy()
        wrong[entry] += 1.5 * bound
        with pytest.raises(AssertionError, match="out/y") if fails else contextlib.nullcontext():
            goldens.check_values(golden, {"y": wrong})
    with pytest.raises(AssertionError, match=r"expected shape \(2, 3\), got \(3, 2\)"):
        goldens.check_values(golden, {"y": y.T})
    with pytest.raises(AssertionError, match=r"expected shape \(2, 3\), got \(3,\)"):
        goldens.check_values(golden, {"y": y.ravel()[::2]})


def test_command(tmp_path, capsys, sampled, table):
    write(tmp_path, "product/right", sampled)
    write(tmp_path, "product/wrong_gradient", sampled | {"grad_param/w": sampled["grad_param/w"] * np.float32(1.01)})
    write(tmp_path, "product/no_gradient", {k: v for k, v in sampled.items() if not k.startswith("grad")})
    write(tmp_path, "later/network", sampled | {"meta": json.dumps({"operator": "later"})})
    run = lambda *names: (goldens.main([str(tmp_path), *names]), capsys.readouterr().out.splitlines())  # noqa: E731
    status, lines = run()
    assert status == 1 and lines[-1] == "2 passed, 1 failed, 1 unknown"
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "FAILED product/wrong_gradient grad_param/w",
        "unknown",
    ]
    assert lines[1] == "unknown: later (1 case)"
    assert run("product/right") == (0, ["1 passed, 0 failed, 0 unknown"])
    assert run("later")[0] == 0
    assert run("product/other")[0] == run("prod")[0] == goldens.main([str(tmp_path / "none")]) == 2
    table["product"] = lambda inputs, params, config: config["missing"]
    assert run("product/right") == (1, ["FAILED product/right: KeyError: 'missing'", "0 passed, 1 failed, 0 unknown"])


def test_every_case_loads():
    """Also that every stored gradient has the shape of what was given, and every sample its length."""
    folder = goldens.shared("goldens")
    found = goldens.names(folder)
    assert found
    for case in found:
        golden = goldens.read(folder, case, generate=("in_gen", "cot_gen"))
        shapes = {f"in/{name}": x.shape for name, x in golden.inputs.items()}
        shapes |= {f"param/{name}": x.shape for name, x in golden.params.items()}
        shapes |= {f"param/{name}": tuple(recipe["shape"]) for name, recipe in golden.meta.get("param_gen", {}).items()}
        assert golden.cotangents.keys() <= golden.outputs.keys(), case
        for name, gradient in golden.gradients.items():
            if golden.config["mode"] != "fit":  # a fit makes its own parameters
                assert golden.shape(f"grad_{name}", gradient) == shapes[name], (case, name)
        for kind in ("out", "out_state"):
            for name, stored in getattr(golden, FIELDS[kind]).items():
                whole = np.broadcast_to(0, golden.shape(f"{kind}/{name}", stored))
                assert golden.stored(f"{kind}/{name}", whole).shape == stored.shape, (case, name)


# Decoder blocks of FastDepth that the sheet describes, and of which the shared folder has no case.
DESCRIBED = {"blconv", "blconvdw", "deconvdw", "nnconv", "shuffle"}


def test_tests_check_every_operator_of_the_table():
    """With the shared folder; without it the cases skip."""
    folder = goldens.shared("goldens")
    operators = {goldens.read(folder, case, generate=()).meta["operator"] for case in goldens.names(folder)}
    assert goldens.OPERATORS.keys() - DESCRIBED <= operators
