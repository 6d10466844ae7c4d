"""What segmentation networks share: dropout that a call asks for."""

import jax
from flax import nnx

from jaxup._checks import fail
from jaxup.models.backbones.layers import dropout


def drop_channels(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """Zero whole channels of an image [B, H, W, C] with a probability, and enlarge the others; none without `rngs`."""
    return dropout(x, rate, rngs, shape=(x.shape[0], 1, 1, x.shape[3]))


def check_rate(name: str, rate: float) -> float:
    """Require a probability below one."""
    if not 0 <= rate < 1:
        fail(name, "a number from 0 to below 1", repr(rate))
    return rate
