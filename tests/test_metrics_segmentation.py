"""Measures of label maps: counts against loops, scores against their definitions, golden vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup import metrics
from tests import goldens
from tests.oracles import segmentation as oracle

RNG = np.random.default_rng(11)


def maps(shape, num_classes, coarse=3):
    """Blocky maps with ignored pixels, and labels and predictions that are no class."""
    height, width = (-(-n // coarse) for n in shape[1:])
    labels = RNG.integers(0, num_classes, (shape[0], height, width)).repeat(coarse, 1).repeat(coarse, 2)
    labels = labels[:, : shape[1], : shape[2]]
    x = np.where(RNG.random(shape) < 0.8, labels, RNG.integers(-1, num_classes + 1, shape))
    labels = np.where(RNG.random(shape) < 0.1, RNG.choice([255, num_classes, -1], shape), labels)
    return x, labels


@pytest.mark.parametrize("case", goldens.cases("metrics/*"))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("shape", [(2, 7, 10), (1, 1, 5), (3, 4, 1)])
def test_confusion_matrix_equals_the_loops(shape):
    for ignore in (255, 1, None):
        x, labels = maps(shape, 3)
        got = metrics.confusion_matrix(x, labels, num_classes=3, ignore_label=ignore)
        np.testing.assert_array_equal(got, oracle.confusion_matrix(x, labels, 3, ignore))
    assert got.dtype == jnp.int32


def test_counts_of_batches_add_up_whatever_the_integers():
    x, labels = maps((4, 6, 7), 4)
    x, labels = np.maximum(x, 0).astype(np.uint8), np.where(labels < 0, 255, labels).astype(np.uint8)
    for count in (metrics.confusion_matrix, metrics.boundary_areas):
        whole = count(x, labels, num_classes=4)
        np.testing.assert_array_equal(
            whole, count(x[:1], labels[:1], num_classes=4) + count(np.int64(x[1:]), np.int16(labels[1:]), num_classes=4)
        )


def test_class_scores():
    x, labels = maps((2, 9, 8), 3)
    counts = metrics.confusion_matrix(x, labels, num_classes=5)
    scores = metrics.class_scores(counts)
    valid = (labels >= 0) & (labels < 5) & (x >= 0)
    for c in range(3):
        true, found = valid & (labels == c), valid & (x == c)
        np.testing.assert_allclose(scores["IoU"][c], (true & found).sum() / (true | found).sum())
        np.testing.assert_allclose(scores["Acc"][c], (true & found).sum() / true.sum())
        np.testing.assert_allclose(scores["Precision"][c], (true & found).sum() / found.sum())
    np.testing.assert_allclose(scores["Dice"], 2 * scores["IoU"] / (1 + scores["IoU"]))
    assert np.isnan(scores["IoU"][4])
    assert scores["mIoU"] == np.nanmean(scores["IoU"])
    np.testing.assert_allclose(scores["aAcc"], (x == labels)[valid].mean())
    empty = metrics.class_scores(np.zeros((2, 2), int))  # no warning, but NaN
    assert all(np.isnan(value).all() for value in empty.values())
    large = metrics.class_scores(np.full((2, 2), 2**31 - 1, np.int32))
    assert large["mIoU"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(2, 11, 14), (1, 1, 9), (1, 3, 2)])
@pytest.mark.parametrize("ratio", [0.02, 0.13, 0.5])
@pytest.mark.first(3)
def test_boundaries_equal_the_loops(shape, ratio):
    x, labels = maps(shape, 3, coarse=5)
    valid = (labels >= 0) & (labels < 3)
    for keep in (False, True):
        want = np.zeros((3, 3), int)
        for i, c in np.ndindex(shape[0], 3):
            true = oracle.boundary(labels[i] == c, ratio)
            found = oracle.boundary((x[i] == c) & (valid[i] | keep), ratio)
            want[:, c] += (true & found).sum(), true.sum(), found.sum()
        got = metrics.boundary_areas(x, labels, num_classes=3, ratio=ratio, keep_ignored=keep)
        np.testing.assert_array_equal(got, want)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(metrics.boundary_iou(got), want[0] / (want[1] + want[2] - want[0]))


@pytest.mark.thorough
def test_under_a_mesh():
    """Counts of a batch that is spread over the devices are those of the whole."""
    x, labels = maps((4, 8, 8), 3)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        split = NamedSharding(mesh, PartitionSpec("data"))
        with jax.set_mesh(mesh):
            spread = jax.device_put(x, split), jax.device_put(labels, split)
            for count in (metrics.confusion_matrix, metrics.boundary_areas):
                want = count(x, labels, num_classes=3)
                np.testing.assert_array_equal(count(*spread, num_classes=3), want)


def test_errors():
    x = np.zeros((1, 2, 3), int)
    with pytest.raises(ValueError, match=r"labels: expected integers, got float"):
        metrics.confusion_matrix(x, x.astype(float), num_classes=2)
    with pytest.raises(ValueError, match=r"x: expected .*\(1, 2, 3\)|x: expected .*\[1, 2, 3\]"):
        metrics.boundary_areas(x[:, 1:], x, num_classes=2)
    with pytest.raises(ValueError, match=r"labels: expected .*\[B, H, W\]"):
        metrics.boundary_map(x[0])
    with pytest.raises(ValueError, match="ratio: expected"):
        metrics.boundary_map(x, ratio=0)
    with pytest.raises(ValueError, match=r"confusion: expected counts \[K, K\], got \[3\]"):
        metrics.class_scores(np.zeros(3))
    with pytest.raises(ValueError, match=r"areas: expected counts \[3, K\]"):
        metrics.boundary_iou(np.zeros((2, 3)))


def quality(x, truth, given, wanted, categories=(1, 2)):
    segments = {"segments": given, "truth_segments": wanted}
    return metrics.panoptic_counts(np.array([x]), np.array([truth]), **segments, categories=categories)


def test_panoptic_counts_by_hand():
    s = metrics.Segment
    # Two halves of one segment: neither has more than half of the union.
    np.testing.assert_allclose(
        quality([4, 4, 5, 5], [1, 1, 1, 1], [s(4, 1), s(5, 1)], [s(1, 1)]), [[0, 0, 2, 1], [0, 0, 0, 0]]
    )
    # What is void in the truth is not in the union; wrong categories do not match; half of it on void still counts.
    np.testing.assert_allclose(quality([4, 4, 4, 4, 4], [1, 1, 1, 0, 0], [s(4, 1)], [s(1, 1)]), [[1, 1, 0, 0], [0] * 4])
    np.testing.assert_allclose(quality([4, 4], [1, 1], [s(4, 2)], [s(1, 1)]), [[0, 0, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(quality([4, 4, 0], [0, 1, 1], [s(4, 2)], [s(1, 1)]), [[0, 0, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(quality([4, 4, 4], [0, 0, 1], [s(4, 2)], [s(1, 1)]), [[0, 0, 0, 1], [0] * 4])
    # On a crowd of its category a prediction does not count, on that of another it does; the crowd is never missing.
    crowd = [s(1, 1, True)]
    np.testing.assert_allclose(quality([4, 4], [1, 1], [s(4, 1)], crowd), np.zeros((2, 4)))
    np.testing.assert_allclose(quality([4, 4], [1, 1], [s(4, 2)], crowd), [[0] * 4, [0, 0, 1, 0]])


def test_panoptic_quality_is_a_product_and_perfect_for_the_truth():
    truth = [1, 1, 2, 3, 3, 3]
    segments = [metrics.Segment(1, 1), metrics.Segment(2, 2), metrics.Segment(3, 2)]
    counts = quality(truth, truth, segments, segments, categories=(1, 2, 7))
    np.testing.assert_allclose(metrics.panoptic_quality(counts), [[1] * 3, [1] * 3, [np.nan] * 3])
    pq, sq, rq = metrics.panoptic_quality(np.array([[1.7, 2, 3, 1], [0, 0, 2, 0]])).T
    np.testing.assert_allclose(pq, sq * rq)


def test_panoptic_errors():
    s = metrics.Segment
    with pytest.raises(ValueError, match=r"segments: expected the numbers in x, \[4\], got \[5\]"):
        quality([4, 4], [1, 1], [s(5, 1)], [s(1, 1)])
    with pytest.raises(ValueError, match=r"segments: expected categories of \[1, 2\], got Segment\(id=1, category=3"):
        quality([4, 4], [1, 1], [s(4, 1)], [s(1, 3)])
    with pytest.raises(ValueError, match="x: expected integers of the shape of truth"):
        quality([4], [1, 1], [], [])
    with pytest.raises(ValueError, match=r"counts: expected \[n, 4\]"):
        metrics.panoptic_quality(np.zeros(4))
