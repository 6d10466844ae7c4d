"""Networks as they are trained: with the source of what their dropout draws, and with norms that stay as they are."""

from typing import Any

import jax
from flax import nnx


class Trained(nnx.Module):
    """A network with the source of what its dropout draws, which is part of checkpoints.

    Args:
        network: `network(x, rngs=)`, and `network.outputs(x, rngs=)` where it has further ones.
        seed: of the dropout.
        fixed: names of its parts whose norms keep their statistics in training.
    """

    def __init__(self, network: Any, seed: int, fixed: tuple[str, ...] = ()):
        self.network, self.random, self.fixed = network, nnx.Rngs(seed), fixed

    def __call__(self, x: jax.Array) -> jax.Array:
        """What it makes, with nothing dropped."""
        return self.network(x)

    def dropped(self, x: jax.Array) -> jax.Array:
        """The same, with dropout."""
        return self.network(x, rngs=self.random)

    def outputs(self, x: jax.Array) -> dict[str, Any]:
        """All its outputs, with dropout."""
        return self.network.outputs(x, rngs=self.random)

    def train(self, **attributes: Any) -> None:
        """Training mode, but for norms that are fixed."""
        super().train(**attributes)
        for part in self.fixed:
            getattr(self.network, part).eval()
