"""The loss of MaskFormer: targets are matched with queries, at the least cost, and compared with those."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_float, check_int, check_shape, jit
from jaxup.ops.resize import resize

_ALPHA, _GAMMA = 0.25, 2


@jit()
def maskformer_loss(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    classes: jax.Array,
    masks: jax.Array,
    *,
    class_weight: float = 1.0,
    mask_weight: float = 20.0,
    dice_weight: float = 1.0,
    none_weight: float = 0.1,
) -> dict[str, jax.Array]:
    """Cross entropy of the classes, focal and Dice loss of the masks, after matching.

        loss = class_weight * cross_entropy + mask_weight * focal + dice_weight * dice

    Each target is compared with the query that `match_targets` finds for it; a query without one has the class "none",
    whose weight in the (weighted) mean over queries is `none_weight`. Mask logits are enlarged bilinearly to the
    targets' size. Per target the focal loss is the mean over pixels of  a_t (1 - p_t)^2 (-log p_t)  with p_t the
    probability of what is there, and a_t = 0.25 inside of the mask, 0.75 outside; Dice is
    1 - (2 sum(p t) + 1) / (sum p + sum t + 1). Both are summed and divided by the number of targets in the batch.

    Args:
        class_logits: [B, N, C + 1], the last for "none".
        mask_logits: [B, h, w, N].
        classes: integers [B, T]; entries below 0 fill up where an image has fewer than T targets.
        masks: [B, H, W, T], 0 or 1, of any type.
        class_weight: of the cross entropy.
        mask_weight: of the focal loss.
        dice_weight: of the Dice loss.
        none_weight: of the class "none" inside the cross entropy.

    Returns:
        Scalars "loss", "cross_entropy", "mask" and "dice", the last three without weights, in float32 or more.

    Raises:
        ValueError: arrays whose shapes do not fit.

    Example:
        >>> classes, masks = jnp.array([[1, -1]]), jnp.ones((1, 8, 8, 2))
        >>> losses = maskformer_loss(jnp.zeros((1, 3, 5)), jnp.zeros((1, 4, 4, 3)), classes, masks)
        >>> round(float(losses["cross_entropy"]), 4)
        1.6094

    Reference:
        Cheng et al., Per-Pixel Classification is Not All You Need for Semantic Segmentation, NeurIPS 2021, Eq. 2, with
        the constants of Hugging Face transformers (Apache-2.0).
    """
    queries = match_targets(
        class_logits, mask_logits, classes, masks, class_cost=class_weight, mask_cost=mask_weight, dice_cost=dice_weight
    )
    dtype = accum_dtype(mask_logits)
    found, number = queries >= 0, class_logits.shape[1]
    hits = queries[:, None] == jnp.arange(number, dtype=queries.dtype)[None, :, None]  # [B, N, T]
    labels = jnp.where(hits, classes[:, None], 0).sum(2)
    labels = jnp.where(hits.any(2), labels, class_logits.shape[2] - 1)
    cross_entropy = _cross_entropy(class_logits.astype(dtype), labels, none_weight)

    chosen = jnp.take_along_axis(mask_logits.astype(dtype), jnp.maximum(queries, 0)[:, None, None], axis=3)
    logits = resize(chosen, size=masks.shape[1:3], method="bilinear")
    targets = masks.astype(dtype)
    focal = jnp.mean(targets * _focal(logits, True) + (1 - targets) * _focal(logits, False), axis=(1, 2))
    share = jax.nn.sigmoid(logits)
    both, sums = jnp.sum(share * targets, axis=(1, 2)), jnp.sum(share + targets, axis=(1, 2))
    dice = 1 - (2 * both + 1) / (sums + 1)
    count = jnp.maximum(jnp.sum(classes >= 0), 1).astype(dtype)
    mask, dice = (jnp.sum(jnp.where(found, per_target, 0.0)) / count for per_target in (focal, dice))
    loss = class_weight * cross_entropy + mask_weight * mask + dice_weight * dice
    return {"loss": loss, "cross_entropy": cross_entropy, "mask": mask, "dice": dice}


@jit()
def match_targets(
    class_logits: jax.Array,
    mask_logits: jax.Array,
    classes: jax.Array,
    masks: jax.Array,
    *,
    class_cost: float = 1.0,
    mask_cost: float = 20.0,
    dice_cost: float = 1.0,
) -> jax.Array:
    """The query of each target, such that the sum of costs over an image is the least (Hungarian algorithm).

        cost = mask_cost * focal + dice_cost * dice - class_cost * softmax(class_logits)_class

    with the focal and Dice loss of `maskformer_loss`, here at the size of the logits, to which targets are resized by
    their nearest pixels. It runs on the host, also inside of `jax.jit`, and has no gradient.

    Args:
        class_logits: [B, N, C + 1].
        mask_logits: [B, h, w, N].
        classes: integers [B, T], below 0 where there is no target.
        masks: [B, H, W, T], 0 or 1.
        class_cost: weight of the class' probability.
        mask_cost: weight of the focal loss.
        dice_cost: weight of the Dice loss.

    Returns:
        Integers [B, T]: the number of the query; -1 where there is no target, and for those targets that are left where
        there are more than N.

    Raises:
        ValueError: arrays whose shapes do not fit.

    Example:
        >>> logits = jnp.array([[[-9.0, 9.0]], [[9.0, -9.0]]])[None, :, 0]  # the first query has the second pixel
        >>> masks = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
        >>> match_targets(jnp.zeros((1, 2, 3)), logits.reshape(1, 2, 1, 2), jnp.array([[0, 1]]), masks).tolist()
        [[1, 0]]

    Reference:
        As `maskformer_loss`; Crouse, On implementing 2D rectangular assignment algorithms, 2016 (SciPy).
    """
    _check(class_logits, mask_logits, classes, masks)
    class_logits, mask_logits = (jax.lax.stop_gradient(x) for x in (class_logits, mask_logits))
    dtype = accum_dtype(mask_logits)
    probabilities = jax.nn.softmax(class_logits.astype(dtype), axis=-1)
    wanted = jnp.take_along_axis(probabilities, jnp.maximum(classes, 0)[:, None], axis=2)  # [B, N, T]
    logits = mask_logits.astype(dtype)
    targets = resize(masks.astype(dtype), size=logits.shape[1:3], method="nearest")
    focal = _products(_focal(logits, True), targets) + _products(_focal(logits, False), 1 - targets)
    focal = focal / (logits.shape[1] * logits.shape[2])
    share = jax.nn.sigmoid(logits)
    sums = jnp.sum(share, axis=(1, 2))[:, :, None] + jnp.sum(targets, axis=(1, 2))[:, None]
    dice = 1 - (2 * _products(share, targets) + 1) / (sums + 1)
    cost = mask_cost * focal + dice_cost * dice - class_cost * wanted
    result = jax.eval_shape(lambda classes: classes.astype(jnp.int32), classes)
    matched: jax.Array = jax.pure_callback(_assign, result, cost, classes >= 0, vmap_method="sequential")
    return matched


def _products(queries: jax.Array, targets: jax.Array) -> jax.Array:
    """Sums over the pixels for each pair, [B, N, T]."""
    return jnp.einsum("bhwq,bhwt->bqt", queries, targets)


def class_targets(labels: jax.Array, *, num_classes: int, targets: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The targets of semantic segmentation: one mask for each class that an image has.

    Args:
        labels: integers [B, H, W]; pixels with other labels than 0 to num_classes - 1 are in no mask.
        num_classes: C.
        targets: T, how many there may be in an image; of more, those with the most pixels stay. None: C.

    Returns:
        (classes, masks): integers [B, T], -1 where there are fewer; and booleans [B, H, W, T].

    Example:
        >>> classes, masks = class_targets(jnp.array([[[1, 1, 255]]]), num_classes=3, targets=2)
        >>> classes.tolist(), masks[0, 0, :, 0].tolist()
        ([[1, -1]], [True, True, False])

    Reference:
        As `maskformer_loss`, Sec. 4.1.
    """
    number = min(
        check_int("num_classes", num_classes), num_classes if targets is None else check_int("targets", targets)
    )
    check_shape("labels", labels, (None, None, None))
    labels = labels.astype(jnp.int32)
    known = jnp.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    counts = jax.vmap(lambda x: jnp.bincount(x.reshape(-1), length=num_classes + 1))(known)
    counts, classes = jax.lax.top_k(counts[:, :num_classes], number)
    classes = jnp.where(counts > 0, classes, -1)
    return classes, (labels[..., None] == classes[:, None, None]) & (classes >= 0)[:, None, None]


def _check(class_logits: jax.Array, mask_logits: jax.Array, classes: jax.Array, masks: jax.Array) -> None:
    check_float("class_logits", class_logits)
    check_float("mask_logits", mask_logits)
    check_shape("class_logits", class_logits, (None, None, None))
    batch, number, _ = class_logits.shape
    check_shape("mask_logits", mask_logits, (batch, None, None, number))
    check_shape("classes", classes, (batch, None))
    check_shape("masks", masks, (batch, None, None, classes.shape[1]))


def _focal(logits: jax.Array, inside: bool) -> jax.Array:
    """The focal loss of pixels, all of them inside of the mask or outside."""
    logits, alpha = (logits, _ALPHA) if inside else (-logits, 1 - _ALPHA)
    return alpha * jax.nn.sigmoid(-logits) ** _GAMMA * jax.nn.softplus(-logits)


def _cross_entropy(logits: jax.Array, labels: jax.Array, none_weight: float) -> jax.Array:
    weights = jnp.where(labels == logits.shape[-1] - 1, none_weight, 1.0).astype(logits.dtype)
    log = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), labels[..., None], axis=2)[..., 0]
    return -jnp.sum(weights * log) / jnp.sum(weights)


def _assign(cost: Any, valid: Any) -> np.ndarray:
    """On the host: the assignment of one image after the other."""
    from scipy.optimize import linear_sum_assignment  # here, because only this needs it

    cost, valid = np.asarray(cost, np.float64), np.asarray(valid)
    result = np.full(valid.shape, -1, np.int32)
    for row, costs, given in zip(result, cost, valid, strict=True):
        # SciPy refuses what is not a number; the loss will not be one either, and says so better.
        chosen, target = linear_sum_assignment(np.nan_to_num(costs[:, given], posinf=1e30, neginf=-1e30))
        row[np.flatnonzero(given)[target]] = chosen
    return result
