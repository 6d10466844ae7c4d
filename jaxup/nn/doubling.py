"""Doubling again and again: the form in which papers use x2 upsamplers for larger factors."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from flax import nnx

from jaxup._checks import check_power_of_two, check_shape
from jaxup.ops.resize import resize


def doubled(steps: Iterable[Any], x: jax.Array, guide: jax.Array | None = None) -> jax.Array:
    """One x2 upsampler after the other, each under the guide as large as its result, if there is a guide."""
    for step in steps:
        size = (2 * x.shape[1], 2 * x.shape[2])
        x = step(x) if guide is None else step(x, resize(guide, size=size, method="area"))
    return x


class Iterated(nnx.Module):
    """Doubling again and again: the form in which papers use x2 upsamplers for larger factors.

        y_0 = x,    y_n = up_n(y_{n-1}),  or  up_n(y_{n-1}, area(guide to twice the size of y_{n-1}))

    Args:
        build: makes one x2 upsampler from `rngs`.
        scale: 2^N.
        rngs: source of the initial parameters of all N.

    Returns:
        `module(x)` or `module(x, guide)`: as the upsamplers, `scale` times as large.

    Raises:
        ValueError: a scale that is no power of two, or a guide of another size.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jaxup.nn import CARAFE
        >>> up = Iterated(build=lambda rngs: CARAFE(8, scale=2, rngs=rngs), scale=4, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 5, 6, 8))).shape
        (1, 20, 24, 8)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler, 2024, Sec. 5, iterates the upsamplers that it is compared
        with; Fu et al., FeatUp, ICLR 2024, stacks JBU.
    """

    def __init__(self, *, build: Callable[..., nnx.Module], scale: int, rngs: nnx.Rngs):
        doublings = check_power_of_two("scale", scale)
        self.scale = scale
        self.steps = nnx.List([build(rngs=rngs) for _ in range(doublings)])

    def __call__(self, x: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Enlarge x, under the guide if there is one."""
        if guide is not None:
            check_shape("guide", guide, (x.shape[0], self.scale * x.shape[1], self.scale * x.shape[2], None))
        return doubled(self.steps, x, guide)
