"""Optimisers as parts of a configuration, where they are embedded as `optimizer`."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
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


def _check(config: "Adam | SGD | Decayed") -> None:
    if config.learning_rate < 0:
        raise InputError(f"learning_rate: expected at least 0, got {config.learning_rate}")
    if config.drop_factor <= 0:
        raise InputError(f"drop_factor: expected a number above 0, got {config.drop_factor}")
    if list(config.drops) != sorted({step for step in config.drops if step > 0}):
        raise InputError(f"drops: expected ascending steps from 1 on, got {config.drops}")


def _schedule(config: "Adam | SGD | Decayed") -> optax.Schedule:
    factor = 1 / config.drop_factor
    return optax.piecewise_constant_schedule(config.learning_rate, dict.fromkeys(config.drops, factor))


@dataclass(frozen=True)
class Decayed:
    """AdamW, Adam or SGD with momentum; its learning rate rises linearly at first and then falls, to 0 or in steps."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """Which."""
    learning_rate: float = 6e-5
    """At its highest."""
    warmup: int = 1500
    """Steps until it is reached; at most a tenth of all steps."""
    power: float = 1.0
    """Then it falls, as the part of the steps that is left to this power."""
    drops: tuple[int, ...] = ()
    """Steps at which it is divided by `drop_factor` in the place of that fall."""
    drop_factor: float = 10.0
    """See `drops`."""
    weight_decay: float = 1e-2
    """Of all kernels: biases, scales and shifts do not decay. Of SGD and Adam it is added to the gradient."""
    momentum: float = 0.9
    """Of SGD."""
    multipliers: tuple[tuple[str, float], ...] = ()
    """Factors of the learning rate by part: names of modules anywhere on the way to a parameter, as backbone; the first
    that fits counts."""

    def __post_init__(self) -> None:
        _check(self)
        for name in ("warmup", "power", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation for so many steps; its learning rate is in the metrics."""
        warmup = min(self.warmup, steps // 10)
        falling = optax.polynomial_schedule(self.learning_rate, 0.0, self.power, steps - warmup)
        if self.drops:
            stepped = _schedule(self)
            falling = lambda step: stepped(step + warmup)  # noqa: E731
        rising = optax.linear_schedule(0.0, self.learning_rate, max(1, warmup))
        schedule = optax.join_schedules([lambda step: rising(step + 1), falling], [warmup])
        if self.kind == "adamw":
            usual = optax.inject_hyperparams(optax.adamw, static_args="mask")(
                learning_rate=schedule, weight_decay=self.weight_decay, mask=_kernels
            )
        else:
            if self.kind == "adam":
                rule = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
            else:
                rule = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule, momentum=self.momentum)
            usual = optax.chain(optax.add_decayed_weights(self.weight_decay, mask=_kernels), rule)
        return optax.chain(usual, optax.stateless(self._scaled)) if self.multipliers else usual

    def _scaled(self, updates: Any, params: Any) -> Any:
        def scaled(path: Any, update: jax.Array) -> jax.Array:
            parts = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
            factor = next((factor for name, factor in self.multipliers if name in parts), 1.0)
            return update * jnp.asarray(factor, update.dtype)

        return jax.tree.map_with_path(scaled, updates)


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)
