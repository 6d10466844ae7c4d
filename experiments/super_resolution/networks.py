"""Which network."""

from dataclasses import dataclass

from flax import nnx

from jaxup.models import SuperResolutionNetwork


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    upsampler: str = "attention"
    """attention or deconvolution, which the paper compares, or another upsampler without a guide: pixel_shuffle,
    carafe, dysample, bilinear, bicubic, nearest."""
    scale: int = 2
    """2, 4 or 8."""
    features: int = 128
    """Channels of all layers."""
    kernel_size: int = 5
    """K of attention and deconvolution."""
    residual: bool = False
    """Let the network predict what to add to the bicubically enlarged image. Not in the paper."""

    def build(self, seed: int) -> SuperResolutionNetwork:
        """The network with its initial weights."""
        return SuperResolutionNetwork(
            scale=self.scale,
            features=self.features,
            upsampler=self.upsampler,
            kernel_size=self.kernel_size,
            residual=self.residual,
            rngs=nnx.Rngs(seed),
        )
