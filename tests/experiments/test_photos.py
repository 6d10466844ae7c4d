"""Photographs: folders, grey values, patches."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr

from experiments.data.photos import embedded, grid_patches, image_files, photos, resized, to_grey, to_luma
from jaxup.files import InputError

RNG = np.random.default_rng(0)


def test_folder(tmp_path):
    colour, grey = RNG.integers(0, 256, (5, 7, 3), np.uint8), RNG.integers(0, 256, (4, 6), np.uint8)
    Image.fromarray(colour).save(tmp_path / "b.png")
    Image.fromarray(grey).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = photos(tmp_path)
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["b"], colour)
    np.testing.assert_array_equal(found["a"], np.stack([grey] * 3, -1))


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        image_files(tmp_path / "none")
    with pytest.raises(InputError, match="no images"):
        image_files(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a PNG")
    with pytest.raises(InputError, match=r"broken\.png"):
        photos(tmp_path)


def test_embedded():
    train, test = embedded("train"), embedded("test")
    assert not train.keys() & test.keys()
    assert all(a.dtype == np.uint8 and a.shape[2:] == (3,) for a in [*train.values(), *test.values()])


def test_grey_and_luma():
    rgb = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_allclose(to_luma(rgb), rgb2ycbcr(rgb)[..., 0], atol=1e-3)
    grey = np.repeat(RNG.integers(0, 256, (5, 7, 1), np.uint8), 3, axis=2)
    np.testing.assert_array_equal(to_grey(grey), grey[..., 0])


def test_resized():
    flat = np.full((6, 8, 3), 77, np.uint8)
    assert resized(flat, (3, 2)).shape == (3, 2, 3) and (resized(flat, (3, 2)) == 77).all()
    ramp = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    by_channel = np.stack([resized(ramp[..., c], (2, 2)) for c in range(3)], -1)
    np.testing.assert_array_equal(resized(ramp, (2, 2)), by_channel)


def test_grid_patches():
    image = np.arange(5 * 6).reshape(5, 6)
    patches = grid_patches(image, 3, 2)
    assert patches.shape == (4, 3, 3)
    np.testing.assert_array_equal(patches[3], image[2:5, 2:5])
    assert grid_patches(image, 6, 1).shape == (0, 6, 6)
    assert grid_patches(image[..., None] * np.ones(3), 5, 1).shape == (2, 5, 5, 3)
