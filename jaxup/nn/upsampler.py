"""What is known of an upsampler beside its class: the form of the entries of `jaxup.nn.UPSAMPLERS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxup._checks import Pair, pair


class Scales(NamedTuple):
    """Which scales there are, how an error names them, and how a table does."""

    fits: Callable[[Pair], bool]
    words: str
    short: str


ANY = Scales(lambda scale: True, "an integer >= 1 or a pair", "any")
TWO = Scales(lambda scale: scale == (2, 2), "2", "2")
POWERS = Scales(lambda s: s[0] == s[1] and s[0] > 1 and s[0].bit_count() == 1, "a power of two", "2^n")


def output_size(x: jax.Array, guide: jax.Array, scale: Pair | None, size: int | Pair | None) -> Pair:
    """The size that was asked for; by default `scale` times that of x, or that of the guide."""
    if size is not None:
        return pair("size", size)
    like, (sy, sx) = (guide, (1, 1)) if scale is None else (x, scale)
    return sy * like.shape[1], sx * like.shape[2]


# Guides, and how many channels they have in measurements; None: as many as the map.
GUIDES: Mapping[str, int | None] = {"features": None, "embedding": 16, "image": 3}


@dataclass(frozen=True)
class Upsampler:
    """An entry of `UPSAMPLERS`: all that the factory, the converters, the benchmark, tests and tables know of it.

    Attributes:
        module: the class that `make_upsampler` builds.
        guided: whether it is called `up(x, guide)`: there is a guide.
        paper: where it is described.
        official: the published code and its licence; empty where there is none.
        guide: what the guide is: "features" (of an encoder), "embedding" (narrow features) or "image"; empty: none.
        any_size: whether the guide may have any size.
        allowed: which scales it takes.
        options: of the constructor, which make it what its name says.
        fitted: (in_features, guide_features, scale, options given) -> defaults of further options that fit these.
        multiple: of what `in_features` must be a multiple.
        converter: the file of `jaxup.interop` that reads and writes its official weights; empty where there is none.
        small: options that keep tests small and change no code path.
    """

    module: type[nnx.Module]
    guided: bool = field(init=False)
    paper: str = ""
    official: str = ""
    guide: str = field(default="", repr=False)
    any_size: bool = field(default=False, repr=False)
    allowed: Scales = field(default=ANY, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    fitted: Callable[[int, int, Pair, Mapping[str, Any]], dict[str, Any]] = field(default=lambda *_: {}, repr=False)
    multiple: int = field(default=1, repr=False)
    converter: str = field(default="", repr=False)
    small: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "guided", bool(self.guide))

    @property
    def scales(self) -> str:
        """Which scales it takes, in words."""
        return self.allowed.words

    def guide_channels(self, channels: int) -> int:
        """Channels of the guide where measurements have maps of `channels`."""
        return (GUIDES[self.guide] if self.guided else None) or channels
