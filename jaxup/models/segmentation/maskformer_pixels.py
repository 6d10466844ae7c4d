"""The pixel decoder of MaskFormer: a pyramid of the backbone's maps with an upsampler at each of its steps."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from jaxup.models.backbones.layers import conv
from jaxup.models.segmentation.upsampling import Upsampling
from jaxup.nn.norms import group_norm, normalise


class ConvGroupNorm(nnx.Module):
    """Convolution without bias, group normalisation in 32 groups (fewer where these do not divide), activation."""

    def __init__(self, inputs: int, outputs: int, size: int, *, active: bool = True, dtype: Any, rngs: nnx.Rngs):
        self.conv = conv(inputs, outputs, size, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = group_norm(outputs, math.gcd(32, outputs), rngs)
        self.active, self.dtype = active, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H, W, outputs]."""
        y = normalise(self.norm, self.conv(x), self.dtype)
        return nnx.relu(y) if self.active else y


class PixelDecoder(nnx.Module):
    """A pyramid from coarse to fine, and the embeddings of the pixels of its finest map; see `MaskFormer`."""

    def __init__(
        self,
        widths: Sequence[int],
        features: int,
        outputs: int,
        *,
        image_features: int,
        upsampler: Any,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        coarse, steps = widths[-1], len(widths) - 1
        self.stem = ConvGroupNorm(coarse, features, 3, **options)
        self.laterals = nnx.List(
            ConvGroupNorm(width, features, 1, active=False, **options) for width in reversed(widths[:-1])
        )
        self.blocks = nnx.List(ConvGroupNorm(features, features, 3, **options) for _ in range(steps))
        self.direct = upsampler == "resfu"
        names = [upsampler] * steps
        if upsampler == "stack_jbu":  # all steps are one stack, whose last convolution is in the last of them
            names[:-1] = ["jbu"] * (steps - 1)
        self.ups = nnx.List(
            Upsampling(
                name,
                in_features=features,
                guides=(features,) * n,
                scale=2**n,
                image_features=image_features,
                **options,
            )
            for name, n in zip(names, range(steps, 0, -1) if self.direct else [1] * steps, strict=True)
        )
        self.embed = conv(features, outputs, 3, **options)

    def __call__(self, maps: Sequence[jax.Array], image: jax.Array) -> jax.Array:
        """Maps of the backbone, fine to coarse, and the image -> [B, h, w, outputs] at the size of the first map."""
        y = self.stem(maps[-1])
        laterals = [layer(x) for layer, x in zip(self.laterals, reversed(maps[:-1]), strict=True)]
        if self.direct:
            return self.embed(self._directly(y, laterals))
        for block, up, lateral in zip(self.blocks, self.ups, laterals, strict=True):
            y = block(lateral + up(y, [lateral], image))
        return self.embed(y)

    def _directly(self, y: jax.Array, laterals: Sequence[jax.Array]) -> jax.Array:
        """Each level enlarged to the finest one, and summed there."""
        fine_to_coarse = laterals[::-1]
        levels = [y, *(block(x) for block, x in zip(self.blocks, laterals[:-1], strict=False))]
        total = laterals[-1]
        for i, (level, up) in enumerate(zip(levels, self.ups, strict=True)):
            total = total + up(level, fine_to_coarse[: len(levels) - i])
        return self.blocks[-1](total)
