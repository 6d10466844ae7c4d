"""Golden vectors of the reference implementations, and the comparison with the bounds their README states.

golden = goldens.load("attn_upsample/self__k3_s2")          # skips the test where the folder is absent
goldens.check(golden, lambda inputs, params: {"z": attention(**inputs, ...)})
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

Arrays = dict[str, np.ndarray]
Function = Callable[[dict[str, jax.Array], dict[str, jax.Array]], Any]

VALUE_BOUND = 1e-5  # of the largest magnitude of the array
GRADIENT_BOUND = 1e-4  # likewise
NOISE_BOUND = 1e-6  # of the largest gradient entry of the whole case, G
HALF_BOUND = 2e-2  # of the largest magnitude, for inputs in bfloat16
SENSITIVITY_FACTOR = 10  # a case that float32 itself blurs by e is compared with 10 e


def shared(folder: str) -> Path:
    """The folder beside the repository, or under $JAXUP_SHARED; skips the running test where it is absent."""
    root = Path(os.environ.get("JAXUP_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / folder).is_dir():
        pytest.skip(f"no {folder} folder: set JAXUP_SHARED to the folder that holds it")
    return root / folder


@dataclass(frozen=True)
class Golden:
    """One case. Images are NHWC; parameters have their official names and PyTorch layouts."""

    name: str
    meta: dict[str, Any]
    inputs: Arrays = field(default_factory=dict)  # in/
    params: Arrays = field(default_factory=dict)  # param/
    outputs: Arrays = field(default_factory=dict)  # out/
    cotangents: Arrays = field(default_factory=dict)  # cot/
    grad_inputs: Arrays = field(default_factory=dict)  # grad_in/
    grad_params: Arrays = field(default_factory=dict)  # grad_param/
    out_state: Arrays = field(default_factory=dict)  # out_state/, BatchNorm statistics after a training step
    mid: Arrays = field(default_factory=dict)  # mid/, intermediate results
    alt: Arrays = field(default_factory=dict)  # alt/, variants explained in the notes
    param_const: Arrays = field(default_factory=dict)  # param_const/, constants explained in the notes

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments by their official names."""
        return self.meta["config"]

    @property
    def gradients(self) -> Arrays:
        """Stored gradients as "in/<argument>" and "param/<key>"."""
        named = {f"in/{k}": v for k, v in self.grad_inputs.items()}
        return named | {f"param/{k}": v for k, v in self.grad_params.items()}

    def sensitivity(self, key: str) -> float:
        """How far plain float32 is from the stored array, relative; `key` as in the file."""
        return self.meta.get("float32_reference_rel_err", {}).get(key, 0.0)


_FIELDS = {
    "in": "inputs",
    "param": "params",
    "out": "outputs",
    "cot": "cotangents",
    "grad_in": "grad_inputs",
    "grad_param": "grad_params",
    "out_state": "out_state",
    "mid": "mid",
    "alt": "alt",
    "param_const": "param_const",
}


def load(case: str) -> Golden:
    """Read "<operator>/<case>"; an unknown kind of array is an error."""
    with np.load(shared("goldens") / f"{case}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    groups: dict[str, Arrays] = {"params": {k: _generated(r) for k, r in meta.get("param_gen", {}).items()}}
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        groups.setdefault(_FIELDS[kind], {})[name] = array
    return Golden(name=case, meta=meta, **groups)


def check_values(golden: Golden, actual: Mapping[str, Any], kind: str = "out") -> None:
    """Compare all arrays of one kind ("out", "out_state", "mid", "alt"), given as {name: array}."""
    expected = getattr(golden, _FIELDS[kind])
    _same_names(golden, actual, expected)
    for name, want in expected.items():
        bound = max(VALUE_BOUND, SENSITIVITY_FACTOR * golden.sensitivity(f"{kind}/{name}")) * _largest(want)
        _compare(golden, name, actual[name], want, bound)


def check_gradients(golden: Golden, actual: Mapping[str, Any]) -> None:
    """Compare all stored gradients, named "in/<argument>" and "param/<key>".

    Gradients that vanish identically are stored as zeros, and may differ by the noise bound only.
    """
    expected = golden.gradients
    _same_names(golden, actual, expected)
    noise = NOISE_BOUND * max(_largest(g) for g in expected.values())
    for name, want in expected.items():
        blur = SENSITIVITY_FACTOR * golden.sensitivity(f"grad_{name}") * max(_largest(want), noise)
        _compare(golden, name, actual[name], want, max(GRADIENT_BOUND * _largest(want) + noise, blur))


def vjp(golden: Golden, fn: Function, level: int | None = None) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Outputs of `fn(inputs, params) -> {name: array}`, and the gradients whose values are stored."""
    inputs, params = jax.tree.map(jnp.asarray, (golden.inputs, golden.params))
    free = {k: inputs[k] for k in golden.grad_inputs}, {k: params[k] for k in golden.grad_params}

    def run(free_inputs: dict[str, jax.Array], free_params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        outputs = fn(inputs | free_inputs, params | free_params)
        if not isinstance(outputs, dict):  # the only output needs no name
            (name,) = golden.outputs
            outputs = {name: outputs}
        return outputs

    @partial(jax.jit, compiler_options=None if level is None else {"xla_backend_optimization_level": level})
    def with_gradients(*free: dict[str, jax.Array]) -> Any:
        outputs, pullback = jax.vjp(run, *free)
        cotangents = {k: golden.cotangents.get(k, np.zeros(v.shape, v.dtype)) for k, v in outputs.items()}
        return outputs, pullback(jax.tree.map(jnp.asarray, cotangents))

    outputs, (grad_inputs, grad_params) = with_gradients(*free)
    gradients = {f"in/{k}": v for k, v in grad_inputs.items()}
    return outputs, gradients | {f"param/{k}": v for k, v in grad_params.items()}


def check(golden: Golden, fn: Function, *, half: bool = True, level: int | None = None) -> None:
    """Compare every output and every stored gradient of `fn(inputs, params)` with the case.

    `half`: the outputs for inputs in bfloat16, too; not for scores, which are never in less than float32.
    `level`: of the compiler's optimisation, where the one of all tests makes a slow program.
    """
    outputs, gradients = vjp(golden, fn, level)
    check_values(golden, outputs)
    check_gradients(golden, gradients)
    if half:
        check_half(golden, fn)


def check_half(golden: Golden, fn: Function) -> None:
    """With inputs in bfloat16, outputs are in bfloat16 and near the case's."""
    params = jax.tree.map(jnp.asarray, golden.params)
    outputs = jax.jit(fn)({k: jnp.asarray(v, jnp.bfloat16) for k, v in golden.inputs.items()}, params)
    named = outputs if isinstance(outputs, dict) else {next(iter(golden.outputs)): outputs}
    for name, y in named.items():
        if y.dtype != jnp.bfloat16:
            raise AssertionError(f"{golden.name} {name}: expected bfloat16, got {y.dtype}")
        want = golden.outputs[name]
        _compare(golden, name, y.astype(jnp.float32), want, HALF_BOUND * _largest(want))


def _generated(recipe: dict[str, Any]) -> np.ndarray:
    """A parameter too large to store, from numpy's frozen legacy generator."""
    random, shape = np.random.RandomState(recipe["seed"]), recipe["shape"]
    if recipe["dist"] == "uniform":
        return random.uniform(recipe["lo"], recipe["hi"], shape).astype(np.float32)
    return (random.standard_normal(shape) * recipe["scale"] + recipe["shift"]).astype(np.float32)


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0.0))


def _same_names(golden: Golden, actual: Mapping[str, Any], expected: Arrays) -> None:
    if set(actual) != set(expected):
        raise AssertionError(f"{golden.name}: expected arrays {sorted(expected)}, got {sorted(actual)}")


def _compare(golden: Golden, name: str, actual: Any, expected: np.ndarray, bound: float) -> None:
    actual = np.asarray(actual)
    if actual.shape != expected.shape:
        raise AssertionError(f"{golden.name} {name}: expected shape {expected.shape}, got {actual.shape}")
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    if not np.all(error <= bound):  # written so that NaN fails
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        where = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{golden.name} {name}: |error| <= {bound:.3g} expected, got {error[worst]:.3g} at {where} "
            f"({actual[worst]:.7g} for {expected[worst]:.7g})"
        )
