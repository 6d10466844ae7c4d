"""The descriptions of small examples: inputs as functions of a grid, an operator or a module with its options bound."""

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.modules import on_device

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Deterministic random inputs, uniform in `interval`: first images, then tables."""

    images: Callable[[int, int], Sequence[Shape]]  # grid (h, w) -> the shapes without their batch axis
    tables: Sequence[Shape] = ()  # shapes of the inputs that have no batch axis
    interval: tuple[float, float] = (-1.0, 1.0)

    def shapes(self, batch: int, grid: tuple[int, int]) -> list[Shape]:
        """The shapes of all inputs."""
        return [(batch, *s) for s in self.images(*grid)] + list(self.tables)

    def __call__(
        self, batch: int = 4, grid: tuple[int, int] = (3, 4), dtype: Any = jnp.float32
    ) -> tuple[jax.Array, ...]:
        random = np.random.default_rng(0)
        return tuple(on_device(random.uniform(*self.interval, s), dtype) for s in self.shapes(batch, grid))


@dataclass(frozen=True, eq=False)
class Example:
    """A function of arrays with its options bound.

    `scratch` bounds the compiled scratch memory of the call, and of the call with all gradients, as a multiple
    of the bytes of inputs and outputs together, in float32 at a 64 x 64 grid and batch 1.
    """

    name: str
    fn: Callable[..., Any]
    inputs: Inputs
    scratch: tuple[float, float]
    differentiable: tuple[int, ...] | None = None  # positions; None is all
    large: bool = False  # thorough: takes long to compile, and others show the same kinds of things
    nightly: bool = False  # left to the nightly run: a sibling covers nearly the same code


@dataclass(frozen=True, eq=False)
class ModuleExample:
    """A constructor with everything bound but `rngs` (and `dtype`, where the module takes it)."""

    name: str
    build: Callable[..., Any]
    inputs: Inputs
    large: bool = False  # thorough: takes long to compile, and others show the same kinds of things
    nightly: bool = False  # left to the nightly run: a sibling covers nearly the same code

    def takes(self, option: str) -> bool:
        """Whether the constructor has this option."""
        target = getattr(self.build, "func", self.build)
        return option in inspect.signature(target.__init__ if inspect.isclass(target) else target).parameters

    def new(self, **options: Any) -> Any:
        """A new module, always with the same parameters."""
        return self.build(**options, **({"rngs": nnx.Rngs(0)} if self.takes("rngs") else {}))

    def make(self, **options: Any) -> Any:
        """The same, whose parameters are drawn once."""
        return nnx.merge(*_made(self, tuple(options.items())), copy=True)


@cache
def _made(example: ModuleExample, options: tuple[tuple[str, Any], ...]) -> Any:
    return nnx.split(example.new(**dict(options)))


def tiered(examples: Iterable[Any], quick: Collection[Any] | None = None, *, rest: Any = None) -> list[Any]:
    """The examples with the marks that say when they run; of those that do by default only the quick ones, if given.

    `rest`: the mark of all others, if it is not the usual one.
    """
    others = [e for e in examples if e.nightly or e.large or e not in (quick or [e])]
    return [(rest or (slow if e.nightly else thorough))(e) if e in others else e for e in examples]


def slow(value: Any) -> Any:
    """A parameter whose tests are left to the nightly run: they compile again what a sibling already covers."""
    return pytest.param(value, marks=pytest.mark.slow)


def thorough(*values: Any) -> Any:
    """A row of parameters whose tests do not run by default: a cheaper one shows the same kind of thing."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def marked(values: Iterable[Any], quick: Collection[Any], nightly: Collection[Any] = ()) -> list[Any]:
    """Parameters: the quick ones run by default, the nightly ones only by night, and the others are thorough."""
    return [value if value in quick else slow(value) if value in nightly else thorough(value) for value in values]
