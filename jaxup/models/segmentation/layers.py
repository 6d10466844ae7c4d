"""What segmentation networks share: dropout that a call asks for."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import fail


def dropout(x: jax.Array, rate: float, rngs: nnx.Rngs | None, *, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Zero entries with a probability, and enlarge the others; none without `rngs`.

    Entries whose places in `shape`, by default that of x, are the same share their fate.
    """
    if rngs is None or rate == 0:
        return x
    kept = jax.random.bernoulli(rngs.dropout(), 1 - rate, x.shape if shape is None else shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def drop_channels(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """Zero whole channels of an image [B, H, W, C] with a probability, and enlarge the others; none without `rngs`."""
    return dropout(x, rate, rngs, shape=(x.shape[0], 1, 1, x.shape[3]))


def check_rate(name: str, rate: float) -> float:
    """Require a probability below one."""
    if not 0 <= rate < 1:
        fail(name, "a number from 0 to below 1", repr(rate))
    return rate
