"""Which network, and which pairs: the options that training, evaluation and demo share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from flax import nnx

from experiments.data import (
    HELD_OUT_SEED,
    First,
    Motorcycle,
    NYUDepthV2,
    PairFolder,
    Pairs,
    Scenes,
    Source,
    by_family,
    data_dir,
    lu,
    middlebury,
    sintel,
)
from experiments.errors import InputError
from jaxup._checks import check_choice
from jaxup.models import DJF, DKN, FDKN, JOINT_PRESETS, AttentionJointNetwork, make_joint_network
from jaxup.ops import resize

SourceName = Literal["scenes", "nyu", "middlebury", "lu", "sintel", "pairs", "motorcycle"]
Protocol = Literal["grid", "bicubic", "noise"]
Network = AttentionJointNetwork | DJF | DKN | FDKN

PAIRS: Mapping[str, Callable[[Path], Pairs | PairFolder]] = {"pairs": PairFolder, "middlebury": middlebury, "lu": lu}
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


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and how their low-resolution depth is made."""

    source: SourceName = "scenes"
    """Generated scenes, NYU Depth v2 (1000 pairs to train, 449 to test), Middlebury 2001 to 2006, Lu et al., MPI Sintel
    (864 frames to test), a folder of pairs, or the one real pair of scikit-image."""
    data_dir: Path | None = None
    """Folder of the pairs, of nyu_depth_v2_labeled.mat, or of the unpacked set. None: the environment variable
    JAXUP_DATA."""
    held_out: int = 0
    """Of the sources pairs, middlebury and lu, test on one scene in this many and train on the others; 0: on all."""
    scales: tuple[int, ...] = (8,)
    """Factors; where there are several, batches alternate between them. Powers of two."""
    protocol: Protocol = "grid"
    """Low-resolution depth: every s-th pixel (the attention paper, DJF), or bicubic downsampling (DKN); or, with the
    factor 1, depth in full resolution with noise of variance 0.005 on a scale of 0 to 1."""
    pairs: int | None = None
    """Train on this many pairs, the first ones; none: on all."""
    scenes: int = 512
    """Number of generated scenes."""
    scene_size: int = 128
    """Their height and width in pixels."""

    def open(self, split: Literal["train", "test"]) -> Source:
        """The training or test part of the source."""
        source = self._source(split)
        return source if self.pairs is None or split == "test" else First(source, self.pairs)

    def _source(self, split: Literal["train", "test"]) -> Source:
        if self.source == "scenes":
            return Scenes(self.scenes, self.scene_size, 0 if split == "train" else HELD_OUT_SEED)
        if self.source == "motorcycle":
            return Motorcycle()
        directory = data_dir(self.data_dir)
        if self.source == "nyu":
            return NYUDepthV2(directory / "nyu_depth_v2_labeled.mat", split)
        if self.source == "sintel":
            return sintel(directory, split)
        pairs = PAIRS[self.source](directory)
        return by_family(pairs, split, self.held_out) if self.held_out else pairs
