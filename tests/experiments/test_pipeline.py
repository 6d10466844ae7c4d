"""Low-resolution depth and the input pipeline."""

import itertools
import pickle

import grain
import numpy as np
import pytest

from experiments.data import (
    RGBD,
    Cached,
    PairFolder,
    Scenes,
    crop_to_multiple,
    low_resolution,
    normalised,
    scored,
    training_batches,
)
from jaxup.files import InputError
from tests.experiments.pairs import write_pair

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_grid_takes_block_centres(scale):
    depth = RNG.random((24, 48, 1), np.float32)
    low = low_resolution(depth, scale, "grid")
    assert low.shape == (24 // scale, 48 // scale, 1) and low.dtype == np.float32
    for i, j in itertools.product(range(24 // scale), range(48 // scale)):
        assert low[i, j] == depth[i * scale + scale // 2, j * scale + scale // 2]


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_djf_takes_the_last_pixel_of_each_block(scale):
    depth = RNG.random((24, 48, 1), np.float32)
    low = low_resolution(depth, scale, "djf")
    assert low.shape == (24 // scale, 48 // scale, 1) and low.dtype == np.float32
    for i, j in itertools.product(range(24 // scale), range(48 // scale)):
        assert low[i, j] == depth[(i + 1) * scale - 1, (j + 1) * scale - 1]


def test_djf_does_not_score_the_borders():
    valid = RNG.random((20, 16, 1)) < 0.7
    found = scored(valid, "djf")
    np.testing.assert_array_equal(found[6:14, 6:10], valid[6:14, 6:10])
    assert found.sum() == valid[6:14, 6:10].sum() and found.dtype == bool
    for protocol in ("grid", "bicubic", "noise"):
        np.testing.assert_array_equal(scored(valid, protocol), valid)
    assert not scored(valid[:12], "djf").any()
    np.testing.assert_array_equal(scored(valid, "djf", 0), valid)
    assert scored(valid, "grid", 1).sum() == valid[1:-1, 1:-1].sum()


def cubic(t, a=-0.5):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def cubic_matrix(size, scale):
    """Rows of weights of the kernel stretched by `scale` around half-pixel centres, normalised at borders."""
    weights = np.array([[cubic((j + 0.5) / scale - (i + 0.5)) for j in range(size)] for i in range(size // scale)])
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bicubic_is_the_antialiased_cubic(scale):
    depth = RNG.random((12, 24, 1), np.float32) * 100
    expected = cubic_matrix(12, scale) @ depth[..., 0].astype(np.float64) @ cubic_matrix(24, scale).T
    actual = low_resolution(depth, scale, "bicubic")
    assert actual.shape == (12 // scale, 24 // scale, 1) and actual.dtype == np.float32
    np.testing.assert_allclose(actual[..., 0], expected, atol=1e-4)
    np.testing.assert_allclose(low_resolution(np.full_like(depth, 7), scale, "bicubic"), 7, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "protocol", "name"), [(5, "grid", "scale"), (0, "grid", "scale"), (2, "nearest", "protocol")]
)
def test_low_resolution_rejects(scale, protocol, name):
    with pytest.raises(ValueError, match=rf"{name}: expected"):
        low_resolution(np.ones((8, 8, 1), np.float32), scale, protocol)


def test_crop_to_multiple_keeps_the_upper_left_part():
    sample = Scenes(1, (37, 50))[0]
    cropped = crop_to_multiple(sample, 16)
    assert cropped.depth.shape == (32, 48, 1) and cropped.name == sample.name
    for whole, part in zip(sample[:3], cropped[:3], strict=True):
        np.testing.assert_array_equal(part, whole[:32, :48])
    with pytest.raises(ValueError, match="multiple: expected"):
        crop_to_multiple(sample, 38)


class Ramp:
    """A source whose depth tells each pixel's image, row and column."""

    unit = "px"

    def __init__(self, count=5, shape=(40, 56)):
        self.count, self.shape, self.reads = count, shape, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        y, x = np.indices(self.shape, np.float32)
        depth = (index * 100 + y) * 100 + x
        guide = np.stack([depth % 7, depth % 5, depth % 3], -1).astype(np.float32) / 255
        return RGBD(guide, depth[..., None], (depth % 2 == 0)[..., None], f"ramp{index}")


def restored(batch):
    return batch["depth"] * batch["range"] + batch["offset"]


def test_normalised_is_undone_by_range_and_offset():
    sample = Ramp(shape=(32, 48))[3]
    example = normalised(sample, 8)
    low = low_resolution(sample.depth, 8)
    assert {k: (v.shape, v.dtype.name) for k, v in example.items()} == {
        "target": ((4, 6, 1), "float32"),
        "guide": ((32, 48, 3), "float32"),
        "depth": ((32, 48, 1), "float32"),
        "valid": ((32, 48, 1), "float32"),
        "offset": ((1, 1, 1), "float32"),
        "range": ((1, 1, 1), "float32"),
    }
    assert (example["target"].min(), example["target"].max()) == (0, 1)
    assert example["offset"] == low.min() and example["range"] == low.max() - low.min()
    np.testing.assert_allclose(restored(example), sample.depth, rtol=1e-6)
    np.testing.assert_allclose(example["target"] * example["range"] + example["offset"], low, rtol=1e-6)
    np.testing.assert_array_equal(example["valid"], sample.valid)


@pytest.mark.parametrize("protocol", ["grid", "bicubic"])
def test_normalised_constant_depth_has_range_one(protocol):
    depth = np.full((16, 16, 1), 123.4567, np.float32)
    example = normalised(RGBD(np.ones((16, 16, 3), np.float32), depth, depth > 0, "wall"), 4, protocol)
    assert example["range"] == 1
    np.testing.assert_allclose(example["depth"], 0, atol=1e-4)


def test_noise_is_added_in_full_resolution():
    sample = Ramp(shape=(64, 96))[3]
    example, other = normalised(sample, 1, "noise"), normalised(sample, 1, "noise", (0, 1))
    assert example["target"].shape == example["depth"].shape and example["target"].dtype == np.float32
    assert (example["depth"].min(), example["depth"].max()) == (0, 1)
    noise = example["target"] - example["depth"]
    assert noise.mean() == pytest.approx(0, abs=5e-3) and noise.var() == pytest.approx(0.005, rel=0.05)
    assert abs(np.corrcoef(noise.ravel(), (other["target"] - other["depth"]).ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(example["target"], normalised(sample, 1, "noise", 0)["target"])


def test_every_training_example_has_noise_of_its_own():
    batches = training_batches(Ramp(1, (16, 16)), scales=(1,), crop=None, batch_size=2, protocol="noise", seed=4)
    first, second = take(iter(batches), 2)
    noises = [batch["target"][i] - batch["depth"][i] for batch in (first, second) for i in range(2)]
    assert all(np.abs(a - b).max() > 0.05 for a, b in itertools.combinations(noises, 2))
    assert_same([first, second], take(iter(batches), 2))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_are_crops_flips_and_one_scale_each():
    batches = training_batches(Ramp(), scales=(4, 8, 16), crop=32, batch_size=3, seed=5)
    assert isinstance(batches, grain.IterDataset)
    flips, corners = [], set()
    for number, batch in enumerate(take(iter(batches), 12)):
        scale = (4, 8, 16)[number % 3]
        assert batch["target"].shape == (3, 32 // scale, 32 // scale, 1)
        assert batch["guide"].shape == (3, 32, 32, 3) and batch["range"].shape == (3, 1, 1, 1)
        for i in range(3):
            depth = np.rint(restored(batch)[i, ..., 0]).astype(int)
            index, y, x = depth // 10000, depth // 100 % 100, depth % 100
            flip = x[0, 0] > x[0, 1]
            flips.append(flip)
            corners.add((y[0, 0], x.min()))
            assert (index == index[0, 0]).all()
            np.testing.assert_array_equal(y, y[0, 0] + np.arange(32)[:, None] + np.zeros_like(x))
            expected = x.min() + (np.arange(32)[::-1] if flip else np.arange(32))
            np.testing.assert_array_equal(x, expected + np.zeros_like(y))
            np.testing.assert_array_equal(np.rint(batch["guide"][i, ..., 0] * 255), depth % 7)
            np.testing.assert_array_equal(batch["valid"][i, ..., 0], depth % 2 == 0)
    assert 0.2 < np.mean(flips) < 0.8 and len(corners) > 25


def test_whole_images_are_cut_to_a_multiple_of_the_scales_only():
    batches = training_batches(Ramp(3, (41, 57)), scales=(4, 8), crop=None, batch_size=2)
    for number, batch in enumerate(take(iter(batches), 6)):
        scale = (4, 8)[number % 2]
        assert batch["guide"].shape == (2, 40, 56, 3) and batch["target"].shape == (2, 40 // scale, 56 // scale, 1)
        depth = np.rint(restored(batch)[..., 0]).astype(int)
        y, x = np.indices((40, 56))
        np.testing.assert_array_equal(depth % 10000, np.stack([y * 100 + x] * 2))


def test_every_epoch_shows_every_image_once_in_another_order():
    batches = iter(training_batches(Ramp(5), scales=(4,), crop=32, batch_size=1))
    shown = [int(restored(batch)[0, 0, 0, 0].round()) for batch in take(batches, 20)]
    epochs = [[d // 10000 for d in shown[i : i + 5]] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len(set(shown)) > 15  # crops differ from epoch to epoch


def test_batches_depend_on_the_seed_only():
    def first(seed):
        return take(iter(training_batches(Ramp(), scales=(4,), crop=32, batch_size=3, seed=seed)), 4)

    assert_same(first(1), first(1))
    assert any(not np.array_equal(a["offset"], b["offset"]) for a, b in zip(first(1), first(2), strict=True))


def test_state_is_restored_to_the_bit():
    def start():
        source = Cached(Scenes(3, 48, seed=1))
        return iter(training_batches(source, scales=(4, 8), crop=32, batch_size=2, protocol="bicubic", seed=9))

    running = start()
    take(running, 5)
    state = running.get_state()
    expected = take(running, 3)
    resumed = start()
    resumed.set_state(pickle.loads(pickle.dumps(state)))
    assert_same(expected, take(resumed, 3))
    used = start()
    take(used, 2)  # an iterator whose queue is already full must drop it
    used.set_state(state)
    assert_same(expected, take(used, 3))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"crop": 0}, "crop"),
        ({"scales": (4, 5)}, "scales"),
        ({"scales": ()}, "scales"),
        ({"scales": (0,)}, "scales"),
        ({"batch_size": 0}, "batch_size"),
        ({"protocol": "cubic"}, "protocol"),
        ({"protocol": "noise"}, "scales"),
    ],
)
def test_training_batches_rejects(changed, name):
    arguments = {"scales": (4,), "crop": 32, "batch_size": 2} | changed
    with pytest.raises(ValueError, match=rf"{name}.*: expected"):
        training_batches(Ramp(), **arguments)


def test_errors_of_a_source_reach_the_trainer(tmp_path):
    write_pair(tmp_path)
    with pytest.raises(InputError, match="a: 16 x 12 pixels are fewer than the crop of 32 x 32"):
        next(iter(training_batches(PairFolder(tmp_path), scales=(4,), crop=32, batch_size=2)))


def test_cached_keeps_the_same_bits_and_reads_once():
    source = Ramp()
    cached = Cached(source)
    assert len(cached) == 5 and cached.unit == "px"
    for _ in range(2):
        assert_same(
            [dict(enumerate(cached[i][:3])) for i in (1, -1)],
            [dict(enumerate(Ramp()[i][:3])) for i in (1, 4)],
        )
    assert source.reads == 2 and cached[1].name == "ramp1"
    scene = Scenes(1, 32)
    np.testing.assert_array_equal(Cached(scene)[0].guide, scene[0].guide)
