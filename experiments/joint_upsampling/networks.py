"""Which network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models import DJF, DKN, FDKN, JOINT_PRESETS, AttentionJointNetwork, make_joint_network
from jaxup.ops import resize

Network = AttentionJointNetwork | DJF | DKN | FDKN

DEFORMABLE: Mapping[str, type[DKN] | type[FDKN]] = {"DKN": DKN, "FDKN": FDKN}


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "SA_M2_F32"
    """SA_M1_F8, SA_M1_F16, SA_M1_F32, SA_M2_F32, DJF, DJF+ or DJFScaled+ (Kundu et al., Table I), DKN or FDKN (Kim et
    al.)."""
    widths: tuple[int, int] | None = None
    """Widths of the first two layers of both streams, of DKN and FDKN of the last two; none: the paper's."""
    residual: bool | None = None
    """Let the network predict what to add to the depth itself, upsampled; none: as in the papers, which is true for DKN
    and FDKN and false for the others."""
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

    def build(self, seed: int) -> Network:
        """The network with its initial weights."""
        check_choice("model", self.model, (*JOINT_PRESETS, *DEFORMABLE))
        options: dict[str, Any] = {"widths": self.widths, "residual": self.residual}
        options = {name: value for name, value in options.items() if value is not None}
        if self.model not in DEFORMABLE:
            for name in ("guided", "from_depth", "offsets"):
                if not getattr(self, name):
                    raise InputError(f"{name}: {self.model} cannot do without, only {' and '.join(DEFORMABLE)} can")
            return make_joint_network(self.model, **options, rngs=nnx.Rngs(seed))
        return DEFORMABLE[self.model](
            kernel_size=self.kernel_size,
            window_size=self.window_size,
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
        return self.model + "".join(f" w/o {part}" for part in missing if missing[part])


def upsample(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    """Depth in the size of the guide. Networks without guidance take it enlarged already."""
    if isinstance(network, DKN | FDKN) and network.guide_features is None:
        return network(resize(target, size=guide.shape[1:3], method="bicubic"))
    return network(target, guide)
