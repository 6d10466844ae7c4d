"""The test sets of depth upsampling in the formats in which they are distributed, written here in small."""

import numpy as np
import pytest
from PIL import Image

from experiments.data import PairFolder, benchmarks, by_family, lu, middlebury, sintel
from jaxup.files import InputError
from tests.experiments.pairs import COLOUR, DEPTH, assert_is_pair, write_dpt, write_pair

GREY = (DEPTH % 251).astype(np.uint8)


def write_scene(folder, view, disparity, grey=GREY):
    folder.mkdir(parents=True)
    Image.fromarray(COLOUR).save(folder / view)
    Image.fromarray(grey).save(folder / disparity)


def write_frame(root, scene, number, depth):
    for kind in ("final", "depth"):
        (root / "training" / kind / scene).mkdir(parents=True, exist_ok=True)
    Image.fromarray(COLOUR).save(root / "training" / "final" / scene / f"frame_{number:04d}.png")
    write_dpt(root / "training" / "depth" / scene / f"frame_{number:04d}.dpt", depth)


def test_middlebury_scenes_of_all_years(tmp_path):
    grey = GREY.copy()
    grey[2, 3] = 0
    write_scene(tmp_path / "2001" / "venus", "im2.ppm", "disp2.pgm")
    write_scene(tmp_path / "2003" / "cones", "im2.png", "disp2.png")
    write_scene(tmp_path / "2006" / "Aloe", "view1.png", "disp1.png", grey)
    Image.fromarray(COLOUR).save(tmp_path / "2006" / "Aloe" / "view5.png")
    source = middlebury(tmp_path)
    samples = list(source)
    assert [s.name for s in samples] == ["venus", "cones", "Aloe"] and source.unit == "grey levels"
    for sample in samples:
        assert_is_pair(sample)
        np.testing.assert_array_equal(np.rint(sample.guide * 255), COLOUR)
    np.testing.assert_array_equal(samples[2].valid[..., 0], grey != 0)
    np.testing.assert_array_equal(samples[2].depth[..., 0][grey != 0], grey[grey != 0])


def test_middlebury_rejects(tmp_path):
    with pytest.raises(InputError, match="none: no such folder"):
        middlebury(tmp_path / "none")
    with pytest.raises(InputError, match="no scenes"):
        middlebury(tmp_path)
    write_scene(tmp_path / "Aloe", "view5.png", "disp1.png")
    with pytest.raises(InputError, match=r"disp1\.png: no view1 beside it"):
        middlebury(tmp_path)


def test_real_middlebury_and_lu_have_one_unit(shared_data):
    for source, count in ((middlebury(shared_data / "rgbd" / "middlebury"), 20), (lu(shared_data / "rgbd" / "lu"), 4)):
        assert len(source) == count and source.unit == "grey levels"
        assert_is_pair(source[0])
        assert 100 < source[0].depth.max() <= 255


def test_lu_takes_zero_as_a_depth(tmp_path):
    write_pair(tmp_path, depth=np.where(GREY < 100, 0, GREY).astype(np.uint8))
    assert lu(tmp_path)[0].valid.all() and lu(tmp_path)[0].depth.min() == 0


def test_sintel_maps_each_frame_to_grey_levels(tmp_path):
    depth = np.random.default_rng(0).uniform(1, 90, (12, 16)).astype(np.float32)
    depth[0, :3] = 0.5, 100.5, np.inf
    write_frame(tmp_path, "alley_1", 2, depth)
    write_frame(tmp_path, "alley_1", 1, np.full((12, 16), 3, np.float32))
    write_frame(tmp_path, "cave_2", 1, depth)
    source = sintel(tmp_path, "test")
    assert [s.name for s in source] == ["alley_1_frame_0001", "alley_1_frame_0002", "cave_2_frame_0001"]
    sample = source[1]
    assert_is_pair(sample)
    assert np.argwhere(~sample.valid[..., 0]).tolist() == [[0, 2]]
    expected = 255 * (depth - 0.5) / 100
    np.testing.assert_allclose(sample.depth[sample.valid], expected[np.isfinite(depth)], rtol=1e-5)
    assert source[0].valid.all() and not source[0].depth.any()  # a constant


def test_sintel_split_and_missing_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no depth maps"):
        sintel(tmp_path, "test")
    for number in range(1, 4):
        write_frame(tmp_path, "alley_1", number, DEPTH)
    with pytest.raises(InputError, match="no frame of the train split"):
        sintel(tmp_path, "train")
    monkeypatch.setattr(benchmarks, "_SINTEL_TESTED", 2)
    assert [len(sintel(tmp_path, split)) for split in ("train", "test")] == [1, 2]
    (tmp_path / "training/final/alley_1/frame_0003.png").unlink()
    with pytest.raises(InputError, match=r"frame_0003\.dpt: no "):
        sintel(tmp_path, "train")


def test_views_of_a_scene_stay_together(tmp_path):
    for name in ("Aloe", "Baby1", "Baby2", "Cloth1", "Cloth4", "Wood1", "7"):
        write_pair(tmp_path, name)
    source = PairFolder(tmp_path)
    train, test = (by_family(source, split, 2) for split in ("train", "test"))
    assert [s.name for s in test] == ["Aloe", "Cloth1", "Cloth4"]
    assert [s.name for s in train] == ["7", "Baby1", "Baby2", "Wood1"]
    assert len(source) == 7
    for every in (1, 6):
        with pytest.raises(InputError, match="leaves none to test"):
            by_family(source, "test", every)
