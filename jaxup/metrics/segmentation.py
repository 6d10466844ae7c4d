"""Measures of label maps, from counts that are made on the device and summed over batches.

Label maps are integers [B, H, W]. A pixel whose label is `ignore_label`, or no class at all, counts nowhere. Counts are
int32, exact up to 2^31 pixels of one kind; scores are made of them at the end, on the host, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import check_int, check_rank, check_shape, fail, jit


@jit(static_argnames=("num_classes", "ignore_label"))
def confusion_matrix(x: jax.Array, labels: jax.Array, *, num_classes: int, ignore_label: int | None = 255) -> jax.Array:
    """Count pixels by their label and their prediction: N[l, p] = |{labels = l and x = p}|.

    Args:
        x: predicted classes, integers [B, H, W].
        labels: true classes, integers [B, H, W].
        num_classes: K.
        ignore_label: label of pixels that do not count; None: all classes count.

    Returns:
        int32 [K, K], a row for each label. Sum it over batches.

    Raises:
        ValueError: a map is not of integers [B, H, W], or the shapes differ.

    Example:
        >>> x, labels = jnp.array([[[0, 1, 1]]]), jnp.array([[[0, 0, 255]]])
        >>> confusion_matrix(x, labels, num_classes=2)
        Array([[1, 1],
               [0, 0]], dtype=int32)

    Reference:
        Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010.
    """
    check_int("num_classes", num_classes)
    x, labels = masked(x, labels, num_classes, ignore_label)
    return counts(jnp.where(x < 0, -1, labels * num_classes + x), num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Scores per class, and their means, of the counts of `confusion_matrix`.

    With I the pixels of a class that are found, L those of its label, and P those of its prediction:

        IoU = I / (L + P - I),  Acc = I / L,  Precision = I / P,  Dice = 2 I / (L + P),  aAcc = sum I / sum L

    Args:
        confusion: [K, K], a row for each label.

    Returns:
        "IoU", "Acc" (recall), "Precision" and "Dice" float64 [K], NaN where the denominator is 0; "mIoU", "mAcc",
        "mPrecision" and "mDice", their means over the classes that are not NaN; "aAcc", the share of correct pixels.

    Raises:
        ValueError: the counts are not [K, K].

    Example:
        >>> scores = class_scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        >>> scores["IoU"], round(float(scores["mIoU"]), 3), float(scores["aAcc"])
        (array([0.75, 0.8 ,  nan]), 0.775, 0.875)

    Reference:
        Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
    """
    n = np.asarray(confusion, np.float64)
    if n.ndim != 2 or n.shape[0] != n.shape[1]:
        fail("confusion", "counts [K, K]", list(n.shape))
    found, labelled, predicted = n.diagonal(), n.sum(1), n.sum(0)
    scores = {
        "IoU": share(found, labelled + predicted - found),
        "Acc": share(found, labelled),
        "Precision": share(found, predicted),
        "Dice": share(2 * found, labelled + predicted),
    }
    return scores | {f"m{k}": _mean(v) for k, v in scores.items()} | {"aAcc": share(found.sum(), labelled.sum())}


def check_labels(name: str, labels: jax.Array) -> None:
    """Require integers [B, H, W]."""
    check_rank(name, labels, 3, "[B, H, W]")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        fail(name, "integers", jnp.result_type(labels))


def masked(x: jax.Array, labels: jax.Array, num_classes: int, ignore_label: int | None) -> tuple[jax.Array, jax.Array]:
    """Predictions and labels in int32, both -1 where the label does not count; a prediction that is no class is -1."""
    check_labels("labels", labels)
    check_labels("x", x)
    check_shape("x", x, jnp.shape(labels))
    x, labels = jnp.asarray(x, jnp.int32), jnp.asarray(labels, jnp.int32)
    valid = (labels >= 0) & (labels < num_classes)
    if ignore_label is not None:
        valid &= labels != ignore_label
    return jnp.where(valid & (x >= 0) & (x < num_classes), x, -1), jnp.where(valid, labels, -1)


def counts(classes: jax.Array, count: int) -> jax.Array:
    """How often each of 0 .. count - 1 is there; by image first, so that a batch may be spread over devices."""

    def of_image(image: jax.Array) -> jax.Array:
        at = jnp.where(image < 0, count, image).ravel()
        return jnp.zeros(count, jnp.int32).at[at].add(1, mode="drop")

    return jax.vmap(of_image)(classes).sum(0)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    quotient: np.ndarray = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return quotient


def _mean(scores: np.ndarray) -> np.ndarray:
    """Over what is not NaN; NaN if nothing is left."""
    known = scores[~np.isnan(scores)]
    return share(known.sum(), np.asarray(known.size))
