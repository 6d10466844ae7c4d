"""Measures of maps of objects against their masks."""

import numpy as np
import pytest

from jaxup import metrics
from jaxup.metrics import weighted_f_measure
from tests.oracles import segmentation as oracles
from tests.oracles.segmentation import weighted_f_measure as oracle

RNG = np.random.default_rng(3)


def rectangle(height, width, rows, columns):
    """Outside, the nearest of its pixels is unique."""
    truth = np.zeros((height, width), bool)
    truth[rows, columns] = True
    return truth


@pytest.mark.parametrize(
    "truth",
    [
        rectangle(14, 17, slice(4, 10), slice(5, 9)),
        rectangle(9, 12, slice(0, 5), slice(8, 12)),  # in the corner
        rectangle(6, 5, slice(2, 3), slice(1, 2)),  # one pixel
        np.ones((5, 8), bool),
    ],
    ids=["inside", "corner", "pixel", "all"],
)
def test_weighted_f_measure_equals_the_loops(truth):
    for prediction in (RNG.random(truth.shape), np.clip(truth + RNG.normal(0, 0.2, truth.shape), 0, 1)):
        assert weighted_f_measure(prediction, truth) == pytest.approx(oracle(prediction, truth), rel=1e-12)


def test_weighted_f_measure_properties():
    truth = rectangle(24, 24, slice(8, 16), slice(8, 16))
    assert weighted_f_measure(truth.astype(np.float32), truth) == 1
    assert weighted_f_measure(1.0 - truth, truth) == 0
    beside, far = truth.astype(float), truth.astype(float)
    beside[8:16, 16], far[8:16, 23] = 1, 1
    assert weighted_f_measure(far, truth) < weighted_f_measure(beside, truth) < 1
    hole = truth.astype(float)
    hole[10:12, 10:12] = 0
    assert weighted_f_measure(hole, truth) > 2 * 60 / (60 + 64)  # its neighbours make up for it
    with pytest.raises(ValueError, match="at least one pixel of the object"):
        weighted_f_measure(truth, np.zeros_like(truth))
    with pytest.raises(ValueError, match="x: expected the shape of truth"):
        weighted_f_measure(truth[1:].astype(float), truth)
    with pytest.raises(ValueError, match=r"truth: expected bool \[H, W\], got float64"):
        weighted_f_measure(hole, hole)


@pytest.mark.parametrize("shape", [(9, 12), (5, 6, 4), (1, 7)])
def test_distances_of_borders_equal_the_loops(shape):
    spacing = (1.5, 0.7, 2.0)[: len(shape)]
    for density in (0.5, 0.04):
        x, truth = RNG.random(shape) < 0.5, RNG.random(shape) < density
        x.flat[0], truth.flat[-1] = True, True
        there, back = oracles.border_distances(x, truth, spacing), oracles.border_distances(truth, x, spacing)
        both = np.concatenate([there, back])
        for percentile in (95, 100):
            got = metrics.hausdorff_distance(x, truth, percentile=percentile, spacing=spacing)
            assert got == pytest.approx(np.percentile(both, percentile), rel=1e-12)
        assert metrics.surface_distance(x, truth, spacing=spacing) == pytest.approx(there.mean(), rel=1e-12)


def test_overlaps_and_distances_without_pixels():
    some, none = rectangle(5, 6, slice(1, 3), slice(2, 5)), np.zeros((5, 6), bool)
    assert metrics.dice(some, some) == metrics.jaccard(some, some) == 1
    assert metrics.dice(some, none) == metrics.jaccard(none, some) == 0
    assert metrics.hausdorff_distance(some, some) == metrics.surface_distance(some, some) == 0
    assert np.isnan([metrics.dice(none, none), metrics.jaccard(none, none)]).all()
    assert np.isnan([metrics.hausdorff_distance(none, none), metrics.surface_distance(none, some)]).all()
    assert metrics.hausdorff_distance(some, none) == metrics.hausdorff_distance(none, some, percentile=95) == np.inf
    assert metrics.surface_distance(some, none) == np.inf


def test_mask_errors():
    mask = np.ones((3, 4), bool)
    with pytest.raises(ValueError, match="x: expected bool, got int"):
        metrics.dice(mask.astype(int), mask)
    with pytest.raises(ValueError, match="x: expected the shape of truth"):
        metrics.jaccard(mask[1:], mask)
    with pytest.raises(ValueError, match="spacing: expected 2 positive numbers"):
        metrics.hausdorff_distance(mask, mask, spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="percentile: expected 0 to 100"):
        metrics.hausdorff_distance(mask, mask, percentile=101)
    with pytest.raises(ValueError, match=r"x: expected \[H, W\] or \[D, H, W\]"):
        metrics.surface_distance(mask[0], mask[0])
