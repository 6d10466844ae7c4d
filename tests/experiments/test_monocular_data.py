"""Monocular depth data: sets in their folders, the two protocols, batches that continue."""

import re

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from experiments.data import monocular, nyu
from experiments.data import monocular_batches as batches
from experiments.data.monocular import Frame
from experiments.data.monocular_batches import Protocol, augmented, examined, training_batches
from jaxup.files import InputError
from tests import goldens

RNG = np.random.default_rng(9)


def picture(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def metres(*shape):
    return RNG.uniform(0.5, 9, shape).astype(np.float32)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def frame(height=48, width=64):
    """Depth is the number of the row, and at the left of the column, so that it can be seen where pixels come from."""
    y, x = np.indices((height, width))
    return Frame(np.stack([y, x, y + x], 2).astype(np.uint8), (1000 * (y + 1) + x + 1).astype(np.float32), "f")


class Frames:
    """Three frames, quick to make."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return frame()._replace(image=np.random.default_rng(range(3)[index]).integers(0, 256, (48, 64, 3), np.uint8))


def mat(path, count=4):
    rgb, depth = picture(count, 3, 8, 6), metres(count, 8, 6)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"] = rgb, depth
    return rgb, depth


def test_labelled_nyu(tmp_path):
    rgb, depth = mat(tmp_path / "nyu_depth_v2_labeled.mat")
    train = nyu.nyu(tmp_path, "train")
    assert len(train) == 4 and train[3].name == "nyu_0003"
    np.testing.assert_array_equal(train[3].image, rgb[3].transpose(2, 1, 0))
    np.testing.assert_array_equal(train[3].depth, depth[3].T)
    with pytest.raises(InputError, match=r"labeled.mat: no frame of the test split"):
        nyu.nyu(tmp_path, "test")
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[1], [4]], "testNdxs": [[2], [3]]})
    assert [f.name for f in nyu.nyu(tmp_path, "test")] == ["nyu_0001", "nyu_0002"]
    assert [f.name for f in nyu.nyu(tmp_path / "nyu_depth_v2_labeled.mat", "train")] == ["nyu_0000", "nyu_0003"]
    (tmp_path / "splits.mat").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"splits.mat: cannot be read"):
        nyu.nyu(tmp_path, "test")
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"labeled.mat: cannot be read"):
        nyu.nyu(tmp_path, "train")
    with pytest.raises(InputError, match=r"has neither nyudepthv2/train, nyu2_test.csv, nor nyu_depth_v2_labeled.mat"):
        nyu.nyu(tmp_path / "nowhere", "test")


def h5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def test_fastdepths_frames(tmp_path):
    rgb, depth = picture(3, 6, 8), metres(6, 8)
    depth[0, 0] = np.nan
    h5(tmp_path / "nyudepthv2/train/room_1/00001.h5", rgb=rgb, depth=depth)
    h5(tmp_path / "nyudepthv2/val/official/00001.h5", rgb=rgb, depth=depth)
    for split, name in (("train", "room_1_00001"), ("test", "official_00001")):
        (found,) = nyu.nyu(tmp_path, split)
        assert found.name == name and found.depth[0, 0] == 0
        np.testing.assert_array_equal(found.image, rgb.transpose(1, 2, 0))
        np.testing.assert_array_equal(found.depth[1:], depth[1:])
    assert len(nyu.FastDepthFrames(tmp_path / "nyudepthv2", "test")) == 1
    path = tmp_path / "nyudepthv2/train/room_1/00001.h5"
    for arrays, message in (
        ({"rgb": rgb}, "no array 'depth'"),
        ({"rgb": rgb.transpose(1, 2, 0), "depth": depth}, "expected rgb uint8"),
        ({"rgb": rgb, "depth": np.uint16(depth[1:])}, "expected rgb uint8"),
        ({"rgb": rgb, "depth": depth[:, 1:]}, "depth of 7 x 6 pixels for an image of 8 x 6"),
        ({"rgb": rgb, "depth": 0 * depth[1:].repeat(2, 0)[:6]}, "no measured depth in any pixel"),
    ):
        path.unlink()
        h5(path, **arrays)
        with pytest.raises(InputError, match=f"{re.escape(str(path))}: .*{message}"):
            nyu.nyu(tmp_path, "train")[0]
    whole = (tmp_path / "nyudepthv2/val/official/00001.h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"00001.h5: cannot be read") as caught:
        nyu.nyu(tmp_path, "train")[0]
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"train: no frames \*.h5"):
        nyu.FastDepthFrames(tmp_path / "elsewhere", "train")


def test_hus_frames(tmp_path):
    data = tmp_path / "data"
    colours, near = save(data / "nyu2_train/room/1.png", picture(6, 8, 3)), picture(6, 8)
    save(data / "nyu2_train/room/1d.png", near)
    far = save(data / "nyu2_test/1d.png", RNG.integers(700, 9000, (6, 8)).astype(np.uint16))
    (data / "nyu2_train.csv").write_text("data/nyu2_train/room/1.png,data/nyu2_train/room/1d.png\n")
    (data / "nyu2_test.csv").write_text("data/nyu2_train/room/1.png,data/nyu2_test/1d.png\n\n")
    for root in (tmp_path, data):
        (train,), (test,) = nyu.nyu(root, "train"), nyu.nyu(root, "test")
        np.testing.assert_allclose(train.depth, near / 25.5, rtol=1e-6)
        np.testing.assert_allclose(test.depth, far / 1000, rtol=1e-6)
        np.testing.assert_array_equal(train.image, colours)
    (data / "nyu2_train.csv").write_text("data/nyu2_train/room/1.png,data/nyu2_test/1d.png\n")
    with pytest.raises(InputError, match=r"1d.png: expected depth of 8 bits, got uint16"):
        nyu.nyu(tmp_path, "train")[0]
    (data / "nyu2_train.csv").write_text("data/nyu2_train/room/2.png,data/nyu2_test/1d.png\n")
    with pytest.raises(InputError, match=r"nyu2_train.csv: lists data/nyu2_train/room/2.png, which is not there"):
        nyu.nyu(tmp_path, "train")[0]
    for text, message in (("a,b,c", "got 'a,b,c'"), ("", "got 'nothing'")):
        (data / "nyu2_train.csv").write_text(text)
        with pytest.raises(InputError, match=f"nyu2_train.csv: expected lines IMAGE,DEPTH, {message}"):
            nyu.nyu(tmp_path, "train")


def test_kitti(tmp_path):
    drive, stem = "2011_09_26_drive_0001_sync", "0000000005"
    stored = RNG.integers(0, 20000, (6, 8)).astype(np.uint16)
    stored[0, 0] = 0
    depth = save(tmp_path / f"train/{drive}/proj_depth/groundtruth/image_02/{stem}.png", stored)
    with pytest.raises(InputError, match=rf"{stem}.png: has no image 2011_09_26/{drive}/image_02/data/{stem}.png"):
        monocular.kitti(tmp_path, "train")
    image = save(tmp_path / f"2011_09_26/{drive}/image_02/data/{stem}.png", picture(6, 8, 3))
    (found,) = monocular.kitti(tmp_path, "train")
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.depth, np.float32(depth / 256))
    assert found.depth[0, 0] == 0 and found.name == f"{drive}_image_02_{stem}"
    with pytest.raises(InputError, match=r"val: no depth maps DRIVE/proj_depth"):
        monocular.kitti(tmp_path, "test")
    selected = tmp_path / "depth_selection/val_selection_cropped"
    save(selected / f"groundtruth_depth/{drive}_groundtruth_depth_{stem}_image_02.png", stored)
    with pytest.raises(InputError, match=r"image_02.png: no such file, which belongs to"):
        monocular.kitti(tmp_path, "test")
    save(selected / f"image/{drive}_image_{stem}_image_02.png", image)
    np.testing.assert_array_equal(monocular.kitti(tmp_path, "test")[0].depth, found.depth)


def test_folders(tmp_path):
    save(tmp_path / "images/train/a.jpg", picture(6, 8, 3))
    with pytest.raises(InputError, match=r"a.jpg: has no depth map a in"):
        monocular.folder(tmp_path, "train")
    stored = save(tmp_path / "depth/train/a.png", RNG.integers(1, 9999, (6, 8)).astype(np.uint16))
    np.testing.assert_array_equal(monocular.folder(tmp_path, "train")[0].depth, np.float32(stored / 256))
    np.testing.assert_array_equal(monocular.folder(tmp_path, "train", 1000)[0].depth, np.float32(stored / 1000))
    save(tmp_path / "depth/train/a.png", picture(6, 8))
    with pytest.raises(InputError, match=r"a.png: expected depth of 16 bits, or floating-point numbers, got uint8"):
        monocular.folder(tmp_path, "train")[0]
    (tmp_path / "depth/train/a.png").unlink()
    np.save(tmp_path / "depth/train/a.npy", np.float32([[np.inf, -1, 2]]).repeat(6, 0))
    with pytest.raises(InputError, match=r"a.npy: depth of 3 x 6 pixels for an image of 8 x 6"):
        monocular.folder(tmp_path, "train")[0]
    with pytest.raises(InputError, match="per_metre: expected a number above 0, got 0"):
        monocular.folder(tmp_path, "train", 0)


def test_the_data_at_hand():
    source = monocular.folder(goldens.shared("data") / "rgbd" / "nyu", "test")
    assert [f.name for f in source] == ["1001", "1002", "dining", "fastdepth224"]  # and not the one without a unit
    assert all(f.depth.min() > 0.5 and f.depth.max() < 10 for f in source)


def rows_and_columns(depth):
    """Where pixels of `frame` come from."""
    return depth.astype(int) // 1000 - 1, depth.astype(int) % 1000 - 1


def test_fastdepths_protocol():
    """480 x 640 -> 250 x 333 -> rows 11 to 238, columns 14 to 317 -> 224 x 224, each by nearest pixels."""
    example = examined(frame(480, 640)._replace(image=picture(480, 640, 3)), Protocol("fastdepth"))
    assert example["image"].shape == (224, 224, 3) and example["depth"].shape == (224, 224, 1)
    rows, columns = rows_and_columns(example["depth"][..., 0])
    place = np.arange(224)
    inner = np.floor((place + 0.5) * 228 / 224).astype(int) + 11, np.floor((place + 0.5) * 304 / 224).astype(int) + 14
    for found, (n, m), want in ((rows[:, 0], (480, 250), inner[0]), (columns[0], (640, 333), inner[1])):
        np.testing.assert_array_equal(found, np.floor((want + 0.5) * n / m).astype(int))
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()


def test_hus_protocol():
    big = frame(480, 640)._replace(image=picture(480, 640, 3))
    example = examined(big, Protocol("hu"))
    assert example["image"].shape == (228, 304, 3) and example["depth"].shape == (228, 304, 1)
    reduced = np.asarray(Image.fromarray(big.image).resize((320, 240), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(example["image"], np.float32(reduced[6:234, 8:312]) / 255)
    rows, columns = rows_and_columns(example["depth"][..., 0])
    np.testing.assert_array_equal(rows[:, 0], 2 * np.arange(6, 234) + 1)
    np.testing.assert_array_equal(columns[0], 2 * np.arange(8, 312) + 1)
    trained = augmented(big, Protocol("hu"), np.random.default_rng(0))
    assert trained["image"].shape == (228, 304, 3) and trained["depth"].shape == (114, 152, 1)


@pytest.mark.parametrize("manner", ["fastdepth", "hu"])
@pytest.mark.parametrize("size", [(48, 64), (40, 41), (64, 30)])
def test_other_sizes(manner, size):
    how = Protocol(manner, height=32)
    tested = examined(frame(*size), how)
    assert len(tested["image"]) == len(tested["depth"]) == 32 and tested["valid"].all()
    assert tested["depth"].max() <= frame(*size).depth.max() and tested["depth"].min() >= 1001
    trained = augmented(frame(*size), how, np.random.default_rng(2))
    assert trained["image"].shape == tested["image"].shape and trained["image"].dtype == np.float32
    assert trained["image"].min() >= 0 and trained["image"].max() <= 1
    np.testing.assert_array_equal(trained["valid"], trained["depth"] > 0)


def test_zoom_brings_nearer_and_depth_is_never_mixed():
    flat = frame()._replace(depth=np.where(np.indices((48, 64))[1] < 32, 2, 8).astype(np.float32))
    for seed in range(5):
        depth = augmented(flat, Protocol(height=32), np.random.default_rng(seed))["depth"]
        near, far = np.unique(depth[depth > 0])
        assert far / near == pytest.approx(4, rel=1e-5) and 8 / 1.5 <= far <= 8
        hu = augmented(flat, Protocol("hu", height=32), np.random.default_rng(seed))["depth"]
        assert set(np.unique(hu)) <= {0, 2, 8}
        as_it_is = augmented(flat, Protocol(height=32, zoom=1.0), np.random.default_rng(seed))["depth"]
        assert {2, 8} <= set(np.unique(as_it_is)) <= {0, 2, 8}


def test_jitter_keeps_greys_grey():
    grey = np.full((4, 5, 3), 0.5, np.float32)
    found = [batches.jittered(grey, np.random.default_rng(seed)) for seed in range(5)]
    for image in found:
        np.testing.assert_allclose(image, image[..., :1].repeat(3, 2), atol=1e-6)
        assert 0.29 < image.mean() < 0.71
    assert len({float(image.mean()) for image in found}) == 5


@pytest.mark.parametrize("manner", ["fastdepth", "hu"])
def test_batches_continue_where_they_stopped(manner):
    how = Protocol(manner, height=16)
    stream = iter(training_batches(Frames(), how, batch_size=2, seed=4))
    next(stream)
    state = stream.get_state()
    want = [next(stream) for _ in range(2)]
    again = iter(training_batches(Frames(), how, batch_size=2, seed=4))
    again.set_state(state)
    for batch in want:
        found = next(again)
        for name, x in batch.items():
            np.testing.assert_array_equal(found[name], x)
    assert want[0]["image"].shape[:2] == (2, 16)


def test_bad_options():
    with pytest.raises(InputError, match="manner: expected fastdepth or hu, got 'eigen'"):
        Protocol("eigen")
    with pytest.raises(InputError, match="height: expected at least 8, got 4"):
        Protocol(height=4)
    for zoom in (0.9, np.nan, np.inf):
        with pytest.raises(InputError, match=f"zoom: expected a number from 1 on, got {zoom}"):
            Protocol(zoom=zoom)
    with pytest.raises(InputError, match="frames: expected at least one image with its depth"):
        monocular.Folder([])
