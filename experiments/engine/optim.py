"""Optimisers as parts of a configuration, where they are embedded as `optimizer`."""

from dataclasses import dataclass

import optax

from jaxup.files import InputError


@dataclass(frozen=True)
class Adam:
    """Adam, with a learning rate that falls in steps."""

    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by `drop_factor`."""
    drop_factor: float = 10.0
    """See `drops`."""

    def __post_init__(self) -> None:
        _check(self)

    def build(self) -> optax.GradientTransformation:
        """The transformation; its learning rate is in the metrics."""
        return optax.inject_hyperparams(optax.adam)(learning_rate=_schedule(self))


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, and a learning rate that falls in steps."""

    learning_rate: float = 1e-2
    """At the start."""
    momentum: float = 0.9
    """Share of the last update in the next."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is divided by `drop_factor`."""
    drop_factor: float = 10.0
    """See `drops`."""

    def __post_init__(self) -> None:
        _check(self)

    def build(self) -> optax.GradientTransformation:
        """The transformation; its learning rate is in the metrics."""
        return optax.inject_hyperparams(optax.sgd)(learning_rate=_schedule(self), momentum=self.momentum)


def _check(config: Adam | SGD) -> None:
    if config.learning_rate < 0:
        raise InputError(f"learning_rate: expected at least 0, got {config.learning_rate}")
    if config.drop_factor <= 0:
        raise InputError(f"drop_factor: expected a number above 0, got {config.drop_factor}")
    if list(config.drops) != sorted({step for step in config.drops if step > 0}):
        raise InputError(f"drops: expected ascending steps from 1 on, got {config.drops}")


def _schedule(config: Adam | SGD) -> optax.Schedule:
    factor = 1 / config.drop_factor
    return optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, factor))
