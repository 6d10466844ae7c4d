"""Which layers of a plain sequence give the maps of a backbone."""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import jax

from jaxup._checks import fail


def ends(strides: Sequence[int]) -> tuple[int, ...]:
    """The last layer at each resolution."""
    return tuple(i for i, after in enumerate((*strides[1:], 2)) if after > 1)


def tapped(
    taps: Sequence[int] | None, usual: tuple[int, ...], widths: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The taps, and channels and stride at each of them."""
    taps = usual if taps is None else tuple(taps)
    if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] >= len(widths):
        fail("taps", f"increasing numbers from 0 to {len(widths) - 1}", taps)
    totals = list(accumulate(strides, mul))
    return taps, tuple(widths[i] for i in taps), tuple(totals[i] for i in taps)


def collect(layers: Sequence[Any], taps: Sequence[int], x: jax.Array) -> tuple[jax.Array, ...]:
    """The outputs of the tapped layers, in the dtype of x."""
    y, maps = x, []
    for i, layer in enumerate(layers[: taps[-1] + 1]):
        y = layer(y)
        if i in taps:
            maps.append(y.astype(x.dtype))
    return tuple(maps)
