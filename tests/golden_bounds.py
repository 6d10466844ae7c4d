"""The bounds within which results equal those of a golden case, as the README of the golden vectors states them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.golden_files import FIELDS, Arrays, Golden

VALUE_BOUND = 1e-5  # of the largest magnitude of the array
GRADIENT_BOUND = 1e-4  # likewise
NOISE_BOUND = 1e-6  # of the largest gradient entry of the whole case, G
DOUBLE_BOUND = 2e-6  # of the largest magnitude, values and gradients in float64, which the files hold in float32
DOUBLE_NOISE = 1e-9  # of G, for gradients in float64
HALF_BOUND = 2e-2  # of the largest magnitude, for inputs in bfloat16
SENSITIVITY_FACTOR = 10  # a case that float32 itself blurs by e is compared with 10 e


def check_values(golden: Golden, actual: Mapping[str, Any], kind: str = "out") -> None:
    """Compare all arrays of one kind ("out", "out_state", "mid", "alt"), given as {name: array}."""
    require(different(golden, actual, kind))


def check_gradients(golden: Golden, actual: Mapping[str, Any]) -> None:
    """Compare all stored gradients, named "in/<argument>" and "param/<key>"."""
    require(different_gradients(golden, actual))


def different(golden: Golden, actual: Mapping[str, Any], kind: str) -> Iterator[str]:
    """What is wrong with the arrays of one kind."""
    expected: Arrays = getattr(golden, FIELDS[kind])
    yield from _other_names(golden, actual, expected)
    for name in expected.keys() & actual.keys():
        key, want = f"{kind}/{name}", expected[name]
        relative = max(VALUE_BOUND, SENSITIVITY_FACTOR * golden.sensitivity(key))
        bound = (DOUBLE_BOUND if golden.double else relative) * golden.largest(key, want)
        yield from compare(golden, key, actual[name], want, bound)


def different_gradients(golden: Golden, actual: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the gradients; those that vanish identically are zeros and may differ by the noise bound."""
    expected = golden.gradients
    yield from _other_names(golden, actual, expected)
    largest = {name: golden.largest(f"grad_{name}", want) for name, want in expected.items()}
    noise = (DOUBLE_NOISE if golden.double else NOISE_BOUND) * golden.meta.get(
        "grad_max", max(largest.values(), default=0.0)
    )
    for name in expected.keys() & actual.keys():
        blur = SENSITIVITY_FACTOR * golden.sensitivity(f"grad_{name}") * max(largest[name], noise)
        bound = max(GRADIENT_BOUND * largest[name] + noise, blur)
        if golden.double:
            bound = DOUBLE_BOUND * largest[name] + noise
        yield from compare(golden, f"grad_{name}", actual[name], expected[name], bound)


def _other_names(golden: Golden, actual: Mapping[str, Any], expected: Arrays) -> Iterator[str]:
    if set(actual) != set(expected):
        yield f"{golden.name}: expected arrays {sorted(expected)}, got {sorted(actual)}"


def compare(golden: Golden, key: str, actual: Any, expected: np.ndarray, bound: float) -> Iterator[str]:
    actual, shape = np.asarray(actual), golden.shape(key, expected)
    if actual.shape != shape:
        yield f"{golden.name} {key}: expected shape {shape}, got {actual.shape}"
        return
    actual = golden.stored(key, actual)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    same = (np.isnan(expected) & np.isnan(actual)) | (expected == actual)  # infinity too
    error = np.where(same, 0, error)
    if not np.all(error <= bound):  # written so that NaN fails
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        where = tuple(int(i) for i in worst)
        yield (
            f"{golden.name} {key}: |error| <= {bound:.3g} expected, got {error[worst]:.3g} at {where} "
            f"({actual[worst]:.7g} for {expected[worst]:.7g})"
        )


def require(found: list[str] | Iterator[str]) -> None:
    found = list(found)
    if found:
        raise AssertionError("\n".join(found))
