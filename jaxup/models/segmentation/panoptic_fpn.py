"""Panoptic FPN (Kirillov et al., CVPR 2019): Mask R-CNN with a semantic branch on its pyramid, and how both merge."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_int, check_shape, fail
from jaxup.models.segmentation.detection_loss import cross_entropy, mean
from jaxup.models.segmentation.heads import check_maps
from jaxup.models.segmentation.mask_rcnn import Found, MaskRCNN
from jaxup.models.segmentation.maskformer_pixels import ConvGroupNorm
from jaxup.nn import initializers
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize

_LEVELS = 4


class SemanticHead(nnx.Module):
    """The levels of a pyramid, each brought to the finest one by convolutions and doublings, summed and classified."""

    def __init__(self, features: int, classes: int, *, hidden: int, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.levels: nnx.List[Any] = nnx.List(
            nnx.List(ConvGroupNorm(hidden if k else features, hidden, 3, **options) for k in range(max(1, i)))
            for i in range(_LEVELS)
        )
        options |= dict(kernel_init=initializers.normal(0.01), conv_general_dilated=pointwise_conv)
        self.classifier = nnx.Conv(hidden, classes, (1, 1), **options)
        self.features = features

    def __call__(self, maps: Any) -> jax.Array:
        """[B, h_i, w_i, features] -> logits [B, h_0, w_0, classes]."""
        check_maps(maps, (self.features,) * _LEVELS)
        total: Any = None
        for i, (layers, y) in enumerate(zip(self.levels, maps, strict=True)):
            for layer in layers:
                y = resize(layer(y), scale=2) if i else layer(y)
            total = y if total is None else total + resize(y, size=total.shape[1:3])
        return self.classifier(total)


class PanopticFPN(nnx.Module):
    """Panoptic FPN: things by Mask R-CNN, and stuff by a semantic branch on the same pyramid.

        logits = conv1x1(sum_i f_i(p_i)),    f_i = i times [relu(norm(conv3x3)), bilinear doubling]

    and f_0 one convolution, with group normalisation in 32 groups. The last class of the branch is all things.

    Parameters with 80 things, 53 stuff classes and ResNet-50: 46,027,110.

    Args:
        num_classes: of things.
        stuff_classes: S, of stuff.
        semantic_features: of the semantic branch.
        semantic_weight: of its loss.
        options: of `MaskRCNN`, with its upsampler; the convention is "mmdet" if it is not given.
        rngs: source of the initial parameters.

    Returns:
        `module(x, limits=None, rngs=None)`: what `MaskRCNN` returns, and "semantic": logits [B, H / 4, W / 4, S + 1] in
        the dtype of x; `merge_panoptic` makes segments of these. `module.outputs(x, rngs=None)` likewise.
        `module.losses(x, targets, key, ...)`: those of `MaskRCNN`, and "semantic".

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> small = dict(backbone="resnet18", features=8, semantic_features=8, detections=5)
        >>> run = lambda x: PanopticFPN(3, stuff_classes=2, **small, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 64, 96, 3)))["semantic"].shape
        (1, 16, 24, 3)

    Reference:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019. Official weights: mmdetection (Apache-2.0).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stuff_classes: int,
        semantic_features: int = 128,
        semantic_weight: float = 0.5,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        self.instances = MaskRCNN(num_classes, **{"convention": "mmdet", **options}, rngs=rngs)
        self.stuff_classes = check_int("stuff_classes", stuff_classes)
        self.semantic_weight = semantic_weight
        self.semantic = SemanticHead(
            self.instances.neck.features,
            stuff_classes + 1,
            hidden=check_int("semantic_features", semantic_features),
            dtype=options.get("dtype", jnp.float32),
            rngs=rngs,
        )

    @property
    def backbone(self) -> Any:
        """That of its instances."""
        return self.instances.backbone

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Found:
        """Those of `MaskRCNN`, and the logits of stuff."""
        found = self.instances.outputs(x, rngs)
        return found | {"semantic": self.semantic(found["features"][:_LEVELS]).astype(x.dtype)}

    def __call__(self, x: jax.Array, limits: jax.Array | None = None, rngs: nnx.Rngs | None = None) -> Found:
        """The detections, and the logits of stuff."""
        found = self.outputs(x, rngs)
        detections = self.instances.detect(found, self.instances.limits(x, limits))
        return detections | {"semantic": found["semantic"]}

    def losses(
        self, x: jax.Array, targets: Mapping[str, jax.Array], key: jax.Array, *, rngs: Any = None, **options: Any
    ) -> dict[str, jax.Array]:
        """The losses of a batch: those of `MaskRCNN.losses`, with its arguments, and of the semantic branch.

        `targets` has "semantic", too, integers [B, H, W]: 0 to S - 1, and S for things; others do not count. Logits are
        enlarged to the size of the image.
        """
        found = self.outputs(x, rngs)
        losses = self.instances.losses_of(found, x, targets, key, **options)
        if "semantic" not in targets:
            fail("targets", "semantic, too", sorted(targets))
        labels = targets["semantic"].astype(jnp.int32)
        check_shape("targets semantic", labels, x.shape[:3])
        logits = resize(found["semantic"].astype(found["deltas"].dtype), size=x.shape[1:3], method="bilinear")
        counted = (labels >= 0) & (labels <= self.stuff_classes)
        each = cross_entropy(logits, jnp.where(counted, labels, 0))
        return losses | {"semantic": self.semantic_weight * mean(each, counted)}


def merge_panoptic(
    masks: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    semantic: jax.Array,
    *,
    num_classes: int,
    least_score: float = 0.6,
    overlap: float = 0.5,
    least_area: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    """Segments that do not overlap, of instances and of what the semantic branch says.

    Instances come by falling score; each takes the pixels that are left of it, and is left out where more than
    `overlap` of it are taken. Then each class of stuff gets what is left of it, unless that is too small.

    Args:
        masks: booleans [B, D, H, W], of detections by falling score.
        scores: [B, D].
        labels: integers [B, D], below 0 where there is no detection.
        semantic: logits of S classes of stuff and of things, [B, H, W, S + 1].
        num_classes: K, of things.
        least_score: of instances.
        overlap: see above.
        least_area: of stuff, in pixels.

    Returns:
        (segments, categories): int32 [B, H, W], 0 where there is nothing, n + 1 for instance n, and D + 1 + s for stuff
        s; and int32 [B, D + S], of segments 1 to D + S: 0 to K - 1 for things, K + s for stuff s, -1 for segments that
        are not there.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> masks = jnp.array([[[[True, True, False, False]], [[True, False, False, False]]]])
        >>> stuff = jnp.array([[[[9.0, 0.0]] * 4]]).reshape(1, 1, 4, 2)
        >>> scores, labels = jnp.array([[0.9, 0.8]]), jnp.array([[1, 0]])
        >>> segments, categories = merge_panoptic(masks, scores, labels, stuff, num_classes=2, least_area=1)
        >>> segments.ravel().tolist(), categories.ravel().tolist()
        ([1, 1, 3, 3], [1, -1, 2])

    Reference:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, Sec. 5; the limits of mmdetection (Apache-2.0).
    """
    check_shape("masks", masks, (*labels.shape, None, None))
    check_shape("scores", scores, labels.shape)
    check_shape("semantic", semantic, (masks.shape[0], *masks.shape[2:], None))
    count, stuff = labels.shape[1], semantic.shape[-1] - 1
    kept = (labels >= 0) & (scores >= least_score)

    def place(segments: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        mask, use, number = given
        taken, whole = (jnp.sum(y, axis=(1, 2)).astype(jnp.float32) for y in (mask & (segments > 0), mask))
        use &= (whole > 0) & (taken <= overlap * whole)
        return jnp.where(mask & (segments == 0) & use[:, None, None], number, segments), use

    numbers = jnp.arange(1, count + 1, dtype=jnp.int32)
    start = jnp.zeros((masks.shape[0], *masks.shape[2:]), jnp.int32)
    segments, used = jax.lax.scan(place, start, (masks.swapaxes(0, 1), kept.T, numbers))
    things = jnp.where(used.T, labels, -1).astype(jnp.int32)
    left = jnp.where(segments == 0, jnp.argmax(semantic, axis=-1).astype(jnp.int32), stuff)
    classes = jnp.arange(stuff, dtype=jnp.int32)
    areas = jnp.stack([jnp.sum(left == s, axis=(1, 2)) for s in range(stuff)], axis=1)
    large = areas >= max(1, least_area)
    there = jnp.concatenate([large, jnp.zeros_like(large[:, :1])], axis=1)
    fill = jnp.take_along_axis(there, left.reshape(left.shape[0], -1), axis=1).reshape(left.shape)
    segments = jnp.where(fill, count + 1 + left, segments)
    return segments, jnp.concatenate([things, jnp.where(large, num_classes + classes[None], -1)], axis=1)
