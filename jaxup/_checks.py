"""Argument checks at trace time: a `ValueError` that names the argument, what was expected and what came."""

import functools
import math
import operator
import warnings
from collections.abc import Callable, Collection
from typing import Any, NoReturn, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[int, int]
Ratio = float | tuple[float, float]
F = TypeVar("F", bound=Callable[..., Any])


def fail(name: str, expected: str, actual: object) -> NoReturn:
    """Raise the one error message of the library."""
    raise ValueError(f"{name}: expected {expected}, got {actual}")


def renamed(old: str, new: str) -> Callable[[F], F]:
    """Let a function take an argument by the name that it had before, with a warning."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if old in options and new not in options:
                message = f"{function.__name__}: the argument {old} is now called {new}"
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                options[new] = options.pop(old)
            return function(*args, **options)

        return cast(F, call)

    return decorate


def jit(
    *, static_argnums: int | tuple[int, ...] | None = None, static_argnames: str | tuple[str, ...] | None = None
) -> Callable[[F], F]:
    """`jax.jit` as a decorator that keeps the types of a function."""

    def decorate(function: F) -> F:
        return cast(F, jax.jit(function, static_argnums=static_argnums, static_argnames=static_argnames))

    return decorate


def check_array(name: str, x: Any) -> None:
    """Require what JAX takes as an array: no list, no objects, and numbers in the byte order of the machine."""
    try:
        jax.typeof(x)
    except TypeError:
        fail(name, "an array of numbers in native byte order", f"{type(x).__name__} {getattr(x, 'dtype', '')}".strip())


def check_rank(name: str, x: jax.Array, ndim: int, layout: str = "") -> None:
    """Require `x.ndim == ndim`; `layout` names the axes, as in "[B, H, W, C]"."""
    check_array(name, x)
    if jnp.ndim(x) != ndim:
        fail(name, f"{ndim} axes {layout}".strip(), f"shape {jnp.shape(x)}")


def check_float(name: str, x: jax.Array) -> None:
    """Require a real floating-point type."""
    check_array(name, x)
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        fail(name, "a floating-point type", jnp.result_type(x))


def check_image(name: str, x: jax.Array) -> None:
    """Require a floating-point array [B, H, W, C] with at least one pixel; a batch may be empty."""
    check_rank(name, x, 4, "[B, H, W, C]")
    check_float(name, x)
    if 0 in x.shape[1:3]:
        fail(name, "at least one pixel", f"shape {x.shape}")


def known(size: Any, otherwise: int = 1) -> int:
    """A size, or `otherwise` where it is a symbol of `jax.export`: for choices that bound memory, not for shapes."""
    return size if isinstance(size, int) else otherwise


def check_known_size(name: str, x: jax.Array) -> None:
    """Require a height and width that are numbers: tables are made from them while tracing."""
    if not all(isinstance(n, int) for n in x.shape[1:3]):
        fail(
            name, "a height and width that are known while tracing (only the batch may be symbolic)", f"shape {x.shape}"
        )


def check_shape(name: str, x: jax.Array, expected: tuple[int | None, ...]) -> None:
    """Require a shape; None stands for any length."""
    check_array(name, x)
    shape = jnp.shape(x)
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("*" if e is None else str(e) for e in expected)
        fail(name, f"shape ({wanted})", f"shape {shape}")


def check_features(name: str, x: jax.Array, features: int) -> None:
    """Require a floating array [B, H, W, features]."""
    check_image(name, x)
    check_shape(name, x, (None, None, None, features))


def check_int(name: str, value: Any, minimum: int = 1) -> int:
    """Require an integer of at least `minimum` and return it."""
    try:
        number = minimum - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:  # no integer, or an array of several, or a traced one
        number = minimum - 1
    if number < minimum:
        fail(name, f"an integer >= {minimum}", repr(value))
    return number


def check_odd(name: str, value: Any) -> int:
    """Require an odd positive integer and return it."""
    if check_int(name, value) % 2 == 0:
        fail(name, "an odd integer", repr(value))
    return int(value)


def check_power_of_two(name: str, value: Any) -> int:
    """Require 2, 4, 8, ... and return its exponent."""
    exponent = check_int(name, value, 2).bit_length() - 1
    if value != 2**exponent:
        fail(name, "a power of two", value)
    return exponent


def check_positive(name: str, value: float) -> None:
    """Require a static number greater than zero; traced values pass unchecked."""
    if isinstance(value, jax.core.Tracer):
        return
    if not (isinstance(value, int | float) or np.ndim(value) == 0) or isinstance(value, str) or not value > 0:
        fail(name, "a number > 0", repr(value))


def check_divides(name: str, divisor: int, what: str, total: int) -> None:
    """Require `total` to be a multiple of `divisor`."""
    if total % divisor:
        fail(name, f"a divisor of {what} = {total}", divisor)


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Require one of `allowed`."""
    if value not in allowed:
        fail(name, "one of " + ", ".join(repr(a) for a in allowed), repr(value))


def pair(name: str, value: Any, minimum: int = 1) -> Pair:
    """An integer, or a pair of integers (vertical, horizontal), as a pair."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple):
        if len(value) != 2:
            fail(name, "an integer or a pair of integers", repr(value))
        return check_int(name, value[0], minimum), check_int(name, value[1], minimum)
    return check_int(name, value, minimum), check_int(name, value, minimum)


def ratio(name: str, value: Any) -> tuple[float, float]:
    """A number >= 1, or a pair of them (vertical, horizontal), as a pair; what is an integer stays one."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    values = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(values) != 2:
        fail(name, "a number or a pair of numbers", repr(value))
    for v in values:
        number = isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool)
        if not (number and math.isfinite(v) and v >= 1):
            fail(name, "a number >= 1", repr(v))
    first, second = (int(v) if hasattr(v, "__index__") else float(v) for v in values)
    return first, second


def accum_dtype(*xs: jax.Array) -> jnp.dtype:
    """The dtype for sums and scores: float32 for 16-bit inputs, float64 as soon as one input is float64."""
    return jnp.dtype("float64" if any(jnp.result_type(x) == jnp.float64 for x in xs) else "float32")
