"""Mask R-CNN (He et al., ICCV 2017) on a feature pyramid, with any upsampler in the pyramid."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import accum_dtype, check_choice, check_int, check_shape
from jaxup.models.segmentation import detection_loss as loss
from jaxup.models.segmentation.detection_heads import (
    BOX_SIZE,
    CONVENTIONS,
    MASK_SIZE,
    BoxHead,
    Convention,
    MaskHead,
    RPNHead,
)
from jaxup.models.segmentation.fpn import FPN
from jaxup.models.segmentation.heads import Backbone, build_backbone, run_backbone
from jaxup.models.segmentation.upsampling import Build
from jaxup.ops.boxes import clip_boxes, decode_boxes, grid_anchors, pick
from jaxup.ops.masks import crop_masks
from jaxup.ops.nms import nms
from jaxup.ops.roi_align import multilevel_roi_align

_CODE = (10.0, 10.0, 5.0, 5.0)  # weights of the second stage
_RATIOS = (0.5, 1.0, 2.0)
Found = dict[str, Any]


class MaskRCNN(nnx.Module):
    """Mask R-CNN: proposals from a feature pyramid, and for each of them a class, a box and a mask.

        anchors -> objectness and box at all cells of the pyramid -> the best ones without overlaps
                -> RoIAlign 7 x 7 -> class and box -> without overlaps in a class -> RoIAlign 14 x 14 -> mask 28 x 28

    All shapes are fixed: there are always as many proposals and detections, of which the last may be none, so that
    images of one padded size share one program. Boxes are (x1, y1, x2, y2) in pixels.

    The upsampler stands in the three steps of the pyramid, with the map that is added as its guide. ReSFU has the first
    map of the backbone, C1, as its guide in all steps, as in ReSFU's Fig. 15 (b): the figure does not say how it meets
    the coarser steps, and here it is averaged over the pixels of each, after the convolution that brings it to the
    pyramid's width.

    Parameters with 80 classes and ResNet-50: 44,400,693 with torchvision's convention.

    Args:
        num_classes: K, of things, without the background.
        backbone: a name of `make_backbone`, a backbone, or a function `(dtype=, rngs=)` that builds one; its last four
            maps count. Its norms are to be fixed in training: batches are too small for statistics.
        features: of the pyramid.
        hidden: of the layers of the box head.
        mask_layers: features of the convolutions of the mask head.
        mask_features: of the doubled map behind these.
        anchor_scale: sides of anchors in strides of their map.
        ratios: heights over widths of anchors.
        upsampler: of the pyramid's top-down path, see `FPN`.
        convention: "torchvision" or "mmdet": whose weights it has. These differ in anchors, RoIAlign, the place of the
            background, losses and pasting.
        proposals: how many are kept in evaluation, of each level and then of all.
        detections: how many are returned.
        least_score: of detections.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, limits=None, rngs=None)`: images [B, H, W, Cin], and heights and widths [B, 2] of what of them is no
        padding -> {"boxes" [B, D, 4], "scores" [B, D], "labels" int32 [B, D], 0 to K - 1 and -1 where there are no
        more, "masks" probabilities [B, D, 28, 28]}, by falling score: `instance_masks` pastes them.
        `module.outputs(x, rngs=None)`: {"features": the pyramid's maps, "anchors" [N, 4], "objectness" [B, N],
        "deltas" [B, N, 4]}. `module.losses(x, targets, key, limits=None)`: see there.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: MaskRCNN(3, backbone="resnet18", features=8, detections=5, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 64, 96, 3)))["masks"].shape
        (1, 5, 28, 28)

    Reference:
        He et al., Mask R-CNN, ICCV 2017; Lin et al., Feature Pyramid Networks, CVPR 2017. Official weights: torchvision
        (BSD-3-Clause), mmdetection (Apache-2.0). The upsampler: Zhou et al., A Refreshed Similarity-based Upsampler,
        2024, Sec. 5.4.2.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet50",
        features: int = 256,
        hidden: int = 1024,
        mask_layers: Sequence[int] = (256,) * 4,
        mask_features: int = 256,
        anchor_scale: float = 8.0,
        ratios: Sequence[float] = _RATIOS,
        upsampler: Build = "nearest",
        convention: str = "torchvision",
        proposals: int = 1000,
        detections: int = 100,
        least_score: float = 0.05,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("convention", convention, CONVENTIONS)
        self.convention_name, self.num_classes = convention, check_int("num_classes", num_classes)
        self.proposals, self.detections = check_int("proposals", proposals), check_int("detections", detections)
        self.least_score, self.anchor_scale, self.ratios = least_score, anchor_scale, tuple(ratios)
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.backbone = build_backbone(backbone, **options)
        self.strides = tuple(self.backbone.strides[-4:])
        guide = "finest" if upsampler == "resfu" else "adjacent"
        self.neck = FPN(
            self.backbone.features[-4:], features=features, num_outputs=5, upsampler=upsampler, guide=guide, **options
        )
        scored, boxes = num_classes + 1, num_classes + self.convention.offset
        self.rpn = RPNHead(features, len(self.ratios), **options)
        self.box = BoxHead(features, check_int("hidden", hidden), scored, boxes, **options)
        self.mask = MaskHead(features, mask_layers, check_int("mask_features", mask_features), boxes, **options)

    @property
    def convention(self) -> Convention:
        """What it does as that code does it."""
        return CONVENTIONS[self.convention_name]

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Found:
        """The pyramid, and for each of its anchors what the first stage says."""
        maps = self.neck(run_backbone(self.backbone, x, rngs)[-len(self.strides) :])
        found = [self.rpn(y) for y in maps]
        dtype, batch = accum_dtype(x), x.shape[0]
        objectness, deltas = (
            [y.astype(dtype).reshape(batch, -1, *last) for y in level]
            for level, last in zip(zip(*found, strict=True), ((), (4,)), strict=True)
        )
        anchors = self._anchors(x, maps, dtype)
        joined = {"objectness": jnp.concatenate(objectness, axis=1), "deltas": jnp.concatenate(deltas, axis=1)}
        return {"features": maps, "anchors": jnp.concatenate(anchors), **joined}

    def _anchors(self, x: jax.Array, maps: Sequence[jax.Array], dtype: Any) -> list[jax.Array]:
        """Of each level."""
        found = []
        for y, nominal in zip(maps, (*self.strides, 2 * self.strides[-1]), strict=True):
            stride = (float(nominal),) * 2
            if self.convention.rounded:
                stride = (float(x.shape[1] // y.shape[1]), float(x.shape[2] // y.shape[2]))
            options: dict[str, Any] = dict(sizes=(self.anchor_scale * nominal,), ratios=self.ratios, dtype=dtype)
            shape = y.shape[1], y.shape[2]
            found.append(grid_anchors(shape=shape, stride=stride, rounded=self.convention.rounded, **options))
        return found

    def propose(self, found: Found, limits: jax.Array, *, before: int, count: int) -> tuple[jax.Array, jax.Array]:
        """Boxes [B, count, 4] of the best anchors, of each level `before` at most, and which of them there are."""
        objectness, deltas = jax.lax.stop_gradient((found["objectness"], found["deltas"]))
        lengths = [len(self.ratios) * y.shape[1] * y.shape[2] for y in found["features"]]
        scores, boxes, levels, start = [], [], [], 0
        for level, length in enumerate(lengths):
            part = slice(start, start + length)
            best, index = jax.lax.top_k(objectness[:, part], min(before, length))
            anchors = found["anchors"][part][index]
            scores.append(best)
            boxes.append(decode_boxes(pick(deltas[:, part], index), anchors, both_sides=self.convention.both_sides))
            levels.append(jnp.full_like(index, level))
            start += length
        every, least = clip_boxes(jnp.concatenate(boxes, axis=1), limits), 1e-3 if self.convention.first else 0.0
        score = jnp.where(_large(every, least), jnp.concatenate(scores, axis=1), -jnp.inf)
        kept = nms(every, score, jnp.concatenate(levels, axis=1), threshold=0.7, count=count)
        there = kept >= 0
        return jnp.where(there[..., None], pick(every, kept), 0), there

    def __call__(self, x: jax.Array, limits: jax.Array | None = None, rngs: nnx.Rngs | None = None) -> Found:
        """The detections in images."""
        return self.detect(self.outputs(x, rngs), self.limits(x, limits))

    def detect(self, found: Found, limits: jax.Array) -> Found:
        """The detections from `outputs`, in images of these sizes [B, 2]."""
        proposals, there = self.propose(found, limits, before=self.proposals, count=self.proposals)
        logits, deltas = self._on_boxes(self.box, found["features"], proposals, BOX_SIZE)
        classes = self.num_classes
        scores = self.convention.foreground(jax.nn.softmax(logits, axis=-1), classes)
        deltas = deltas[:, :, 1:] if self.convention.first else deltas
        both = self.convention.both_sides
        boxes = decode_boxes(deltas, proposals[:, :, None], weights=_CODE, both_sides=both)
        boxes = clip_boxes(boxes.reshape(boxes.shape[0], -1, 4), limits)
        scores = jnp.where(there[..., None], scores, 0).reshape(boxes.shape[:2])
        fits = (scores > self.least_score) & _large(boxes, 1e-2 if self.convention.first else -1.0)
        labels = jnp.broadcast_to(jnp.arange(boxes.shape[1], dtype=jnp.int32)[None] % classes, scores.shape)
        kept = nms(boxes, jnp.where(fits, scores, -jnp.inf), labels, threshold=0.5, count=self.detections)
        there = kept >= 0
        boxes, scores, labels = (pick(y, kept) for y in (boxes, scores, labels))
        boxes, labels = jnp.where(there[..., None], boxes, 0), jnp.where(there, labels, -1)
        masks = self._masks(found["features"], boxes, labels)
        return {
            "boxes": boxes,
            "scores": jnp.where(there, scores, 0),
            "labels": labels,
            "masks": jnp.where(there[..., None, None], jax.nn.sigmoid(masks), 0),
        }

    def losses(
        self,
        x: jax.Array,
        targets: Mapping[str, jax.Array],
        key: jax.Array,
        *,
        limits: jax.Array | None = None,
        proposals: jax.Array | None = None,
        anchors_drawn: int = 256,
        boxes_drawn: int = 512,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, jax.Array]:
        """The losses of a batch, whose sum is the published one.

        Anchors and proposals are drawn at random, by the key. True boxes are proposals, too. Crowds are no targets, and
        what lies in them for more than a half is no background. Anchors are matched as torchvision has it.

        Args:
            x: images [B, H, W, Cin].
            targets: "boxes" [B, T, 4]; "labels" [B, T], 0 to K - 1, and -1 where there are fewer than T; "masks"
                [B, T, H, W]; if there are any "crowd", booleans [B, T].
            key: of the draws.
            limits: heights and widths [B, 2] of what of the images is no padding; None: all.
            proposals: boxes [B, P, 4] in the place of those of the first stage.
            anchors_drawn: of each image, half of them with an object where there are enough.
            boxes_drawn: of each image, a quarter of them with an object where there are enough.
            rngs: source of what the backbone drops.

        Returns:
            Scalars "objectness", "rpn_box", "class", "box" and "mask".
        """
        return self.losses_of(self.outputs(x, rngs), x, targets, key, limits, proposals, anchors_drawn, boxes_drawn)

    def losses_of(
        self,
        found: Found,
        x: jax.Array,
        targets: Mapping[str, jax.Array],
        key: jax.Array,
        limits: jax.Array | None = None,
        proposals: jax.Array | None = None,
        anchors_drawn: int = 256,
        boxes_drawn: int = 512,
    ) -> dict[str, jax.Array]:
        """The same of `outputs`."""
        truth, labels, masks, crowd = loss.check_targets(targets, x)
        truth, of_anchors, of_boxes = truth.astype(found["deltas"].dtype), *jax.random.split(key)
        valid = (labels >= 0) & ~crowd & _large(truth, 0.0)
        losses = self._rpn_losses(found, truth, valid, crowd, of_anchors, anchors_drawn)
        if proposals is None:
            before = 2000
            count = 2000 if self.convention.first else 1000
            proposals, there = self.propose(found, self.limits(x, limits), before=before, count=count)
        else:
            there = _large(proposals, 0.0)
        boxes = jnp.concatenate([jax.lax.stop_gradient(proposals).astype(truth.dtype), truth], axis=1)
        match = loss.match(boxes, truth, valid, crowd, high=0.5, low=0.5, low_quality=False)
        match = jnp.where(jnp.concatenate([there, valid], axis=1), match, -2)
        drawn = loss.draw(of_boxes, match, count=boxes_drawn, share=0.25)
        boxes, match = pick(boxes, drawn), jnp.where(drawn >= 0, pick(match, drawn), -2)
        losses |= self._box_losses(found["features"], boxes, match, truth, labels)
        first = max(1, min(boxes.shape[1], boxes_drawn // 4))  # those with an object stand in front
        boxes, match = boxes[:, :first], match[:, :first]
        return losses | {"mask": self._mask_loss(found["features"], boxes, match, labels, masks)}

    def _rpn_losses(
        self, found: Found, truth: jax.Array, valid: jax.Array, crowd: jax.Array, key: jax.Array, count: int
    ) -> dict[str, jax.Array]:
        anchors = jnp.broadcast_to(found["anchors"][None], (truth.shape[0], *found["anchors"].shape))
        match = loss.match(anchors, truth, valid, crowd, high=0.7, low=0.3, low_quality=True)
        drawn = loss.draw(key, match, count=count, share=0.5)
        used, match = drawn >= 0, jnp.where(drawn >= 0, pick(match, drawn), -2)
        logits, positive = pick(found["objectness"], drawn), match >= 0
        binary = loss.binary_cross_entropy(logits, positive.astype(logits.dtype))
        given = pick(found["deltas"], drawn), pick(anchors, drawn), pick(truth, match)
        total = loss.box_loss(*given, positive, beta=self.convention.beta)
        return {"objectness": loss.mean(binary, used), "rpn_box": total / _count(used, total)}

    def _box_losses(
        self, maps: Sequence[jax.Array], boxes: jax.Array, match: jax.Array, truth: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        logits, deltas = self._on_boxes(self.box, maps, boxes, BOX_SIZE)
        used, positive = match >= -1, match >= 0
        background = 0 if self.convention.first else self.num_classes
        channel = jnp.where(positive, pick(labels, match) + self.convention.offset, 0)
        cross = loss.cross_entropy(logits, jnp.where(positive, channel, background))
        deltas = jnp.take_along_axis(deltas, channel[..., None, None], axis=2)[:, :, 0]
        given = deltas, boxes, pick(truth, match), positive
        total = loss.box_loss(*given, beta=self.convention.beta, weights=_CODE)
        return {"class": loss.mean(cross, used), "box": total / _count(used, total)}

    def _mask_loss(
        self, maps: Sequence[jax.Array], boxes: jax.Array, match: jax.Array, labels: jax.Array, masks: jax.Array
    ) -> jax.Array:
        positive = match >= 0
        logits = self._masks(maps, boxes, jnp.where(positive, pick(labels, match), -1))
        aligned = self.convention.roi_align["aligned"]
        wanted = crop_masks(masks, boxes, match, size=2 * MASK_SIZE, aligned=aligned)
        wanted = wanted if self.convention.soft_masks else (wanted >= 0.5).astype(wanted.dtype)
        each = loss.binary_cross_entropy(logits, wanted).mean(axis=(2, 3))
        return loss.mean(each, positive)

    def _masks(self, maps: Sequence[jax.Array], boxes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits of the masks of these classes, [B, N, 28, 28]."""
        logits = self._on_boxes(self.mask, maps, boxes, MASK_SIZE)
        channel = jnp.maximum(labels, 0) + self.convention.offset
        return jnp.take_along_axis(logits, channel[..., None, None, None], axis=4)[..., 0]

    def _on_boxes(self, head: nnx.Module, maps: Sequence[jax.Array], boxes: jax.Array, size: int) -> Any:
        """What a head makes of the features of boxes [B, N, 4]."""
        options = dict(self.convention.roi_align)
        if "max_samples" in options:  # no bin of a box inside of the image has more pixels
            options["max_samples"] = min(options["max_samples"], -(-max(maps[0].shape[1:3]) // size))
        y = multilevel_roi_align(boxes, *maps[:-1], size=size, strides=self.strides, **options)
        made = head(y.reshape(-1, *y.shape[2:]))
        return jax.tree.map(lambda z: z.reshape(*y.shape[:2], *z.shape[1:]), made)

    def limits(self, x: jax.Array, limits: jax.Array | None) -> jax.Array:
        """Heights and widths of images, [B, 2]: the whole ones where none are given."""
        if limits is None:
            whole = jnp.array([x.shape[1], x.shape[2]], accum_dtype(x))
            return jnp.broadcast_to(whole[None], (x.shape[0], 2))
        check_shape("limits", limits, (x.shape[0], 2))
        return limits.astype(accum_dtype(x))


def _large(boxes: jax.Array, least: float) -> jax.Array:
    """Which have sides of at least that, or of more than 0."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return jnp.all(sides > 0 if least == 0 else sides >= least, axis=-1)


def _count(used: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(used), 1).astype(like.dtype)
