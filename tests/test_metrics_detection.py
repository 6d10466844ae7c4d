"""Average precision of detections, by pycocotools: against counting by hand, and at the borders of what there is."""

import sys

import numpy as np
import pytest

from jaxup.files import InputError
from jaxup.metrics import average_precision, encode_masks


def measured(found, truth, **options):
    return average_precision(found=found, truth=truth, **options)


def objects(*boxes, size=(120, 120), **others):
    """Boxes (x1, y1, x2, y2, label) with their areas as masks."""
    corners = np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    labels = np.array([box[4] for box in boxes], np.int32)
    return {"boxes": corners, "labels": labels, "masks": masks} | {k: np.array(v) for k, v in others.items()}


def both(found, truth):
    """By boxes and by masks, which are the same here."""
    pytest.importorskip("pycocotools")
    scores = measured(found, truth), measured(found, truth, masks=True)
    coded = measured([image | {"masks": encode_masks(image["masks"])} for image in found], truth, masks=True)
    np.testing.assert_equal(coded, scores[1])
    np.testing.assert_allclose([*scores[0].values()], [*scores[1].values()], atol=1e-12)
    return scores[0]


def test_counted_by_hand():
    """One object is met at an IoU of 0.8, one is not, and a false detection is the best: precision is 1/2 up to a
    recall of 1/2, which is 51 of 101 steps, at 7 of 10 thresholds."""
    truth = [objects((0, 0, 10, 10, 3), (40, 40, 80, 80, 3)), objects()]
    found = [objects((0, 0, 10, 8, 3), scores=[0.5]), objects((5, 5, 9, 9, 3), scores=[0.9])]
    scores = both(found, truth)
    half = 51 / 101 / 2
    assert scores["AP"] == pytest.approx(0.7 * half) and scores["AP50"] == scores["AP75"] == pytest.approx(half)
    # Among the small ones there is one object, and it is found behind a false one; that of 40 x 40 pixels is missed.
    assert scores["APs"] == pytest.approx(0.7 / 2) and scores["APm"] == 0 and np.isnan(scores["APl"])


def test_classes_count_alike_and_are_told_apart():
    truth = [objects((0, 0, 10, 10, 0), (20, 20, 30, 30, 7), (50, 0, 60, 10, 7))]
    found = [objects((0, 0, 10, 10, 0), (20, 20, 30, 30, 0), (50, 0, 60, 10, 7), scores=[0.9, 0.8, 0.7])]
    assert both(found, truth)["AP"] == pytest.approx((1 + 51 / 101) / 2)


def test_crowds_padding_and_single_pixels():
    """What lies in a crowd, and what has no label, neither counts as right nor as wrong; a pixel is an object."""
    truth = [objects((0, 0, 60, 60, 0), (70, 70, 71, 71, 0), crowd=[True, False])]
    found = [objects((5, 5, 20, 20, 0), (70, 70, 71, 71, 0), (90, 90, 99, 99, -1), scores=[0.9, 0.5, 0.7])]
    scores = both(found, truth)
    assert scores["AP"] == pytest.approx(1) and scores["APs"] == scores["AP"]
    alone = [truth[0] | {"crowd": np.array([False, False])}]
    assert both(found, alone)["AP"] == pytest.approx(51 / 101 / 2)


def test_no_objects():
    nothing, some = objects(scores=[]), objects((0, 0, 9, 9, 0), scores=[1.0])
    for found in (nothing, some):
        assert np.isnan([*both([found], [objects()]).values()]).all()
    assert both([nothing], [objects((0, 0, 9, 9, 0))])["AP"] == 0
    listed = {"boxes": [], "labels": [], "scores": [], "masks": []}  # as JSON has them
    assert measured([listed, some], [listed, objects((0, 0, 9, 9, 0))], masks=True)["AP"] == pytest.approx(1)


def test_given_areas_decide_on_the_size():
    """As COCO's annotations have areas of their own."""
    pytest.importorskip("pycocotools")
    found, truth = [objects((0, 0, 10, 10, 0), scores=[1.0])], objects((0, 0, 10, 10, 0))
    for area, name in ((1000, "APs"), (2000, "APm"), (10000, "APl")):
        scores = measured(found, [truth | {"areas": np.array([area])}], masks=True)
        assert (
            scores[name] == pytest.approx(1) and np.isnan([scores[k] for k in ("APs", "APm", "APl") if k != name]).all()
        )
    # A thin mask in a large box is small, for boxes as well.
    thin = {"boxes": np.array([[0, 0, 100, 100.0]]), "labels": np.array([0]), "masks": np.eye(100, dtype=bool)[None]}
    assert measured([thin | {"scores": np.ones(1)}], [thin])["APs"] == pytest.approx(1)


def test_faults():
    pytest.importorskip("pycocotools")
    truth = objects((0, 0, 9, 9, 0))
    with pytest.raises(ValueError, match="found: expected as many images as truth, 1, got 0"):
        measured([], [truth])
    with pytest.raises(ValueError, match="found: expected 1 of each kind in image 0, got 2 of score"):
        measured([truth | {"scores": np.ones(2)}], [truth])
    with pytest.raises(ValueError, match=r"truth: expected labels \[N\] and boxes \[N, 4\] of image 0"):
        measured([truth | {"scores": np.ones(1)}], [truth | {"boxes": np.zeros((1, 5))}])
    with pytest.raises(ValueError, match=r"masks: expected booleans \[N, H, W\], got uint8"):
        encode_masks(np.zeros((1, 2, 3), np.uint8))


def test_without_pycocotools(monkeypatch):
    for name in ("pycocotools", *(f"pycocotools.{part}" for part in ("mask", "coco", "cocoeval"))):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: measured([], []), lambda: encode_masks(np.zeros((1, 2, 2), bool))):
        with pytest.raises(InputError, match=r'this needs pycocotools: pip install "jaxup\[detection\]"$'):
            call()
