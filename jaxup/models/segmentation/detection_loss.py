"""What Mask R-CNN learns from: anchors and proposals drawn at random, and the losses of its heads."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxup._checks import check_shape, fail
from jaxup.ops.boxes import area, box_iou, encode_boxes, match_boxes

_INSIDE_CROWD = 0.5


def check_targets(targets: Mapping[str, jax.Array], x: jax.Array) -> tuple[jax.Array, ...]:
    """Boxes, classes, masks, and which entries are crowds, of a batch of images."""
    missing = {"boxes", "labels", "masks"} - targets.keys()
    if missing:
        fail("targets", "boxes, labels and masks", sorted(targets))
    boxes, labels, masks = (targets[name] for name in ("boxes", "labels", "masks"))
    check_shape("targets labels", labels, (x.shape[0], None))
    check_shape("targets boxes", boxes, (*labels.shape, 4))
    check_shape("targets masks", masks, (*labels.shape, *x.shape[1:3]))
    crowd = targets.get("crowd", jnp.zeros(labels.shape, bool))
    check_shape("targets crowd", crowd, labels.shape)
    return boxes, labels, masks, crowd & (labels >= 0)


def match(
    boxes: jax.Array,
    truth: jax.Array,
    valid: jax.Array,
    crowd: jax.Array,
    *,
    high: float,
    low: float,
    low_quality: bool,
) -> jax.Array:
    """`match_boxes` [B, N]; what is to find nothing, but lies in a crowd for more than a half, is left out as -2."""
    found = match_boxes(box_iou(truth, boxes), valid, high=high, low=low, low_quality=low_quality)
    corners = (
        jnp.maximum(truth[:, :, None, :2], boxes[:, None, :, :2]),
        jnp.minimum(truth[:, :, None, 2:], boxes[:, None, :, 2:]),
    )
    common = jnp.where(crowd[..., None], area(jnp.concatenate(corners, axis=-1)), 0)
    inside = jnp.max(common, axis=1, initial=0) > _INSIDE_CROWD * area(boxes)
    return jnp.where((found == -1) & inside, -2, found)


def draw(key: jax.Array, matched: jax.Array, *, count: int, share: float) -> jax.Array:
    """Numbers [B, count] of entries drawn at random of each image, -1 behind the last.

    First those that have a match, at most the `share` of `count`, then those that are to find nothing (-1). An image's
    draws depend on the key and on its place in the batch.
    """
    total = matched.shape[1]
    count, most = min(count, total), min(int(count * share), total)
    keys = jax.random.split(key, matched.shape[0])
    order = jax.vmap(lambda key: jax.random.uniform(key, (total,)))(keys)
    some, positive = jax.lax.top_k(jnp.where(matched >= 0, order, -1), most)
    others, negative = jax.lax.top_k(jnp.where(matched == -1, order, -1), count)
    left = count - jnp.sum(some >= 0, axis=1, keepdims=True)
    taken = jnp.concatenate([some >= 0, (others >= 0) & (jnp.arange(count)[None] < left)], axis=1)
    chosen = jnp.where(taken, jnp.concatenate([positive, negative], axis=1), -1)
    return jnp.take_along_axis(chosen, jnp.argsort(~taken, axis=1, stable=True)[:, :count], axis=1)


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """|d| - beta / 2, and within beta d^2 / (2 beta)."""
    size = jnp.abs(difference)
    return size if beta == 0 else jnp.where(size < beta, difference**2 / (2 * beta), size - beta / 2)


def binary_cross_entropy(logits: jax.Array, wanted: jax.Array) -> jax.Array:
    """Of each entry."""
    return jax.nn.softplus(logits) - logits * wanted


def cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Of each entry of [..., K], integers [...]."""
    chosen = jnp.take_along_axis(logits, classes[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def box_loss(
    deltas: jax.Array,
    boxes: jax.Array,
    truth: jax.Array,
    positive: jax.Array,
    *,
    beta: float,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> jax.Array:
    """The sum over positive entries of smooth L1 losses; the others may be any boxes."""
    unit = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0, 1.0], boxes.dtype), boxes.shape)
    there = positive[..., None]
    wanted = encode_boxes(jnp.where(there, truth, unit), jnp.where(there, boxes, unit), weights=weights)
    return jnp.sum(jnp.where(there, smooth_l1(deltas - wanted, beta), 0))


def mean(x: jax.Array, counted: jax.Array) -> jax.Array:
    """Over what counts; 0 where nothing does."""
    return jnp.sum(jnp.where(counted, x, 0)) / jnp.maximum(jnp.sum(counted), 1).astype(x.dtype)
