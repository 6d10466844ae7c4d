"""Initial values of `flax.nnx.initializers`, bit for bit, without a compilation for every shape.

Element i of an array that JAX draws depends on the key and on i alone. So a long row is drawn, of one of two lengths,
and its beginning is put into shape: two compiled programs serve a whole network, which else has dozens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["normal", "truncated_normal", "uniform"]

_LENGTHS = (2**16, 2**20)
_TRUNCATED = 0.87962566103423978  # the deviation of a standard normal value between -2 and 2


@dataclass(frozen=True)
class _Scaled:
    """Draws of a distribution times a factor that depends on the shape; equal where its fields are."""

    distribution: Distribution
    scale: float
    mode: Mode | None = None
    """Of `variance_scaling`; None: the factor is `scale`, whatever the shape."""

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None) -> Any:
        """[*shape]; float32 arrays outside of traces as rows, others as Flax draws them."""
        count = math.prod(shape)
        config: Any = jax.config  # which has no types
        plain = isinstance(key, jax.core.Tracer) or out_sharding is not None or dtype != jnp.float32
        if plain or not 0 < count <= _LENGTHS[-1] or not config.jax_threefry_partitionable:
            return self._flax()(key, shape, dtype, out_sharding)
        row = np.asarray(self._row(key, next(n for n in _LENGTHS if count <= n)))
        return jax.device_put(row[:count].reshape(shape) * self._factor(shape))

    def _row(self, key: jax.Array, length: int) -> jax.Array:
        if self.distribution == "truncated_normal":
            bound = 2.0 if self.mode is None else 2  # which the last bit depends on
            return jax.random.truncated_normal(key, -bound, bound, (length,), jnp.float32)
        if self.distribution == "uniform":
            return jax.random.uniform(key, (length,), jnp.float32, -1)
        return jax.random.normal(key, (length,), jnp.float32)

    def _factor(self, shape: Sequence[int]) -> np.float32:
        if self.mode is None:
            return np.float32(self.scale)
        pixels = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * pixels, shape[-1] * pixels
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        variance = np.float32(self.scale / fans[self.mode])
        if self.distribution == "uniform":
            return np.float32(np.sqrt(np.float32(3) * variance))
        return np.float32(np.sqrt(variance) / np.float32(1 if self.distribution == "normal" else _TRUNCATED))

    def _flax(self) -> Callable[..., jax.Array]:
        if self.mode is not None:
            return nnx.initializers.variance_scaling(self.scale, self.mode, self.distribution)
        of = nnx.initializers.normal if self.distribution == "normal" else nnx.initializers.truncated_normal
        return of(self.scale)


def normal(stddev: float) -> nnx.Initializer:
    """Normal values of this deviation."""
    return _Scaled("normal", stddev)


def truncated_normal(stddev: float) -> nnx.Initializer:
    """Normal values of this deviation, of which those beyond two of them are drawn again."""
    return _Scaled("truncated_normal", stddev)


def variance_scaling(scale: float, mode: Mode, distribution: Distribution) -> nnx.Initializer:
    """Values of the variance scale / fan; mode: "fan_in", "fan_out", "fan_avg"; normal, truncated_normal or uniform."""
    return _Scaled(distribution, scale, mode)


def xavier_uniform() -> nnx.Initializer:
    """Uniform, of the variance 2 / (fan-in + fan-out)."""
    return variance_scaling(1.0, "fan_avg", "uniform")


def he_normal() -> nnx.Initializer:
    """Truncated normal, of the variance 2 / fan-in."""
    return variance_scaling(2.0, "fan_in", "truncated_normal")


def lecun_normal() -> nnx.Initializer:
    """Truncated normal, of the variance 1 / fan-in; the default of Flax."""
    return variance_scaling(1.0, "fan_in", "truncated_normal")
