"""Which network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from experiments.joint_upsampling.variants import STREAMS, UnstridedDKN
from jaxup._checks import check_choice, check_int
from jaxup.files import InputError
from jaxup.models import DJF, DKN, DMSG, FDKN, JOINT_PRESETS, AttentionJointNetwork, make_joint_network
from jaxup.ops import resize

Network = AttentionJointNetwork | DJF | DKN | DMSG | FDKN | UnstridedDKN

DEFORMABLE: Mapping[str, type[DKN] | type[FDKN]] = {"DKN": DKN, "FDKN": FDKN}
KERNELS = (*DEFORMABLE, *STREAMS)  # networks that average positions that they learn
_ATTENTION = tuple(name for name in JOINT_PRESETS if name.startswith("SA"))


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "SA_M2_F32"
    """SA_M1_F8, SA_M1_F16, SA_M1_F32, SA_M2_F32, DJF, DJF+ or DJFScaled+ (Kundu et al., Table I), DKN or FDKN (Kim et
    al.), DKN-23, DKN-plain or DKN-dilated (see `variants`), or DMSG (Hui et al.)."""
    scale: int = 8
    """The factor that DMSG is made for."""
    widths: tuple[int, int] | None = None
    """Widths of the first two layers of both streams, of DKN and FDKN of the last two; none: the paper's."""
    residual: bool | None = None
    """Let the network predict what to add to the depth itself, upsampled; none: as in the papers, which is true for DKN
    and FDKN and false for the others. DJF with it is DJFR."""
    scaled: bool = False
    """Divide the scores of the attention networks by the root of their channels, as Eqs. 1 and 3 do and Eqs. 7 and 12
    do not."""
    guided: bool = True
    """Use the RGB image. Only DKN and FDKN can do without."""
    from_depth: bool = True
    """Let the kernels of DKN and FDKN depend on the depth too; false: on the RGB image alone."""
    offsets: bool = True
    """Let DKN and FDKN learn which positions they average; false: k x k neighbouring pixels."""
    kernel_size: int = 3
    """k of DKN and FDKN: they average k x k positions."""
    window_size: int = 15
    """d of DKN and FDKN: the positions lie in a window of d x d pixels."""
    cubic_coefficient: float = -0.75
    """a of the bicubic enlargement inside DKN and FDKN; -0.5 in the official code."""

    def check(self, scales: Sequence[int] = ()) -> None:
        """Refuses an unknown model, options that it does not have, and scales that it cannot do."""
        check_choice("model", self.model, (*JOINT_PRESETS, *KERNELS, "DMSG"))
        if self.model not in DEFORMABLE:
            for name in ("guided", "from_depth", "offsets"):
                if not getattr(self, name):
                    raise InputError(f"{name}: {self.model} cannot do without, only {' and '.join(DEFORMABLE)} can")
        elif not self.offsets:
            self._must_be_default("window_size", only=["networks with offsets"])
        if self.model not in KERNELS:
            self._must_be_default("kernel_size", "window_size", "cubic_coefficient", only=KERNELS)
        if self.model in STREAMS or self.model == "DMSG":
            self._must_be_default("widths", "residual", only=(*JOINT_PRESETS, *DEFORMABLE))
        if self.model not in _ATTENTION:
            self._must_be_default("scaled", only=_ATTENTION)
        if self.model != "DMSG":
            self._must_be_default("scale", only=["DMSG"])
        for scale in scales:
            check_int("scales", scale)
            if self.model in _ATTENTION and (scale < 2 or scale & (scale - 1)):
                raise InputError(f"scales: expected powers of two for {self.model}, got {scale}")
            if self.model == "DMSG" and scale != self.scale:
                raise InputError(f"scales: expected {self.scale}, the scale of this DMSG, got {scale}")

    def _must_be_default(self, *names: str, only: Sequence[str] | Mapping[str, Any]) -> None:
        for name in names:
            if getattr(self, name) != getattr(NetworkConfig, name):
                raise InputError(f"{name}: has no effect on {self.model}, only on {', '.join(only)}")

    def build(self, seed: int) -> Network:
        """The network with its initial weights."""
        self.check()
        kernel: dict[str, Any] = {name: getattr(self, name) for name in ("kernel_size", "window_size")}
        kernel["cubic_coefficient"] = self.cubic_coefficient
        if self.model == "DMSG":
            return DMSG(scale=self.scale, rngs=nnx.Rngs(seed))
        if self.model in STREAMS:
            return UnstridedDKN(self.model, **kernel, rngs=nnx.Rngs(seed))
        options: dict[str, Any] = {"widths": self.widths, "residual": self.residual}
        options = {name: value for name, value in options.items() if value is not None}
        if self.model not in DEFORMABLE:
            options |= {"scaled": True} if self.scaled else {}
            return make_joint_network(self.model, **options, rngs=nnx.Rngs(seed))
        return DEFORMABLE[self.model](
            **kernel,
            guide_features=3 if self.guided else None,
            from_depth=self.from_depth,
            offsets=self.offsets,
            **options,
            rngs=nnx.Rngs(seed),
        )

    @property
    def label(self) -> str:
        """What tables call it."""
        missing = {
            "guide": not self.guided,
            "depth": not self.from_depth,
            "offsets": not self.offsets,
            "residual": self.residual is False and self.model in DEFORMABLE,
        }
        model = self.model.replace("DJF", "DJFR") if self.residual else self.model
        model += ", scaled" if self.scaled else ""
        return model + "".join(f" w/o {part}" for part in missing if missing[part])

    @property
    def published(self) -> str:
        """What `paper` calls it; empty where it is no network of a paper."""
        changed = self.widths is not None or self.kernel_size != 3 or self.window_size != 15
        changed |= bool(self.residual) and self.model in _ATTENTION
        return "" if changed else self.label.removesuffix(", scaled")


def upsample(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    """Depth in the size of the guide. Networks without guidance take it enlarged already."""
    if isinstance(network, DKN | FDKN) and network.guide_features is None:
        size, a = guide.shape[1:3], network.cubic_coefficient
        return network(resize(target, size=size, method="bicubic", cubic_coefficient=a))
    return network(target, guide)
