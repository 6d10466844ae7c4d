"""What heads of segmentation networks share: pyramid pooling, a few convolutions and a classifier, dropped channels."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int, fail
from jaxup.models.backbones import MiT, Swin, ViT, make_backbone
from jaxup.models.backbones.layers import ConvNorm
from jaxup.models.segmentation.layers import check_rate, drop_channels
from jaxup.models.segmentation.upsampling import fuse_resized
from jaxup.nn import initializers
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize

Backbone = str | nnx.Module | Callable[..., nnx.Module]

_SMALL = initializers.normal(0.01)


def build_backbone(backbone: Backbone, *, dtype: Any, rngs: nnx.Rngs, **options: Any) -> Any:
    """A backbone by name with these options, or the one that was given, or that a function `(dtype=, rngs=)` builds."""
    if isinstance(backbone, str):
        return make_backbone(backbone, **options, dtype=dtype, rngs=rngs)
    return backbone if isinstance(backbone, nnx.Module) else backbone(dtype=dtype, rngs=rngs)


def run_backbone(backbone: Any, x: jax.Array, rngs: nnx.Rngs | None) -> tuple[jax.Array, ...]:
    """The maps of an image; transformers drop paths where there are `rngs`."""
    check_features("x", x, backbone.in_features)
    options = {"rngs": rngs} if isinstance(backbone, MiT | Swin | ViT) else {}
    maps: tuple[jax.Array, ...] = backbone(x, **options)
    return maps


def check_maps(maps: Sequence[jax.Array], features: Sequence[int]) -> None:
    """Require one map for each number of channels."""
    found = tuple(y.shape[-1] for y in maps)
    if found != tuple(features):
        fail("maps", f"maps of {tuple(features)} channels", f"{found}")


class Classifier(nnx.Module):
    """Channel dropout, then a 1x1 convolution to the classes."""

    def __init__(self, features: int, num_classes: int, *, dropout: float, dtype: Any, rngs: nnx.Rngs):
        options: Any = dict(kernel_init=_SMALL, conv_general_dilated=pointwise_conv, dtype=dtype, rngs=rngs)
        self.conv = nnx.Conv(features, check_int("num_classes", num_classes), (1, 1), **options)
        self.dropout = check_rate("dropout", dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, features] -> [B, H, W, num_classes]."""
        return self.conv(drop_channels(x, self.dropout, rngs))


class FCNHead(nnx.Module):
    """A few 3x3 convolutions with norm and ReLU, a classifier; `joined`: a further one on their result beside x."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        features: int,
        layers: int = 1,
        joined: bool = False,
        dropout: float = 0.1,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.layers = nnx.List(ConvNorm(features if i else in_features, features, 3, **options) for i in range(layers))
        width = features if layers else in_features
        self.join = ConvNorm(in_features + width, features, 3, **options) if joined else None
        self.classifier = Classifier(features if joined else width, num_classes, dropout=dropout, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, in_features] -> [B, H, W, num_classes]."""
        y = x
        for layer in self.layers:
            y = layer(y)
        y = y if self.join is None else self.join(jnp.concatenate([x.astype(y.dtype), y], axis=3))
        return self.classifier(y, rngs)


def auxiliary_head(in_features: int, num_classes: int, features: int | None, **options: Any) -> FCNHead | None:
    """A head for a further loss in training, where it is wanted: with `features`."""
    return None if features is None else FCNHead(in_features, num_classes, features=features, **options)


class PyramidPooling(nnx.Module):
    """x beside its means over grids of n x n cells, each after a 1x1 convolution with norm and ReLU, resized to x.

    `resize_first`: the convolution comes after the resizing, which is not the same because of the ReLU.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        scales: Sequence[int],
        *,
        resize_first: bool = False,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.scales = tuple(check_int("pool_scales", scale) for scale in scales)
        self.branches = nnx.List(ConvNorm(in_features, features, 1, dtype=dtype, rngs=rngs) for _ in self.scales)
        self.features = in_features + len(self.scales) * features
        self.resize_first = resize_first

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in_features] -> [B, H, W, self.features]."""
        parts = [x, *(resize(y, size=x.shape[1:3]) for y in self._branches(x))]
        return jnp.concatenate([y.astype(parts[-1].dtype) for y in parts], axis=3)

    def fused(self, x: jax.Array, layer: ConvNorm) -> jax.Array:
        """A layer of what the call returns."""
        return fuse_resized(layer, [x, *self._branches(x)], x.shape[1:3])

    def _branches(self, x: jax.Array) -> list[jax.Array]:
        means = [resize(x, size=(scale, scale), method="area") for scale in self.scales]
        if self.resize_first:
            means = [resize(y, size=x.shape[1:3]) for y in means]
        return [branch(y) for branch, y in zip(self.branches, means, strict=True)]
