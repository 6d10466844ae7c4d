"""Which network."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.models import ReconstructionNetwork
from jaxup.models.resampling import RESAMPLINGS


def has_indices(method: str) -> bool:
    """Whether there are index networks in it, which have options."""
    check_choice("methods", method, RESAMPLINGS)
    return bool(RESAMPLINGS[method].indices)


def build(method: str, widths: Sequence[int], seed: int, **indices: Any) -> ReconstructionNetwork:
    """The network of a way of downsampling and upsampling, with its initial weights."""
    options = indices if has_indices(method) else {}
    return ReconstructionNetwork(method=method, widths=tuple(widths), **options, rngs=nnx.Rngs(seed))
