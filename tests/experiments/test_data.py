"""RGB-D sources, degradation and the input pipeline."""

import itertools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import grain
import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from experiments.data import (
    HELD_OUT_SEED,
    RGBD,
    Cached,
    Motorcycle,
    NYUDepthV2,
    PairFolder,
    Scenes,
    crop_to_multiple,
    data_dir,
    low_resolution,
    normalised,
    training_batches,
)
from experiments.data.images import read_map, read_rgb
from experiments.data.rgbd import fill_holes
from experiments.data.scenes import _measure
from experiments.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEPTH = RNG.integers(1, 60000, (12, 16), dtype=np.uint16)


def assert_is_pair(sample):
    """The promises every source makes."""
    height, width = sample.depth.shape[:2]
    assert sample.guide.shape == (height, width, 3) and sample.guide.dtype == np.float32
    assert sample.depth.shape == sample.valid.shape == (height, width, 1)
    assert sample.depth.dtype == np.float32 and sample.valid.dtype == bool
    assert sample.guide.min() >= 0 and sample.guide.max() <= 1 and sample.guide.max() > 0.3
    assert np.isfinite(sample.depth).all() and sample.valid.any()
    levels = sample.guide * np.float32(255)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# Generated scenes ------------------------------------------------------------------------------------------


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


# Degradation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_grid_takes_block_centres(scale):
    depth = RNG.random((24, 48, 1), np.float32)
    low = low_resolution(depth, scale, "grid")
    assert low.shape == (24 // scale, 48 // scale, 1) and low.dtype == np.float32
    for i, j in itertools.product(range(24 // scale), range(48 // scale)):
        assert low[i, j] == depth[i * scale + scale // 2, j * scale + scale // 2]


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


# Sources of real data --------------------------------------------------------------------------------------


def test_motorcycle_masks_what_was_not_measured():
    from skimage import data

    left, _, disparity = data.stereo_motorcycle()
    sample = Motorcycle()[0]
    assert_is_pair(sample)
    assert sample.depth.shape == (500, 741, 1) and 0.92 < sample.valid.mean() < 0.93
    np.testing.assert_array_equal(sample.depth[sample.valid], disparity[np.isfinite(disparity)])
    np.testing.assert_array_equal(np.rint(sample.guide * 255), left)
    assert sample.depth.min() > 7 and sample.depth.max() < 60
    assert len(list(Motorcycle())) == 1


def test_holes_take_the_nearest_valid_value():
    depth = RNG.random((9, 11), np.float32)
    valid = RNG.random((9, 11)) < 0.3
    filled = fill_holes(np.where(valid, depth, np.nan), valid)
    measured = np.argwhere(valid)
    for y, x in np.ndindex(depth.shape):
        distance = ((measured - (y, x)) ** 2).sum(1)
        nearest = measured[distance == distance.min()]  # ties: any of them
        assert filled[y, x] in depth[tuple(nearest.T)]


@pytest.fixture(scope="module")
def nyu_file(tmp_path_factory):
    """The layout of nyu_depth_v2_labeled.mat with 1003 frames of 6 x 4 pixels (width x height)."""
    path = tmp_path_factory.mktemp("nyu") / "labeled.mat"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file["images"] = rng.integers(0, 256, (1003, 3, 6, 4), dtype=np.uint8)
        depths = rng.uniform(1, 10, (1003, 6, 4)).astype(np.float32)
        depths[1001, 2, 3] = 0
        file["depths"] = depths
    return path


def test_nyu_layout_unit_and_split(nyu_file):
    train, test = NYUDepthV2(nyu_file, "train"), NYUDepthV2(nyu_file, "test")
    assert (len(train), len(test), test.unit) == (1000, 3, "cm")
    sample = test[1]
    assert_is_pair(sample)
    with h5py.File(nyu_file) as file:
        images, depths = file["images"][1001], file["depths"][1001]
    for y, x in np.ndindex(4, 6):
        np.testing.assert_array_equal(np.rint(sample.guide[y, x] * 255), images[:, x, y])
        if (y, x) != (3, 2):
            np.testing.assert_allclose(sample.depth[y, x, 0], depths[x, y] * 100, rtol=1e-6)
    assert not sample.valid[3, 2, 0] and sample.valid.sum() == 23
    assert sample.depth[3, 2, 0] in (sample.depth[2, 2, 0], sample.depth[3, 1, 0], sample.depth[3, 3, 0])
    assert train[0].name == "nyu_0000" and test[0].name == "nyu_1000" and test[-1].name == "nyu_1002"
    assert pickle.loads(pickle.dumps(test))[1].name == sample.name
    with pytest.raises(IndexError):
        test[3]


def test_nyu_is_read_by_threads(nyu_file):
    source, read = NYUDepthV2(nyu_file, "train"), {}
    threads = [threading.Thread(target=lambda i=i: read.update({i: source[i]})) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, sample in read.items():
        np.testing.assert_array_equal(sample.depth, source[i].depth)
    assert len(read) == 8


def test_nyu_rejects(nyu_file, tmp_path):
    with pytest.raises(ValueError, match="split: expected"):
        NYUDepthV2(nyu_file, "val")
    with pytest.raises(InputError, match="no such file"):
        NYUDepthV2(tmp_path / "none.mat", "test")
    (tmp_path / "cut.mat").write_bytes(nyu_file.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.mat: cannot be read") as error:
        NYUDepthV2(tmp_path / "cut.mat", "test")
    one_line(error)
    for name, shapes in {
        "keys": {"images": (3, 3, 6, 4)},
        "shape": {"images": (3, 3, 6, 4), "depths": (3, 4, 6)},
        "few": {"images": (3, 3, 6, 4), "depths": (3, 6, 4)},
    }.items():
        with h5py.File(tmp_path / name, "w") as file:
            for key, shape in shapes.items():
                file[key] = np.zeros(shape, np.float32)
        with pytest.raises(InputError, match=name):
            NYUDepthV2(tmp_path / name, "test")


def write_pair(folder, name="a", colour=COLOUR, depth=DEPTH, suffix="_depth.png"):
    Image.fromarray(colour).save(folder / f"{name}_rgb.png")
    if suffix.endswith(".png"):
        Image.fromarray(depth).save(folder / f"{name}{suffix}")
    elif suffix.endswith(".npy"):
        np.save(folder / f"{name}{suffix}", depth)
    else:
        np.savez(folder / f"{name}{suffix}", depth=depth, other=np.zeros(3))


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *itertools.product(["_depth.png", "_disp.png", "_depth8.png", "_depth.npz"], [np.uint8, np.uint16]),
        *itertools.product(["_depth.npy", "_depth.npz"], [np.float32, np.float64]),
    ],
)
def test_folder_reads_values_as_stored(tmp_path, suffix, dtype):
    depth = (DEPTH % 251).astype(dtype) + dtype(0.5 if np.issubdtype(dtype, np.floating) else 0)
    depth[0, 0] = 0
    write_pair(tmp_path, depth=depth, suffix=suffix)
    write_pair(tmp_path, "b", depth=depth + dtype(1), suffix=suffix)
    (tmp_path / "README.txt").write_text("ignored")
    (tmp_path / "a_depth_lr.png").write_bytes(b"ignored")
    source = PairFolder(tmp_path)
    assert [s.name for s in source] == ["a", "b"]
    sample = source[0]
    assert_is_pair(sample)
    np.testing.assert_array_equal(np.rint(sample.guide * 255), COLOUR)
    np.testing.assert_array_equal(sample.valid[..., 0], depth != 0)
    np.testing.assert_array_equal(sample.depth[sample.valid], depth[depth != 0].astype(np.float32))
    kept = PairFolder(tmp_path, invalid_zero=False)[0]
    assert kept.valid.all() and kept.depth[0, 0, 0] == 0


def test_folder_masks_non_finite_values(tmp_path):
    depth = DEPTH.astype(np.float32)
    depth[2, 3], depth[4, 5], depth[6, 7] = np.nan, np.inf, -np.inf
    write_pair(tmp_path, depth=depth, suffix="_depth.npy")
    sample = PairFolder(tmp_path, invalid_zero=False)[0]
    assert_is_pair(sample)
    assert [tuple(p) for p in np.argwhere(~sample.valid[..., 0])] == [(2, 3), (4, 5), (6, 7)]


@pytest.mark.parametrize(
    ("folder", "count", "holes"),
    [("middlebury", 20, 0.001), ("lu", 4, 0.001), ("nyu", 5, 0.001), ("raw_sensor", 2, 0.3)],
)
def test_folder_reads_real_data(shared_data, folder, count, holes):
    source = PairFolder(shared_data / "rgbd" / folder)
    assert len(source) == count
    for sample in source:
        assert_is_pair(sample)
        assert (folder == "raw_sensor") <= (1 - sample.valid.mean() > 0.1)
        assert 1 - sample.valid.mean() < holes


def test_folder_rejects_a_bad_set_of_files(tmp_path):
    with pytest.raises(InputError, match="none: no such folder"):
        PairFolder(tmp_path / "none")
    with pytest.raises(InputError, match="no pairs"):
        PairFolder(tmp_path)
    write_pair(tmp_path)
    Image.fromarray(COLOUR).save(tmp_path / "b_rgb.png")
    with pytest.raises(InputError, match=r"b_rgb\.png: no depth map beside it"):
        PairFolder(tmp_path)
    (tmp_path / "b_rgb.png").rename(tmp_path / "c_depth.png")
    with pytest.raises(InputError, match=r"c_depth\.png: no RGB image beside it"):
        PairFolder(tmp_path)
    (tmp_path / "c_depth.png").rename(tmp_path / "a_disp.png")
    with pytest.raises(InputError, match=r"a_disp\.png: a_depth\.png is there too"):
        PairFolder(tmp_path)


def test_folder_rejects_a_bad_pair(tmp_path):
    write_pair(tmp_path, depth=DEPTH[:, :-1])
    with pytest.raises(InputError, match=r"a_depth\.png: depth of 15 x 12 pixels for an RGB image of 16 x 12"):
        PairFolder(tmp_path)[0]
    write_pair(tmp_path, depth=np.zeros_like(DEPTH))
    with pytest.raises(InputError, match=r"a_depth\.png: no valid depth"):
        PairFolder(tmp_path)[0]
    assert PairFolder(tmp_path, invalid_zero=False)[0].valid.all()
    (tmp_path / "a_rgb.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a_rgb\.png: cannot be read"):
        PairFolder(tmp_path, invalid_zero=False)[0]


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_truncated_images_are_input_errors(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.tile(COLOUR, (6, 6, 1))).save(path)
    assert read_rgb(path).shape == (72, 96, 3)
    whole = path.read_bytes()
    for size in (len(whole) - 40, len(whole) // 2, 30, 1, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"image\.{suffix}: cannot be read") as error:
            read_rgb(path)
        one_line(error)


def test_rgb_of_other_modes(tmp_path):
    grey = COLOUR[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    alpha = np.concatenate([COLOUR, COLOUR[..., :1]], -1)
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "alpha.png"), COLOUR)
    Image.fromarray(DEPTH).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png: expected an image of mode RGB, .* got I;16"):
        read_rgb(tmp_path / "deep.png")


def test_foreign_formats_and_large_images_are_refused(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "image.gif")
    (tmp_path / "image.gif").rename(tmp_path / "image.png")  # the suffix decides nothing
    with pytest.raises(InputError, match="cannot be read"):
        read_rgb(tmp_path / "image.png")
    Image.fromarray(COLOUR).save(tmp_path / "large.png")
    np.save(tmp_path / "large.npy", DEPTH)
    np.savez_compressed(tmp_path / "large.npz", depth=DEPTH)
    monkeypatch.setattr("experiments.data.images.MAX_PIXELS", 40)
    for name, read in {"large.png": read_rgb, "large.npy": read_map, "large.npz": read_map}.items():
        with pytest.raises(InputError, match=rf"{name}: .*more than 40 pixels"):
            read(tmp_path / name)


def test_images_that_pillow_only_warns_about_are_refused_in_one_line(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "large.png")
    program = (
        "import pathlib, experiments.data.images as images\n"
        "images.Image.MAX_IMAGE_PIXELS = 100\n"  # Pillow warns of 192 pixels and would raise from 201 on
        "try: images.read_rgb(pathlib.Path('large.png'))\n"
        "except images.InputError as error: print(error)"
    )
    search = {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | search, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("large.png: cannot be read: Image size (192 pixels) exceeds limit")
    assert done.stdout.count("\n") == 1 and not done.stderr


def test_maps_from_arrays(tmp_path):
    np.save(tmp_path / "m.npy", DEPTH[..., None])
    np.testing.assert_array_equal(read_map(tmp_path / "m.npy"), DEPTH.astype(np.float32))
    np.savez(tmp_path / "m.npz", anything=DEPTH)
    assert read_map(tmp_path / "m.npz").dtype == np.float32
    Image.fromarray(DEPTH.astype(np.float32) / 7).save(tmp_path / "m.tiff")
    np.testing.assert_array_equal(read_map(tmp_path / "m.tiff"), DEPTH.astype(np.float32) / 7)


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}], object),
        np.zeros((3, 4, 3), np.float32),
        np.zeros((0, 4), np.float32),
        np.zeros((3, 4), np.complex64),
        np.full((3, 4), "x"),
    ],
    ids=["pickle", "three channels", "empty", "complex", "text"],
)
def test_arrays_that_are_no_maps(tmp_path, value):
    np.save(tmp_path / "m.npy", value, allow_pickle=True)
    np.savez(tmp_path / "m.npz", depth=value)
    for name in ("m.npy", "m.npz"):
        with pytest.raises(InputError, match=name) as error:
            read_map(tmp_path / name)
        one_line(error)


def test_bad_array_files(tmp_path):
    np.save(tmp_path / "cut.npy", DEPTH)
    np.savez(tmp_path / "cut.npz", depth=DEPTH, b=DEPTH)
    np.savez(tmp_path / "keys.npz", b=DEPTH, c=DEPTH)
    for path in (tmp_path / "cut.npy", tmp_path / "cut.npz"):
        path.write_bytes(path.read_bytes()[:300])
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    (tmp_path / "text.npy").write_text("not an array")
    for name in ("cut.npy", "cut.npz", "keys.npz", "colour.png", "text.npy", "missing.npz", "missing.png"):
        with pytest.raises(InputError, match=name) as error:
            read_map(tmp_path / name)
        one_line(error)
    with pytest.raises(InputError, match=r"no array 'depth', there are b\.npy, c\.npy"):
        read_map(tmp_path / "keys.npz")


def test_data_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXUP_DATA", raising=False)
    with pytest.raises(InputError, match="JAXUP_DATA"):
        data_dir()
    monkeypatch.setenv("JAXUP_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    with pytest.raises(InputError, match="none: no such folder"):
        data_dir(tmp_path / "none")


# Pipeline --------------------------------------------------------------------------------------------------


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
