"""Measures of maps of objects against their masks."""

import numpy as np
import pytest

from jaxup.metrics import weighted_f_measure
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
