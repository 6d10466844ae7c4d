"""Sources of real pairs."""

import itertools
import pickle
import threading

import h5py
import numpy as np
import pytest
from PIL import Image

from experiments.data import (
    Motorcycle,
    NYUDepthV2,
    PairFolder,
    data_dir,
)
from experiments.data.rgbd import fill_holes
from jaxup.files import InputError
from tests.experiments.pairs import COLOUR, DEPTH, assert_is_pair, one_line, write_pair

RNG = np.random.default_rng(0)


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


def test_data_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXUP_DATA", raising=False)
    with pytest.raises(InputError, match="JAXUP_DATA"):
        data_dir()
    monkeypatch.setenv("JAXUP_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    with pytest.raises(InputError, match="none: no such folder"):
        data_dir(tmp_path / "none")
