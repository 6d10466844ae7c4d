"""Comparison with golden vectors of the reference implementations, within the bounds that their README states.

In tests:      @pytest.mark.parametrize("case", goldens.cases("carafe/pack__*"))
               def test_golden(case):
                   goldens.check(goldens.load(case))       # skips where the folder is absent
As a command:  python -m tests.goldens FOLDER [NAME ...]   every case below FOLDER, or those of the operators or cases
               (operator/case) NAME; the last line counts them, and the exit status is 1 where one failed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden_bounds import (
    HALF_BOUND,
    check_gradients,
    check_values,
    compare,
    different,
    different_gradients,
    require,
)
from tests.golden_cases import DOUBLE, ON_HOST, OPERATORS, OPTIMISED, SCORES
from tests.golden_files import Arrays, Golden, load, read, shared
from tests.registry.examples import marked

__all__ = [
    "Golden",
    "cases",
    "check",
    "check_gradients",
    "check_half",
    "check_values",
    "compiled",
    "load",
    "main",
    "read",
    "shared",
]

Function = Callable[[dict[str, jax.Array], dict[str, jax.Array]], Any]


def cases(pattern: str, quick: Collection[str] | None = None) -> list[Any]:
    """The names of the cases "<operator>/<case>" that match; one that skips where the folder is absent.

    `quick`: the cases that run by default, without their folder; the others are marked `thorough`.
    """
    try:
        found = names(shared("goldens"), pattern)
    except pytest.skip.Exception:
        return ["no/folder"]
    return found if quick is None else marked(found, [case for case in found if Path(case).name in quick])


def names(folder: Path, pattern: str = "**/*") -> list[str]:
    """The cases below a folder. Files of official weights without results are none."""
    return [
        str(path.relative_to(folder).with_suffix(""))
        for path in sorted(folder.glob(f"{pattern}.npz"))
        if not path.name.startswith("weights_")
    ]


def check(golden: Golden, fn: Function | None = None, *, half: bool | None = None) -> None:
    """Compare every output and every stored gradient of `fn(inputs, params)` with the case.

    `fn`: the function of the case's operator in `golden_cases`, if it is not given.
    `half`: the outputs for inputs in bfloat16, too; by default, but for scores, which are never in less than float32.
    """
    fn = function(golden) if fn is None else fn
    require(problems(golden, fn))
    if half if half is not None else golden.meta.get("operator") not in SCORES:
        check_half(golden, fn)


def function(golden: Golden) -> Function:
    """What the table has for the case's operator, in the case's configuration; under x64, layers compute in float64."""
    operator = OPERATORS[golden.meta["operator"]]

    def run(inputs: dict[str, jax.Array], params: dict[str, jax.Array]) -> Any:
        double = {"dtype": jnp.float64} if jnp.zeros(()).dtype == jnp.float64 else {}
        return operator(inputs, params, golden.config | double)

    return run


def problems(golden: Golden, fn: Function) -> list[str]:
    """Every array of `fn(inputs, params)` that is further from the case's than the bounds allow.

    Where the input of a rectifier is within rounding of zero, its sign in float32, and with it the gradient, differs
    from processor to processor, and behind batch statistics by per cents. So gradients that are not within the bounds
    of float32 are compared once more in float64, where all has to be within the much narrower bounds that hold there.
    """
    if golden.config.get("mode") == "train" and golden.meta.get("operator") in DOUBLE:
        return _problems_in_double(golden, fn)
    outputs, gradients, statistics = compiled(golden, fn)(golden.inputs)
    values = [*different(golden, outputs, "out"), *different(golden, statistics, "out_state")]
    found = list(different_gradients(golden, gradients))
    if found and not values and not _problems_in_double(golden, fn):
        return []
    return values + found


def _problems_in_double(golden: Golden, fn: Function) -> list[str]:
    """In float64 there is one gradient. Flax takes statistics into their own type, so promotion is not strict here."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, inputs, cotangents = (
            {k: np.float64(x) if x.dtype == np.float32 else x for k, x in arrays.items()}
            for arrays in (golden.params, golden.inputs, golden.cotangents)
        )
        golden = replace(golden, params=params, inputs=inputs, cotangents=cotangents, double=True)
        outputs, gradients, statistics = compiled(golden, fn)(inputs)
    return [
        *different(golden, outputs, "out"),
        *different(golden, statistics, "out_state"),
        *different_gradients(golden, gradients),
    ]


def compiled(golden: Golden, fn: Function) -> Callable[[Arrays], tuple[Any, Any, Any]]:
    """From the inputs to outputs, the gradients whose values are stored, and statistics after a training step."""
    if golden.meta.get("operator") in ON_HOST:
        return lambda inputs: _on_host(golden, fn(inputs, golden.params))
    params = jax.device_put(golden.params)

    def loss(free_inputs: Any, free_params: Any, inputs: Any, params: Any) -> tuple[Any, Any]:
        result = fn(inputs | free_inputs, params | free_params)
        outputs, statistics = result if isinstance(result, tuple) else (result, {})
        outputs = _named(golden, outputs)
        statistics = {k: x for k, x in statistics.items() if k in golden.out_state}  # of networks, files hold a few
        fitting = {k: c for k, c in golden.cotangents.items() if k in outputs and outputs[k].shape == c.shape}
        weighted = [jnp.vdot(outputs[k], jnp.asarray(c, outputs[k].dtype)) for k, c in fitting.items()]
        return sum(weighted, jnp.zeros(())), (outputs, statistics)

    optimised = golden.meta.get("operator") in OPTIMISED
    options = {"xla_backend_optimization_level": 1} if optimised else None

    @partial(jax.jit, compiler_options=options)
    def with_gradients(inputs: Any, params: Any) -> tuple[Any, Any, Any]:
        free = {k: inputs[k] for k in golden.grad_inputs}, {k: params[k] for k in golden.grad_params}
        if not golden.gradients:
            outputs, statistics = loss(*free, inputs, params)[1]
            return outputs, {}, statistics
        gradients, (outputs, statistics) = jax.grad(loss, (0, 1), has_aux=True)(*free, inputs, params)
        named = {
            f"{kind}/{k}": v for kind, part in zip(("in", "param"), gradients, strict=True) for k, v in part.items()
        }
        return outputs, named, statistics

    # The parameters are an argument: the compiler would compute with constants, slowly.
    return lambda inputs: with_gradients(inputs, params)


def _on_host(golden: Golden, result: Any) -> tuple[Any, Any, Any]:
    """Functions that find gradients themselves return a pair."""
    outputs, gradients = result if isinstance(result, tuple) else (result, {})
    return _asked(golden, outputs), {name: g for name, g in gradients.items() if name in golden.gradients}, {}


def _asked(golden: Golden, outputs: dict[str, Any]) -> dict[str, Any]:
    """Without what the case did not store, of functions that return a result for every option."""
    return {name: y for name, y in outputs.items() if name in golden.outputs}


def check_half(golden: Golden, fn: Function) -> None:
    """With inputs in bfloat16, outputs are in bfloat16 and near the case's."""
    inputs = {k: np.asarray(v).astype(jnp.bfloat16) for k, v in golden.inputs.items()}
    result = jax.jit(fn)(inputs, jax.device_put(golden.params))
    outputs = _named(golden, result[0] if isinstance(result, tuple) else result)
    for name, y in outputs.items():
        if inputs and y.dtype != jnp.bfloat16:
            raise AssertionError(f"{golden.name} {name}: expected bfloat16, got {y.dtype}")
        want = golden.outputs[name]
        bound = HALF_BOUND * golden.largest(f"out/{name}", want)
        require(compare(golden, f"out/{name}", np.asarray(y, np.float32), want, bound))


def _named(golden: Golden, outputs: Any) -> dict[str, Any]:
    """The only output needs no name."""
    return outputs if isinstance(outputs, dict) else dict.fromkeys(golden.outputs, outputs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.goldens", description="Check a folder of golden vectors.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="an operator's folder, or operator/case")
    options = parser.parse_args(arguments)
    wanted = [name.rstrip("/").removesuffix(".npz") for name in options.names]
    found = names(options.folder)
    missing = [name for name in wanted if not any(_below(case, name) for case in found)]
    if missing or not found:
        print(f"{options.folder}: expected a folder of golden vectors{_of(missing)}, found none", file=sys.stderr)
        return 2
    counts, unknown = Counter[str](), Counter[str]()
    for case in found:
        if not wanted or any(_below(case, name) for name in wanted):
            counts[_verdict(options.folder, case, unknown)] += 1
    for operator, number in sorted(unknown.items()):
        print(f"unknown: {operator} ({number} {'case' if number == 1 else 'cases'})")
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("passed", "failed", "unknown")))
    return 1 if counts["failed"] else 0


def _below(case: str, name: str) -> bool:
    return case == name or case.startswith(f"{name}/")


def _of(missing: list[str]) -> str:
    return f" with {', '.join(missing)}" if missing else ""


def _verdict(folder: Path, case: str, unknown: Counter[str]) -> str:
    """Checks one case, prints what is wrong with it, and counts the operator if the table does not have it."""
    try:
        operator = str(read(folder, case, generate=()).meta.get("operator"))
        if operator not in OPERATORS:
            unknown[operator] += 1
            return "unknown"
        golden = read(folder, case)
        found = problems(golden, function(golden))
    except pytest.skip.Exception as reason:  # it needs a folder that is not there
        unknown[f"{operator}: {reason}"] += 1
        return "unknown"
    except Exception as error:  # whatever a case raises is its own failure
        found = [f"{case}: {type(error).__name__}: {error}"]
    for problem in found:
        print(f"FAILED {problem}", flush=True)
    return "failed" if found else "passed"


if __name__ == "__main__":
    sys.exit(main())
