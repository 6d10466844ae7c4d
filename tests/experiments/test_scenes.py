"""Generated scenes."""

import pickle

import numpy as np
import pytest
from scipy import ndimage

from experiments.data import (
    HELD_OUT_SEED,
    Scenes,
)
from experiments.data.scenes import _measure
from tests.experiments.pairs import assert_is_pair

RNG = np.random.default_rng(0)


def test_scenes_depend_on_seed_and_index_only():
    forwards, backwards = Scenes(5, 48, seed=3), Scenes(5, 48, seed=3)
    first = [forwards[i] for i in range(5)]
    second = [backwards[i] for i in reversed(range(5))][::-1]
    for a, b in zip(first, second, strict=True):
        assert_is_pair(a)
        assert a.name == b.name
        for x, y in zip(a[:3], b[:3], strict=True):
            np.testing.assert_array_equal(x, y)
    others = [first[1], Scenes(5, 48, seed=4)[0], Scenes(5, 48, seed=HELD_OUT_SEED)[0]]
    assert all(not np.array_equal(first[0].guide, other.guide) for other in others)
    np.testing.assert_array_equal(Scenes(9, 48, seed=3)[2].depth, first[2].depth)  # whatever the count


def test_scenes_are_sequences():
    scenes = Scenes(2, (32, 48))
    assert [s.depth.shape for s in scenes] == [(32, 48, 1)] * 2  # iteration ends: IndexError after the last
    assert scenes[-1].name == scenes[1].name != scenes[0].name
    assert pickle.loads(pickle.dumps(scenes))[1].name == scenes[1].name


@pytest.mark.parametrize("arguments", [(0, 64), (2, 8), (2, (64, 0)), (2, 64, -1), (2.5, 64)])
def test_scenes_reject(arguments):
    with pytest.raises(ValueError, match=r"expected .* got"):
        Scenes(*arguments)


def steps(image):
    """The larger of the differences to the right and to the lower neighbour."""
    return np.maximum(np.abs(np.diff(image, axis=1))[:-1], np.abs(np.diff(image, axis=0))[:, :-1])


def test_scene_edges_of_colour_and_depth_disagree():
    """The bounds are about half and twice what Middlebury and NYU pairs have by the same measure."""
    weak, texture, density = [], [], []
    for sample in Scenes(24, 96, seed=11):
        depth = steps(sample.depth[..., 0]) > 0.05 * np.ptp(sample.depth)
        smooth = ndimage.gaussian_filter(sample.guide, (0.7, 0.7, 0))
        colour = steps(smooth).max(-1)
        density.append(depth.mean())
        weak.append((ndimage.maximum_filter(colour, 3)[depth] < 0.04).mean())
        texture.append((colour[~ndimage.maximum_filter(depth, 5)] > 0.04).mean())
    assert 0.02 < np.mean(density) < 0.12
    assert 0.05 < np.mean(weak) < 0.35  # depth edges without a colour edge
    assert 0.08 < np.mean(texture) < 0.4  # colour edges without a depth edge


def test_scene_depth_is_never_blended():
    """A blended pixel would split one edge into two large steps of one sign side by side."""
    ramps, edges = 0, 0
    for sample in Scenes(24, 64, seed=12):
        depth = sample.depth[..., 0]
        assert depth.min() > 1 and depth.max() < 120 and np.ptp(depth) > 1
        step = np.diff(depth, axis=1) / np.ptp(depth)
        left, right = step[:, :-1], step[:, 1:]
        edges += (np.abs(step) > 0.2).sum()
        ramps += ((left * right > 0) & (np.minimum(np.abs(left), np.abs(right)) > 0.1)).sum()
    assert edges > 500 and ramps < 0.1 * edges


def test_scene_depth_is_disparity_or_distance_over_the_same_interval():
    w = RNG.uniform(1, 6, (16, 24)).astype(np.float32)
    second = np.sort(w.reshape(8, 2, 12, 2).swapaxes(1, 2).reshape(8, 12, 4))[..., 2].ravel()
    signs = []
    for seed in range(200):
        depth = _measure(w, np.random.default_rng(seed)).ravel()
        ordered = depth[np.argsort(second)]
        rising = bool(ordered[0] < ordered[-1])
        signs.append(rising)
        assert (np.diff(ordered if rising else ordered[::-1]) >= 0).all()
        np.testing.assert_allclose(depth.max() / depth.min(), second.max() / second.min(), rtol=1e-5)
        measured = depth if rising else 1 / depth
        np.testing.assert_allclose(measured / measured.min(), second / second.min(), rtol=1e-5)
    assert 0.65 < np.mean(signs) < 0.85
