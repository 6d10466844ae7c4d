"""Which network."""

from collections.abc import Sequence

from flax import nnx

from jaxup.models import ReconstructionNetwork


def build(method: str, widths: Sequence[int], seed: int) -> ReconstructionNetwork:
    """The network of a way of downsampling and upsampling, with its initial weights."""
    return ReconstructionNetwork(method=method, widths=tuple(widths), rngs=nnx.Rngs(seed))
