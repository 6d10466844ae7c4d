"""Suppression of boxes that overlap a better one, with a fixed number of results."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxup._checks import check_float, check_int, check_shape, jit
from jaxup.ops.boxes import box_iou, check_boxes, pick

_BLOCK = 64


def nms(
    boxes: jax.Array, scores: jax.Array, labels: jax.Array | None = None, *, threshold: float, count: int
) -> jax.Array:
    """Boxes by falling score, without those that overlap an earlier one of the same label too much.

    The best box that is left is taken, and strikes out those whose IoU with it is above the threshold, until none is
    left or there are as many results as asked for. Boxes are sorted, and then go 64 at a time, as long as there are
    some: each is compared with the results so far, N K times at most. There is no gradient.

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
    leading, number = scores.shape[:-1], scores.shape[-1]
    if number == 0:
        return jnp.full((*leading, count), -1, jnp.int32)
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    labels = jnp.zeros(scores.shape, jnp.int32) if labels is None else labels
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores).reshape(-1, number)
    order = jnp.argsort(scores, axis=-1, descending=True, stable=True).astype(jnp.int32)
    pad = ((0, 0), (0, -number % _BLOCK))
    ranked = _Boxes(
        pick(boxes.reshape(-1, number, 4), jnp.pad(order, pad)),
        pick(labels.reshape(-1, number), jnp.pad(order, pad)),
    )
    found = _ranks(ranked, jnp.sum(scores > -jnp.inf, axis=-1, dtype=jnp.int32), threshold, count)
    return jnp.where(found < 0, -1, pick(order, found)).reshape(*leading, count)


class _Boxes(NamedTuple):
    at: jax.Array  # [B, N, 4]
    labels: jax.Array  # [B, N]

    def overlap(self, other: "_Boxes", threshold: float) -> jax.Array:
        """Booleans [B, N, M]."""
        return (box_iou(self.at, other.at) > threshold) & (self.labels[:, :, None] == other.labels[:, None])


def _ranks(ranked: _Boxes, valid: jax.Array, threshold: float, count: int) -> jax.Array:
    """The ranks of the results [B, K], -1 for none, of sorted boxes of which the first `valid` count."""
    batch = jnp.arange(valid.shape[0])[:, None]
    before = jnp.tri(_BLOCK, k=-1, dtype=bool).T[None]  # the first one has the higher score

    def block(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        start, taken, results = state
        here = _Boxes(*(jax.lax.dynamic_slice_in_dim(x, start, _BLOCK, axis=1) for x in ranked))
        better = _Boxes(*(pick(x, results) for x in ranked))
        places = start + jnp.arange(_BLOCK, dtype=jnp.int32)[None]
        struck = jnp.any(better.overlap(here, threshold) & (results >= 0)[:, :, None], axis=1)
        kept = _undisputed((places < valid[:, None]) & ~struck, here.overlap(here, threshold) & before)
        rank = jnp.where(kept, taken[:, None] + jnp.cumsum(kept, axis=1, dtype=jnp.int32) - 1, count)
        results = results.at[batch, rank].set(jnp.broadcast_to(places, rank.shape), mode="drop")
        return start + _BLOCK, taken + jnp.sum(kept, axis=1, dtype=jnp.int32), results

    def more(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        start, taken, _ = state
        return jnp.any((start < valid) & (taken < count))

    none = jnp.zeros_like(valid), jnp.full((valid.shape[0], count), -1, jnp.int32)
    results: jax.Array = jax.lax.while_loop(more, block, (jnp.zeros((), jnp.int32), *none))[2]
    return results


def _undisputed(there: jax.Array, strikes: jax.Array) -> jax.Array:
    """Which boxes [B, T] stay, if one that stays strikes out those that come after it: until nothing changes."""

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept = state[0]
        after = there & ~jnp.any(kept[:, :, None] & strikes, axis=1)
        return after, jnp.any(after != kept)

    start = there, jnp.ones((), bool)
    kept: jax.Array = jax.lax.while_loop(lambda state: state[1], step, start)[0]
    return kept
