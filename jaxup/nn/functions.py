"""Functions as options of modules: modules that keep them can be pickled, as worker processes need it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class ByName:
    """A function that is pickled by its name: what `jax.jit` returns, as `jax.nn.relu`, has no other form."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the function returns."""
        return self.function(*args, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.function.__module__, self.function.__qualname__)


def by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or `ByName` where it is found by its name."""
    if isinstance(function, partial):
        return partial(by_name(function.func), *function.args, **function.keywords)
    try:
        found = _find(function.__module__, function.__qualname__)
    except (AttributeError, ImportError):  # a local function, or an object with a call
        return function
    return ByName(function) if found is function else function


def _find(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _load(module: str, name: str) -> ByName:
    return ByName(_find(module, name))
