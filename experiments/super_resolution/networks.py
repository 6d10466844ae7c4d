"""Which network."""

from dataclasses import dataclass

from flax import nnx

from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models import SuperResolutionNetwork
from jaxup.nn import UPSAMPLERS


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
    scaled: bool = False
    """Divide the scores of attention by the root of its channels, as Eqs. 1 and 3 do and Eqs. 7 and 12 do not."""
    residual: bool = False
    """Let the network predict what to add to the bicubically enlarged image. Not in the paper."""

    def check(self) -> None:
        """Refuses an unknown upsampler, and options that it does not have."""
        check_choice("upsampler", self.upsampler, [name for name, entry in UPSAMPLERS.items() if not entry.guided])
        for name, upsamplers in (("kernel_size", ("attention", "deconvolution")), ("scaled", ("attention",))):
            if self.upsampler not in upsamplers and getattr(self, name) != getattr(NetworkConfig, name):
                raise InputError(f"{name}: has no effect on {self.upsampler}, only on {' and '.join(upsamplers)}")

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.upsampler + (", scaled" if self.scaled else "")

    def build(self, seed: int) -> SuperResolutionNetwork:
        """The network with its initial weights."""
        self.check()
        return SuperResolutionNetwork(
            scale=self.scale,
            features=self.features,
            upsampler=self.upsampler,
            kernel_size=self.kernel_size,
            scaled=self.scaled,
            residual=self.residual,
            rngs=nnx.Rngs(seed),
        )
