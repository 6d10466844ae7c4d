"""What upsamplers inside of a network are given and make of it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
from flax import nnx

from experiments.engine.runs import jitted
from jaxup.models.segmentation import Upsampling

Call = tuple[Any, tuple[Any, ...], Any]  # a module, its arguments, and its result


class Seen(NamedTuple):
    """What an upsampler of a network was given and made of it, the one with the largest factor."""

    before: jax.Array
    """[1, h, w, C]."""
    after: jax.Array
    """[1, H, W, C]."""
    weights: dict[str, jax.Array]
    """[1, H', W', n] of its last step: its scores, if it has some, and its kernels, the mean over their groups."""


def observe(network: nnx.Module, image: jax.Array) -> Seen | None:
    """What the upsampler with the largest factor in a network sees of an image; None where there is none."""
    return jitted(network, _observe)(image) if _all(network, Upsampling) else None


def _observe(network: Any, image: jax.Array) -> Seen:
    steps = {type(module) for module in _all(network, nnx.Module) if _has_kernels(type(module))}
    with _noted(Upsampling, *steps) as calls:
        network(image)
    places = [call for call in calls if isinstance(call[0], Upsampling)]
    place, (x, *_), result = max(places, key=lambda call: call[2].shape[1] / call[1][0].shape[1])
    inside = {id(module) for module in _all(place, nnx.Module)}
    last = [call for call in calls if id(call[0]) in inside and call[0] is not place][-1:]
    return Seen(x, result, _weights(*last[0][:2]) if last else {})


def _weights(module: Any, arguments: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
    """Scores and kernels of a module that was called with x, or with x and a guide."""
    given = dict(zip(("x", "guide"), arguments, strict=False))

    def call(method: Callable[..., Any]) -> Any:
        return method(**{name: given[name] for name in inspect.signature(method).parameters})

    kernels = call(module.kernels)
    scores = call(module.scores) if hasattr(module, "scores") else {}
    return {**scores, "kernel": kernels.mean(axis=3) if kernels.ndim == 5 else kernels}


@contextmanager
def _noted(*kinds: type) -> Iterator[list[Call]]:
    """A list of all calls of modules of some classes: the module, its arguments, and its result."""
    calls: list[Call] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # networks look at the signatures of upsamplers
        def call(module: Any, *arguments: Any, **options: Any) -> Any:
            result = function(module, *arguments, **options)
            calls.append((module, arguments, result))
            return result

        return call

    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(patch.object(kind, "__call__", noting(kind.__call__)))
        yield calls


def _all(network: nnx.Module, kind: type) -> list[Any]:
    return [module for _, module in nnx.iter_modules(network) if isinstance(module, kind)]


def _has_kernels(kind: type) -> bool:
    method = getattr(kind, "kernels", None)
    return method is not None and set(inspect.signature(method).parameters) <= {"self", "x", "guide"}
