"""Reading of image and array files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.images import read_dpt, read_map, read_rgb
from jaxup.files import InputError
from tests.experiments.pairs import COLOUR, DEPTH, one_line, write_dpt


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "ppm"])
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
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png"), np.stack([grey] * 3, -1))
    Image.fromarray(DEPTH.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float\.tiff: expected an image of at most 16 bits a channel, got float32"):
        read_rgb(tmp_path / "float.tiff")


def test_foreign_formats_and_large_images_are_refused(tmp_path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "image.gif")
    (tmp_path / "image.gif").rename(tmp_path / "image.png")  # the suffix decides nothing
    with pytest.raises(InputError, match="cannot be read"):
        read_rgb(tmp_path / "image.png")
    Image.fromarray(COLOUR).save(tmp_path / "large.png")
    np.save(tmp_path / "large.npy", DEPTH)
    np.savez_compressed(tmp_path / "large.npz", depth=DEPTH)
    monkeypatch.setattr("jaxup.files.MAX_PIXELS", 40)
    for name, read in {"large.png": read_rgb, "large.npy": read_map, "large.npz": read_map}.items():
        with pytest.raises(InputError, match=rf"{name}: .*more than 40 pixels"):
            read(tmp_path / name)


def test_images_that_pillow_only_warns_about_are_refused_in_one_line(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "large.png")
    program = (
        "import pathlib, PIL.Image, experiments.data.images as images\n"
        "PIL.Image.MAX_IMAGE_PIXELS = 100\n"  # Pillow warns of 192 pixels and would raise from 201 on
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


def test_depth_maps_of_sintel(tmp_path):
    path, depth = tmp_path / "m.dpt", DEPTH.astype(np.float32) / 7
    write_dpt(path, depth)
    np.testing.assert_array_equal(read_dpt(path), depth)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"0000", whole[:10], b"", b"0000" + whole[4:], whole[:4] + bytes(8)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"m\.dpt: ") as error:
            read_dpt(path)
        one_line(error)
