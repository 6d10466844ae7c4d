"""Small examples of every operator and module, on which the generic tests run.

To add an operator, append to EXAMPLES; to add a module, to MODULES. The shapes of the inputs are functions of
a low-resolution grid (h, w), so that one statement gives the small, the one-pixel and the large case.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup import models, nn, ops

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Deterministic random inputs, uniform in `interval`: first images, then tables."""

    images: Callable[[int, int], Sequence[Shape]]  # grid (h, w) -> the shapes without their batch axis
    tables: Sequence[Shape] = ()  # shapes of the inputs that have no batch axis
    interval: tuple[float, float] = (-1.0, 1.0)

    def shapes(self, batch: int, grid: tuple[int, int]) -> list[Shape]:
        """The shapes of all inputs."""
        return [(batch, *s) for s in self.images(*grid)] + list(self.tables)

    def __call__(
        self, batch: int = 4, grid: tuple[int, int] = (3, 4), dtype: Any = jnp.float32
    ) -> tuple[jax.Array, ...]:
        random = np.random.default_rng(0)
        return tuple(jnp.asarray(random.uniform(*self.interval, s), dtype) for s in self.shapes(batch, grid))


@dataclass(frozen=True, eq=False)
class Example:
    """A function of arrays with its options bound.

    `scratch` bounds the compiled scratch memory of the call, and of the call with all gradients, as a multiple
    of the bytes of inputs and outputs together, in float32 at a 64 x 64 grid and batch 1.
    """

    name: str
    fn: Callable[..., Any]
    inputs: Inputs
    scratch: tuple[float, float]
    differentiable: tuple[int, ...] | None = None  # positions; None is all


@dataclass(frozen=True, eq=False)
class ModuleExample:
    """A constructor with everything bound but `rngs` (and `dtype`, where the module takes it)."""

    name: str
    build: Callable[..., Any]
    inputs: Inputs

    def takes(self, option: str) -> bool:
        """Whether the constructor has this option."""
        target = getattr(self.build, "func", self.build)
        return option in inspect.signature(target.__init__ if inspect.isclass(target) else target).parameters

    def make(self, **options: Any) -> Any:
        """A new module, always with the same parameters."""
        return self.build(**options, **({"rngs": nnx.Rngs(0)} if self.takes("rngs") else {}))


EXAMPLES: list[Example] = [
    Example(
        "attention_upsample",
        lambda query, key, value, px, py: ops.attention_upsample(
            query, key, value, scale=2, kernel_size=3, positions=(px, py), num_heads=2, scaled=True
        ),
        Inputs(lambda h, w: [(2 * h, 2 * w, 8), (h, w, 8), (h, w, 6)], tables=[(3, 4), (3, 4)]),
        scratch=(1.75, 4),
    ),
    Example(
        "attention_upsample_empty_windows",
        partial(ops.attention_upsample, scale=4, kernel_size=3),
        Inputs(lambda h, w: [(4 * h, 4 * w, 6), (h, w, 6), (h, w, 4)]),
        scratch=(0.5, 1),
    ),
    Example(
        "attention_upsample_joint",
        partial(ops.attention_upsample, scale=(2, 3), kernel_size=3),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (2 * h, 3 * w, 8), (h, w, 3)]),
        scratch=(0.75, 1.75),
    ),
    Example(
        "reassemble",
        partial(ops.reassemble, scale=2, kernel_size=5, groups=2),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 2 * w, 2, 25)]),
        scratch=(0.1, 2.5),
    ),
    Example(
        "reassemble_one_group",
        partial(ops.reassemble, scale=(3, 2), kernel_size=3),
        Inputs(lambda h, w: [(h, w, 8), (3 * h, 2 * w, 9)]),
        scratch=(0.2, 3),
    ),
    *(
        Example(f"resize_{name}", partial(ops.resize, **options), Inputs(lambda h, w: [(h, w, 6)]), scratch=(0.5, 1.5))
        for name, options in {
            "nearest": dict(scale=2, method="nearest"),
            "bilinear": dict(scale=2, method="bilinear"),
            "bilinear_align_corners": dict(size=(7, 5), method="bilinear", align_corners=True),
            "bicubic": dict(scale=(3, 2), method="bicubic"),
            "bicubic_antialias": dict(size=(2, 3), method="bicubic", antialias=True),
            "area": dict(size=(2, 3), method="area"),
        }.items()
    ),
    Example(
        "zero_upsample",
        partial(ops.zero_upsample, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 6)]),
        scratch=(0.1, 1.2),
    ),
    Example(
        "pixel_shuffle",
        partial(ops.pixel_shuffle, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 12)]),
        scratch=(0.1, 0.1),
    ),
    Example(
        "pixel_unshuffle",
        partial(ops.pixel_unshuffle, scale=(2, 3)),
        Inputs(lambda h, w: [(2 * h, 3 * w, 2)]),
        scratch=(0.1, 0.1),
    ),
    Example(
        "box_filter",
        partial(ops.box_filter, radius=(2, 3)),
        Inputs(lambda h, w: [(h, w, 6)]),
        scratch=(0.7, 0.7),
    ),
    Example(
        "gaussian_filter",
        lambda x, sigma: ops.gaussian_filter(x, sigma=sigma, radius=3),
        Inputs(lambda h, w: [(h, w, 6)], tables=[()], interval=(0.5, 1.5)),
        scratch=(4, 13),
    ),
    Example(
        "guided_filter_grey",
        partial(ops.guided_filter, radius=2, eps=0.01),
        Inputs(lambda h, w: [(h, w, 2), (h, w, 1)], interval=(0, 1)),
        scratch=(1.8, 6),
    ),
    Example(
        "guided_filter_colour",
        partial(ops.guided_filter, radius=2, eps=0.01),
        Inputs(lambda h, w: [(h, w, 1), (h, w, 3)], interval=(0, 1)),
        scratch=(4, 12),
    ),
    Example(
        "bilateral_filter",
        partial(ops.bilateral_filter, radius=2, sigma_spatial=1.5, sigma_range=0.5),
        Inputs(lambda h, w: [(h, w, 3)], interval=(0, 1)),
        scratch=(2.5, 6),
    ),
    Example(
        "joint_bilateral_upsample",
        partial(ops.joint_bilateral_upsample, scale=(2, 3), radius=1, sigma_spatial=1.0, sigma_range=0.5),
        Inputs(lambda h, w: [(h, w, 2), (2 * h, 3 * w, 3)], interval=(0, 1)),
        scratch=(4.5, 13),
    ),
    Example(
        "similarity_upsample",
        partial(ops.similarity_upsample, scale=(2, 3), kernel_size=3),
        Inputs(lambda h, w: [(2 * h, 3 * w, 8), (h, w, 8), (h, w, 6)]),
        scratch=(2.1, 3.6),  # nine weights per pixel beside six channels: 0.8 and 1 at 256 channels
    ),
    Example(
        "sample",
        partial(ops.sample, padding="reflection"),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 2, 2)], interval=(-0.8, 1.7)),
        scratch=(1, 8),
    ),
    Example(
        "sample_nearest",
        partial(ops.sample, method="nearest"),
        Inputs(lambda h, w: [(h, w, 8), (2 * h, 3 * w, 2)], interval=(-0.8, 1.7)),
        scratch=(1, 3),
        differentiable=(0,),
    ),
]

MODULES: list[ModuleExample] = [
    ModuleExample(
        "AttentionUpsample",
        partial(nn.AttentionUpsample, 5, 8, scale=2, kernel_size=5, num_heads=2),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "JointAttentionUpsample",
        partial(nn.JointAttentionUpsample, 5, 3, 8, scale=(2, 3), kernel_size=5, scaled=True),
        Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 3)]),
    ),
    ModuleExample(
        "Deconvolution",
        partial(nn.Deconvolution, 5, 4, scale=(2, 3), kernel_size=5),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "PixelShuffle",
        partial(nn.PixelShuffle, 5, 4, scale=(2, 3)),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "Resize",
        partial(nn.Resize, scale=2, method="bicubic"),
        Inputs(lambda h, w: [(h, w, 5)]),
    ),
    ModuleExample(
        "AttentionJointNetwork",
        partial(models.AttentionJointNetwork, features=4, mixing_layers=2, widths=(6, 5), kernel_size=3, num_heads=2),
        Inputs(lambda h, w: [(h, w, 1), (4 * h, 4 * w, 3)]),
    ),
    ModuleExample(
        "DJF",
        partial(models.DJF, widths=(8, 6), joint_widths=(8, 6)),
        Inputs(lambda h, w: [(h, w, 1), (4 * h, 4 * w, 3)]),
    ),
    *(
        ModuleExample(
            f"SAPA_{query}",
            partial(nn.SAPA, 5, 3, 4, scale=(2, 3), kernel_size=3, embedding_features=6, query=query),
            Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 3)]),
        )
        for query in ("guide", "concat", "gate")
    ),
    ModuleExample(
        "SemiShift",
        partial(nn.SemiShift, 5, 3, 4, embedding_features=6),
        Inputs(lambda h, w: [(h, w, 5), (2 * h, 2 * w, 3)]),
    ),
    *(
        ModuleExample(
            f"FADE_{name}",
            partial(nn.FADE, 5, 5, scale=(2, 3), kernel_size=3, embedding_features=6, **options),
            Inputs(lambda h, w: [(h, w, 5), (2 * h, 3 * w, 5)]),
        )
        for name, options in {"gated": {}, "ungated_lite": dict(gated=False, lite=True)}.items()
    ),
    ModuleExample(
        "CARAFE",
        partial(nn.CARAFE, 6, scale=(2, 3), kernel_size=3, groups=2, compressed_features=4),
        Inputs(lambda h, w: [(h, w, 6)]),
    ),
    *(
        ModuleExample(
            f"DySample_{name}",
            partial(nn.DySample, 12, scale=(2, 3), groups=2, **options),
            Inputs(lambda h, w: [(h, w, 12)]),
        )
        for name, options in {"lp": {}, "pl_dynamic": dict(style="pl", dynamic_scope=True)}.items()
    ),
]
