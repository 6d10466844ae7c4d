"""Generated rooms for depth from one image: exact depth, sizes in metres, always the same."""

import numpy as np
import pytest

from experiments.data import HELD_OUT_SEED, rooms, shapes, sources
from experiments.data.rooms import FOCAL, Rooms


def test_rooms_are_always_the_same():
    some, more = Rooms(3, (24, 32), seed=HELD_OUT_SEED), Rooms(9, (24, 32), seed=HELD_OUT_SEED)
    for a, b in zip(sources.Cached(some), more, strict=False):
        assert a.name == b.name and a.image.dtype == np.uint8 and a.image.shape == (24, 32, 3)
        assert a.depth.dtype == np.float32 and 0.3 < a.depth.min() < a.depth.max() <= 10
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.depth, b.depth)
    assert len({frame.depth.tobytes() for frame in more}) == 9
    assert not np.array_equal(some[0].depth, Rooms(1, (24, 32))[0].depth)


def hit(item, ray):
    """Distance along z to where a ray meets a surface or a box, by the interval in which it is inside."""
    pose, near, far = item.pose, 0.0, np.inf
    if item.shape is shapes.plane:
        z = pose.axes[2] @ pose.centre / (pose.axes[2] @ ray)
        return z if z > 0 else np.inf
    for axis, half in zip(pose.axes, pose.half, strict=True):
        ends = sorted((axis @ pose.centre + side * half) / (axis @ ray) for side in (-1, 1))
        near, far = max(near, ends[0]), min(far, ends[1])
    return near if near < far else np.inf


@pytest.mark.parametrize("index", range(3))
def test_depth_is_exact(index):
    source = Rooms(3, (24, 32), seed=5)
    rng = np.random.default_rng((5, index))
    items, _ = rooms._room(rng)
    focal = 24 * FOCAL * rng.uniform(0.95, 1.05)
    depth = source[index].depth
    for row, column in np.random.default_rng(0).integers(0, (24, 32), (60, 2)):
        ray = np.array([(column + 0.5 - 16) / focal, (row + 0.5 - 12) / focal, 1.0])
        wanted = min(10, *(hit(item, ray) for item in items))
        assert depth[row, column] == pytest.approx(wanted, rel=1e-4)


def test_a_larger_image_shows_the_same_room():
    (small,), (large,) = Rooms(1, (40, 48), seed=2), Rooms(1, (120, 144), seed=2)
    middles = large.depth[1::3, 1::3]
    np.testing.assert_allclose(small.depth, middles, rtol=1e-5)
    blocks = large.image.reshape(40, 3, 48, 3, 3).mean((1, 3))
    assert np.corrcoef(small.image.ravel(), blocks.ravel())[0, 1] > 0.9


def test_furniture_stands_on_the_floor_and_has_its_size():
    rng = np.random.default_rng(0)
    for kind in (rooms._block, rooms._table, rooms._chair):
        for _ in range(20):
            parts = list(kind(rng))
            low = [centre[1] + half[1] for centre, half in parts]
            high = min(centre[1] - half[1] for centre, half in parts)
            assert max(low) == pytest.approx(0) and 0.25 < -high < 2.2
            assert all((half > 0).all() for _, half in parts)


def test_textures_are_means_over_their_pixels():
    """Of one texel far away, of few near; their size is in metres, so that they repeat as they are drawn."""
    texture, (v, u) = np.full((64, 64), 9), np.indices((64, 64)) * 4.0
    exact = rooms._looked_up(texture, u, v, np.ones((64, 64)))
    np.testing.assert_array_equal(exact, rooms.bank()[9, ::4, ::4])
    means = rooms._looked_up(texture, u, v, np.full((64, 64), 4.2))
    np.testing.assert_allclose(means, rooms.bank()[9].reshape(64, 4, 64, 4).mean((1, 3)), rtol=1e-5)
    np.testing.assert_array_equal(rooms._looked_up(texture, u + 256, v - 512, np.ones((64, 64))), exact)


def test_light():
    """Full where a surface faces the lamp, less where it is turned away or farther."""
    up = np.float32([0, -1, 0])[:, None]
    near, far, beside = (rooms._light(np.float32(d)[:, None], up)[0] for d in ([0, -1, 0], [0, -3, 0], [1, 0, 0]))
    assert near > far > beside == pytest.approx(0.35)


@pytest.mark.parametrize("options, name", [((0,), "count"), ((1, 8), "size"), ((1, 32, -1), "seed")])
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=name):
        Rooms(*options)
