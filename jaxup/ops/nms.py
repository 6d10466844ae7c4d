"""Suppression of boxes that overlap a better one, with a fixed number of results."""

import jax
import jax.numpy as jnp

from jaxup._checks import check_float, check_int, check_shape, jit
from jaxup.ops.boxes import box_iou, check_boxes


def nms(
    boxes: jax.Array, scores: jax.Array, labels: jax.Array | None = None, *, threshold: float, count: int
) -> jax.Array:
    """Boxes by falling score, without those that overlap an earlier one of the same label too much.

    As many steps as there are results, one after the other: each takes the best box that is left and strikes out those
    whose IoU with it is above the threshold. There is no gradient.

    Args:
        boxes: [..., N, 4].
        scores: [..., N]; boxes with a score of minus infinity or NaN are never taken. Of equal ones the first comes
            first.
        labels: integers [..., N]; boxes strike out those of their label alone. None: they are all of one.
        threshold: the largest IoU that two results may have.
        count: K, how many results there are at most.

    Returns:
        int32 [..., K]: numbers of boxes; -1 from where on there are no more.

    Raises:
        ValueError: arrays whose shapes do not fit, or a wrong count.

    Example:
        >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
        >>> nms(boxes, jnp.array([0.5, 0.9, 0.1]), threshold=0.5, count=3)
        Array([ 1,  2, -1], dtype=int32)

    Reference:
        Girshick et al., Rich Feature Hierarchies for Accurate Object Detection, CVPR 2014, Sec. 2.2.
    """
    check_boxes("boxes", boxes)
    check_float("scores", scores)
    check_shape("scores", scores, boxes.shape[:-1])
    if labels is not None:
        check_shape("labels", labels, scores.shape)
    return _nms(boxes, scores, labels, threshold, check_int("count", count))


@jit(static_argnums=4)
def _nms(boxes: jax.Array, scores: jax.Array, labels: jax.Array | None, threshold: float, count: int) -> jax.Array:
    if scores.shape[-1] == 0:
        return jnp.full(scores.shape[:-1] + (count,), -1, jnp.int32)
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    places = jnp.arange(scores.shape[-1], dtype=jnp.int32).reshape((1,) * (scores.ndim - 1) + (-1,))

    def step(left: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        best = jnp.argmax(left, axis=-1, keepdims=True).astype(jnp.int32)
        some = jnp.take_along_axis(left, best, axis=-1) > -jnp.inf
        overlap = box_iou(jnp.take_along_axis(boxes, best[..., None], axis=-2), boxes)[..., 0, :]
        struck = overlap > threshold
        if labels is not None:
            struck &= labels == jnp.take_along_axis(labels, best, axis=-1)
        left = jnp.where(struck | (places == best), -jnp.inf, left)
        return left, jnp.where(some, best, -1)[..., 0]

    start = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    return jnp.moveaxis(jax.lax.scan(step, start, None, length=count)[1], 0, -1)
