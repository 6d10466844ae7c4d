"""Panoptic quality of maps of segments, on NumPy arrays."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxup._checks import fail


class Segment(NamedTuple):
    """What a number in a map of segments stands for.

    Attributes:
        id: the number.
        category: of things or stuff.
        crowd: whether it is a group of things that were not told apart; only of true segments.

    Args:
        id: see above.
        category: see above.
        crowd: see above.

    Returns:
        A tuple.

    Example:
        >>> Segment(7, 1)
        Segment(id=7, category=1, crowd=False)

    Reference:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, section 3.
    """

    id: int
    category: int
    crowd: bool = False


def panoptic_counts(
    x: np.ndarray,
    truth: np.ndarray,
    *,
    segments: Iterable[Segment],
    truth_segments: Iterable[Segment],
    categories: Sequence[int],
    void: int = 0,
) -> np.ndarray:
    """Match the segments of an image: those of one category whose IoU is above 1/2, of which there is one at most.

    The union leaves out what of the prediction is void in the truth. A crowd is never matched, and does not count as
    missing; a prediction without match does not count where more than half of it is void or on the crowd of its
    category (of several crowds, the last).

    Args:
        x: predicted segments, integers [H, W].
        truth: true segments, integers [H, W].
        segments: what stands in `x`.
        truth_segments: what stands in `truth`.
        categories: all of them.
        void: number of pixels without a segment, in both maps.

    Returns:
        float64 [len(categories), 4]: the sum of the IoU of matches, and numbers of matches (TP), of predictions
        without match (FP), and of true segments without match (FN). Sum it over images.

    Raises:
        ValueError: the maps are not of integers [H, W] or differ in size, `x` and `segments` do not have the same
            numbers, or a category is none of `categories`.

    Example:
        >>> truth, x = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[5, 5, 5, 6, 6, 6]])
        >>> pairs = {"truth_segments": [Segment(1, 0), Segment(2, 1)], "segments": [Segment(5, 0), Segment(6, 1)]}
        >>> panoptic_counts(x, truth, **pairs, categories=(0, 1)).round(3)
        array([[0.75 , 1.   , 0.   , 0.   ],
               [0.667, 1.   , 0.   , 0.   ]])

    Reference:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4; crowds as in the COCO panoptic task.
    """
    if truth.ndim != 2 or truth.dtype.kind not in "iu":
        fail("truth", "integers [H, W]", f"{truth.dtype} {list(truth.shape)}")
    if x.shape != truth.shape or x.dtype.kind not in "iu":
        fail("x", f"integers of the shape of truth, {truth.shape}", f"{x.dtype} {x.shape}")
    given, wanted = {s.id: s for s in segments}, {s.id: s for s in truth_segments}
    _check(given.keys() - {void}, set(np.unique(x).tolist()) - {void})
    rows = {category: row for row, category in enumerate(categories)}
    for segment in (*given.values(), *wanted.values()):
        if segment.category not in rows:
            fail("segments", f"categories of {list(categories)}", segment)
    overlap = _overlap(truth, x)
    matched = _matches(overlap, given, wanted, void)
    counts = np.zeros((len(rows), 4))
    for (_, found), iou in matched.items():
        counts[rows[given[found].category]] += (iou, 1, 0, 0)
    crowds = {s.category: s.id for s in wanted.values() if s.crowd}
    for found in given.keys() - {found for _, found in matched}:
        category = given[found].category
        spared = overlap[void, found] + (overlap[crowds[category], found] if category in crowds else 0)
        counts[rows[category], 2] += spared <= (x == found).sum() / 2
    for true in wanted.keys() - {true for true, _ in matched}:
        counts[rows[wanted[true].category], 3] += not wanted[true].crowd
    return counts


def _overlap(truth: np.ndarray, x: np.ndarray) -> Counter[tuple[int, int]]:
    """Pixels by (true, predicted) segment."""
    pairs, sizes = np.unique(np.stack([truth.ravel(), x.ravel()]).astype(np.int64), axis=1, return_counts=True)
    return Counter(dict(zip(map(tuple, pairs.T.tolist()), sizes.tolist(), strict=True)))


def _matches(
    overlap: Counter[tuple[int, int]], given: Mapping[int, Segment], wanted: Mapping[int, Segment], void: int
) -> dict[tuple[int, int], float]:
    """IoU by (true, predicted) segment that match."""
    true_area, found_area = Counter[int](), Counter[int]()
    for (true, found), common in overlap.items():
        true_area[true] += common
        found_area[found] += common
    matched = {}
    for (true, found), common in overlap.items():
        if true in wanted and found in given and not wanted[true].crowd:
            union = true_area[true] + found_area[found] - common - overlap[void, found]
            if wanted[true].category == given[found].category and common > union / 2:
                matched[true, found] = common / union
    return matched


def panoptic_quality(counts: np.ndarray) -> np.ndarray:
    """Panoptic, segmentation and recognition quality of each category, of the counts of `panoptic_counts`.

        PQ = sum IoU / (TP + FP / 2 + FN / 2),    SQ = sum IoU / TP,    RQ = TP / (TP + FP / 2 + FN / 2)

    Args:
        counts: [n, 4].

    Returns:
        float64 [n, 3]: PQ = SQ * RQ, SQ and RQ. NaN for a category that is nowhere; the means over all others, or over
        some rows of them, are those of `np.nanmean(..., axis=0)`. SQ is 0 where nothing matches.

    Raises:
        ValueError: the counts are not [n, 4].

    Example:
        >>> panoptic_quality(np.array([[1.5, 2, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]))
        array([[0.5       , 0.75      , 0.66666667],
               [0.        , 0.        , 0.        ],
               [       nan,        nan,        nan]])

    Reference:
        Kirillov et al., Panoptic Segmentation, CVPR 2019, eqs. 1 and 2.
    """
    if np.ndim(counts) != 2 or counts.shape[1] != 4:
        fail("counts", "[n, 4]", list(np.shape(counts)))
    total, hits, extra, missing = np.asarray(counts, np.float64).T
    whole = hits + extra / 2 + missing / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        within = np.where(whole > 0, np.where(hits > 0, total / hits, 0), np.nan)
        return np.stack([total / whole, within, hits / whole], axis=1)


def _check(listed: Collection[int], present: Collection[int]) -> None:
    if set(listed) != set(present):
        fail("segments", f"the numbers in x, {sorted(present)}", sorted(listed))
