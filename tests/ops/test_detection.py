"""Boxes, RoIAlign, suppression and masks of boxes, against loops and the golden vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import random
from tests.oracles import detection as oracle

CASES = goldens.cases("detection/*", {"helpers__240040", "mmdet_helpers__260000", "roi_align__aligned_adaptive"})


@pytest.mark.parametrize("case", [case for case in CASES if "heads" not in str(case)])
@pytest.mark.first(1)
def test_golden(case):
    """Not in 16 bits, in which boxes are others."""
    goldens.check(goldens.load(case), half=False)


def some_boxes(count=7, side=20.0, seed=0):
    """Of all sizes, some partly outside."""
    draw = np.random.default_rng(seed)
    centre, half = draw.uniform(-2, side + 2, (count, 2)), side * draw.uniform(0.02, 1, (count, 2)) ** 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


# Inside, outside, across the borders, larger than the map, smaller than a pixel, without width, turned around.
STRANGE = [[2, 3, 9, 8], [40, 40, 50, 50], [-9, -4, 3, 2], [-12, -10, 26, 24], [4.2, 4.1, 4.4, 4.3], [3, 1, 3, 9]]
STRANGE = np.array([[*STRANGE, [8, 8, 2, 3]]], np.float32)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("shape", [(1, 6, 9, 2), (1, 1, 1, 1)])
@pytest.mark.first(1)
def test_roi_align(shape, ratio, aligned):
    x = random(*shape)
    actual = ops.roi_align(x, STRANGE, size=(2, 3), stride=2, sampling_ratio=ratio, aligned=aligned, max_samples=20)
    assert_close(actual, oracle.roi_align(x, STRANGE, (2, 3), 2, ratio, aligned), 1e-5)


def test_levels():
    """On the map that fits, as if that was alone; odd sizes, and maps beside each other that do not leak."""
    maps = [random(2, 9, 7, 3), random(2, 5, 4, 3), 1e3 + random(2, 3, 2, 3)]
    boxes = np.stack([some_boxes(8, 30, seed) for seed in (1, 2)])
    boxes[0, 0], boxes[0, 1] = [0, 0, 32, 32], [0, 0, 16, 16]  # exactly on the edges of a level
    actual = ops.multilevel_roi_align(boxes, *maps, size=2, strides=(4, 8, 16), canonical=(16, 1))
    numbers = np.array([[oracle.level(box, 3, 16, 1) for box in image] for image in boxes])
    assert set(numbers.ravel()) == {0, 1, 2} and tuple(numbers[0, :2]) == (2, 1)
    each = [oracle.roi_align(x, boxes, (2, 2), 4 * 2**i, 2, True) for i, x in enumerate(maps)]
    assert_close(actual, np.select([numbers[..., None, None, None] == i for i in range(3)], each), 1e-5)


def test_more_samples_than_allowed():
    """No more than asked for; boxes that need fewer have what they need."""
    x, boxes = random(1, 12, 12, 1), np.array([[[0, 0, 11, 12], [1, 1, 4.5, 4.5]]], np.float32)
    found = ops.roi_align(x, boxes, size=2, sampling_ratio=0, max_samples=3)
    assert_close(found[:, :1], oracle.roi_align(x, boxes[:, :1], (2, 2), 1, 3, True), 1e-5)
    assert_close(found[:, 1:], oracle.roi_align(x, boxes[:, 1:], (2, 2), 1, 0, True), 1e-5)


def test_overlap():
    a, b = some_boxes(6), some_boxes(5, seed=1)
    a[0] = a[1, [0, 1, 0, 1]]  # without area
    table = ops.box_iou(a, b)
    assert_close(table, np.array([[oracle.iou(p, q) for q in b] for p in a]), 1e-6)
    assert_close(np.diag(ops.box_iou(b, b, generalised=True)), np.ones(5), 1e-6)
    far = jnp.array([[0.0, 0, 1, 1]]), jnp.array([[3.0, 0, 4, 1]])
    assert ops.box_iou(*far, generalised=True)[0, 0] == -0.5
    empty = jnp.zeros((2, 4))
    assert_finite(jax.jit(jax.grad(lambda x: ops.box_iou(x, empty, generalised=True).sum()))(empty))


def test_codes_come_back():
    boxes, anchors, weights = some_boxes(9), some_boxes(9, seed=3), (10.0, 10.0, 5.0, 5.0)
    boxes[0] = [3, 4, 4, 5]  # one pixel
    deltas = ops.encode_boxes(boxes, anchors, weights=weights)
    assert_close(ops.decode_boxes(deltas, anchors, weights=weights, limit=10.0), boxes, 1e-5)
    grown = jnp.array([[0.0, 0, 99, -99]])
    unit, limit = jnp.array([[0.0, 0, 1, 1]]), 1000 / 16
    for both, height in ((False, 0.0), (True, 1 / limit)):
        x1, y1, x2, y2 = ops.decode_boxes(grown, unit, both_sides=both)[0].tolist()
        assert (x2 - x1, y2 - y1) == pytest.approx((limit, height), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("low_quality", [True, False])
def test_matches(low_quality):
    table = np.array([[0.8, 0.5, 0.2, 0.0, 0.1], [0.1, 0.5, 0.2, 0.3, 0.0], [0.0] * 5], np.float32)
    found = ops.match_boxes(table[:2], high=0.7, low=0.3, low_quality=low_quality)
    assert found.tolist() == oracle.matches(table[:2], 0.7, 0.3, low_quality).tolist()
    options = dict(high=0.7, low=0.3, low_quality=low_quality)
    masked = ops.match_boxes(table[None], jnp.array([[True, True, False]]), **options)
    assert masked[0].tolist() == found.tolist()  # what is not there takes nothing
    assert ops.match_boxes(table, jnp.zeros(3, bool), **options).tolist() == [-1] * 5
    assert ops.match_boxes(table[:0], **options).tolist() == [-1] * 5


def test_suppression():
    """Equal scores, labels, nothing left, and a batch; minus infinity and NaN are never taken."""
    boxes = np.stack([some_boxes(20, 12, seed) for seed in (5, 6)])
    scores = np.random.default_rng(0).integers(0, 6, (2, 20)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 2, (2, 20)).astype(np.int32)
    found = np.asarray(ops.nms(boxes, scores, labels, threshold=0.3, count=20))
    for i in (0, 1):
        wanted = oracle.nms(boxes[i], scores[i], labels[i], 0.3)
        assert 3 < len(wanted) < 20
        assert found[i].tolist() == wanted + [-1] * (20 - len(wanted))
    assert np.array_equal(ops.nms(boxes, scores, labels, threshold=0.3, count=4), found[:, :4])
    scores[0], scores[1, 3:] = -np.inf, np.nan
    none = np.asarray(ops.nms(boxes, scores, labels, threshold=1.0, count=4))
    assert none[0].tolist() == [-1] * 4 and sorted(none[1].tolist()) == [-1, 0, 1, 2]
    assert ops.nms(boxes[:, :0], scores[:, :0], threshold=0.5, count=2).tolist() == [[-1, -1]] * 2


@pytest.mark.parametrize(("side", "threshold"), [(12, 0.3), (40, 0.7), (300, 0.5)])
def test_suppression_of_more_boxes_than_go_at_a_time(side, threshold):
    """Chains of boxes that strike each other out, within what goes at a time and across."""
    boxes = np.stack([some_boxes(230, side, seed) for seed in (7, 8)])
    scores = np.random.default_rng(2).integers(0, 60, (2, 230)).astype(np.float32)
    labels = np.random.default_rng(3).integers(0, 2, (2, 230)).astype(np.int32)
    scores[1, ::3] = -np.inf
    for of, marked in ((labels, labels), (None, 0 * labels)):
        found = np.asarray(ops.nms(boxes, scores, of, threshold=threshold, count=230))
        for i in (0, 1):
            there = np.flatnonzero(scores[i] > -np.inf)
            wanted = there[oracle.nms(boxes[i][there], scores[i][there], marked[i][there], threshold)].tolist()
            assert found[i].tolist() == wanted + [-1] * (230 - len(wanted))
        few = np.asarray(ops.nms(boxes, scores, of, threshold=threshold, count=7))
        assert np.array_equal(few, found[:, :7])


def test_pasted_and_cut_out():
    masks, boxes = np.abs(random(5, 4, 4)), some_boxes(5, 11, 2)
    boxes[0] = [3.5, 2.5, 4.2, 3.1]  # less than a pixel
    pasted = ops.paste_masks(masks, boxes, size=(9, 12))
    assert_close(pasted, np.stack([oracle.paste(m, b, (9, 12)) for m, b in zip(masks, boxes, strict=True)]), 1e-5)
    boxes, pasted = np.asarray(ops.clip_boxes(boxes, jnp.array([9.0, 12.0]))), np.asarray(pasted)
    index = np.array([[4, 0, 1, 3, -1]], np.int32)
    for aligned in (True, False):
        cut = ops.crop_masks(pasted[None], boxes[None], index, size=3, aligned=aligned)
        for n, mask in enumerate([4, 0, 1, 3, 0]):
            one = oracle.roi_align(pasted[mask][None, ..., None], boxes[None, n : n + 1], (3, 3), 1, 0, aligned)
            assert_close(cut[0, n], one[0, 0, ..., 0], 1e-5)


def test_pasted_as_mmdetection_does():
    """A box of whole pixels that a mask fits: the mask itself; beyond the box nothing."""
    mask = np.abs(random(1, 3, 3))
    pasted = ops.paste_masks(mask, np.array([[2, 1, 5, 4]], np.float32), size=(5, 6), whole_pixels=False)
    assert_close(pasted[0], np.pad(mask[0], ((1, 1), (2, 1))), 1e-6)
    empty = ops.paste_masks(mask, np.array([[2, 1, 2, 4]], np.float32), size=(5, 6), whole_pixels=False)
    assert not np.any(empty)


def test_errors():
    x, boxes = jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 3, 4))
    for message, call in {
        r"boxes: expected boxes \[..., 4\], got shape \(1, 3\)": lambda: ops.roi_align(x, boxes[..., 0], size=2),
        "strides: expected one for each of 2 maps": lambda: ops.multilevel_roi_align(boxes, x, x, size=2, strides=(4,)),
        "maps: expected shape": lambda: ops.multilevel_roi_align(boxes, x, x[..., :1], size=2, strides=(4, 8)),
        "sampling_ratio: expected an integer >= 0, got -1": lambda: ops.roi_align(x, boxes, size=2, sampling_ratio=-1),
        "scores: expected shape": lambda: ops.nms(boxes, jnp.zeros((1, 2)), threshold=0.5, count=1),
        "count: expected an integer >= 1, got 0": lambda: ops.nms(boxes, boxes[..., 0], threshold=0.5, count=0),
        "valid: expected shape": lambda: ops.match_boxes(jnp.zeros((2, 3)), jnp.ones(3, bool), high=0.5, low=0.5),
        "masks: expected": lambda: ops.paste_masks(jnp.zeros((3, 2, 4)), boxes[0], size=(4, 4)),
        "limits: expected shape": lambda: ops.clip_boxes(boxes, jnp.zeros(2)),
        "weights: expected four numbers": lambda: ops.encode_boxes(boxes, boxes, weights=(1.0, 2.0)),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
