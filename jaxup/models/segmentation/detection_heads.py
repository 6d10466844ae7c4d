"""The heads of Mask R-CNN, and what the two codes with published weights do differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import accum_dtype, check_int
from jaxup.models.backbones.layers import conv
from jaxup.nn import initializers
from jaxup.ops.masks import paste_masks
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.windows import merge_phases

BOX_SIZE, MASK_SIZE = 7, 14


@dataclass(frozen=True)
class Convention:
    """What torchvision and mmdetection do differently."""

    first: bool
    """The background is the first class, and boxes and masks have one for it, too; else the last of the classes."""
    rounded: bool
    """Anchors have whole numbers, and the strides at which they stand are what sides of image and map divide to."""
    both_sides: bool
    """Sides of boxes are limited from below, too."""
    roi_align: Mapping[str, Any]
    """Options. An adaptive number of samples is at most 8 in each direction."""
    beta: float
    """Of the smooth L1 loss, from where on it is linear; 0: it is everywhere."""
    soft_masks: bool
    """Masks are learned from shares of bins, else from whether these are half or more."""
    whole_pixels: bool
    """How masks are pasted."""

    @property
    def offset(self) -> int:
        """The channel of the first thing."""
        return int(self.first)

    def foreground(self, x: jax.Array, classes: int) -> jax.Array:
        """Of the last axis, classes, without the background."""
        return x[..., 1:] if self.first else x[..., :classes]


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "torchvision": Convention(True, True, False, dict(sampling_ratio=2, aligned=False), 1 / 9, True, True),
        "mmdet": Convention(False, False, True, dict(sampling_ratio=0, aligned=True, max_samples=8), 0.0, False, False),
    }
)


def _small(inputs: int, outputs: int, deviation: float, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    init = initializers.normal(deviation)
    return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)


class RPNHead(nnx.Module):
    """For each cell and anchor, whether there is an object, and the box relative to the anchor."""

    def __init__(self, features: int, anchors: int, *, dtype: Any, rngs: nnx.Rngs):
        init = initializers.normal(0.01)
        options: dict[str, Any] = dict(kernel_init=init, dtype=dtype, rngs=rngs)
        self.conv = nnx.Conv(features, features, (3, 3), padding=1, **options)
        single: Any = partial(nnx.Conv, features, kernel_size=(1, 1), conv_general_dilated=pointwise_conv, **options)
        self.objectness, self.deltas = single(anchors), single(4 * anchors)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, C] -> logits [B, h, w, A] and [B, h, w, 4 A]."""
        y = nnx.relu(self.conv(x))
        return self.objectness(y), self.deltas(y)


class BoxHead(nnx.Module):
    """Two layers on the features of a box, its classes and for each class a better box."""

    def __init__(self, features: int, hidden: int, classes: int, boxes: int, *, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        init = initializers.variance_scaling(1.0, "fan_avg", "uniform")
        self.first = nnx.Linear(BOX_SIZE**2 * features, hidden, kernel_init=init, **options)
        self.second = nnx.Linear(hidden, hidden, kernel_init=init, **options)
        self.classes = _small(hidden, classes, 0.01, **options)
        self.deltas = _small(hidden, 4 * boxes, 0.001, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[N, 7, 7, C] -> logits [N, classes] and numbers [N, boxes, 4], in float32 or more."""
        y = nnx.relu(self.first(x.reshape(x.shape[0], self.first.in_features)))
        y = nnx.relu(self.second(y))
        dtype = accum_dtype(y)
        deltas = self.deltas(y).astype(dtype)
        return self.classes(y).astype(dtype), deltas.reshape(x.shape[0], self.deltas.out_features // 4, 4)


class MaskHead(nnx.Module):
    """A few convolutions on the features of a box, a doubling, and a mask for each class."""

    def __init__(self, features: int, layers: Sequence[int], doubled: int, masks: int, *, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        widths = (features, *(check_int("mask_layers", width) for width in layers))
        self.layers = nnx.List(conv(a, b, 3, **options) for a, b in pairwise(widths))
        init = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.double = nnx.ConvTranspose(
            widths[-1], doubled, (2, 2), strides=(2, 2), padding="VALID", kernel_init=init, **options
        )
        self.masks = conv(doubled, masks, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, 14, 14, C] -> logits [N, 28, 28, masks], in float32 or more."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        y: jax.Array = self.masks(nnx.relu(_doubled(self.double, x)))
        return y.astype(accum_dtype(y))


def _doubled(layer: nnx.ConvTranspose, x: jax.Array) -> jax.Array:
    """What the layer makes of x, as one product: on CPUs the gradient of a dilated convolution is ten times as slow."""
    given: Any = layer
    x, kernel, bias = (z.astype(layer.dtype) for z in (x, given.kernel[::-1, ::-1], given.bias[...]))
    return merge_phases(jnp.einsum("nhwc,uvcd->nhuwvd", x, kernel)) + bias.reshape(1, 1, 1, -1)


def instance_masks(
    masks: jax.Array, boxes: jax.Array, *, size: tuple[int, int], whole_pixels: bool = True
) -> jax.Array:
    """Masks of detections at the size of the image: where those of `MaskRCNN`, pasted, are at least a half.

    Args:
        masks: probabilities [..., N, M, M].
        boxes: in pixels [..., N, 4].
        size: (H, W) of the image.
        whole_pixels: see `ops.paste_masks`.

    Returns:
        Booleans [..., N, H, W].

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> box = jnp.array([[1.0, 0.0, 3.0, 2.0]])
        >>> instance_masks(jnp.ones((1, 28, 28)), box, size=(2, 4), whole_pixels=False).sum().item()
        4

    Reference:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3.
    """
    return paste_masks(masks, boxes, size=size, whole_pixels=whole_pixels) >= 0.5
