"""Upsampling of saliency maps, and the weighted F-measure."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.data import saliency
from experiments.joint_upsampling import saliency as task
from experiments.joint_upsampling.classical import FILTERS


def rectangle(height, width, rows, columns):
    """Outside, the nearest of its pixels is unique."""
    truth = np.zeros((height, width), bool)
    truth[rows, columns] = True
    return truth


def write(folder, image, mask, size=(20, 26)):
    for path in (image, mask):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    truth = rectangle(*size, slice(4, 12), slice(6, 18))
    colours = np.where(truth[..., None], np.uint8([200, 90, 40]), np.uint8([20, 60, 120]))
    Image.fromarray(colours).save(folder / image)
    Image.fromarray(np.uint8(255) * truth).save(folder / mask)
    return truth


@pytest.mark.parametrize(
    "names",
    [
        ("a_image.webp", "a_mask.png"),
        ("sub/a_image.jpg", "sub/a_mask.png"),
        ("DUT-OMRON-image/a.jpg", "masks/deep/a.png"),
    ],
)
def test_saliency_maps_of_a_folder(names, tmp_path):
    truth = write(tmp_path, *names)
    source = saliency(tmp_path)
    assert [name for name, _, _ in source.pairs] == ["a"]
    np.testing.assert_array_equal(source[0].depth[..., 0], truth)
    assert source[0].valid.all() and source[0].guide.shape == (20, 26, 3)


def run(*options):
    return main(["joint-upsampling", "saliency", *map(str, options)])


@pytest.mark.thorough
def test_table_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(task, "METHODS", FILTERS)
    for name in "ab":
        write(tmp_path / "data", f"{name}_image.png", f"{name}_mask.png")
    options = ["--source", "folder", "--data-dir", tmp_path / "data", "--scale", 4, "--pictures"]
    assert run(*options, "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "| bicubic " in out and "0.8860" in out and "| DJFR " in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "table.md", "a.png", "b.png"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["mean"]) == list(FILTERS) and len(results["images"]) == 2
    # The image has no other edges than the mask.
    assert 0.4 < results["mean"]["bicubic"] < results["mean"]["joint bilateral"] <= 1
    assert run(*options, "--out", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err


def test_smoke_needs_no_data(capsys):
    assert run("--smoke", "--scale", 4) == 0
    assert "mean of 2 maps, 4x" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ("--source folder --data-dir {tmp}/none", "none: no such folder"),
        ("--source folder --data-dir {tmp}/empty", "empty: no images <id>_image.*"),
        ("--source folder --data-dir {tmp}/alone", "a_mask.png: no image of the same name"),
        ("--source folder --data-dir {tmp}/black", "a_mask.png: no pixel of the object"),
        ("--source folder --data-dir {tmp}/small --scale 32", "multiple: expected at most the size of a"),
        ("--source folder --data-dir {tmp}/small --scale 0", "expected an integer >= 1, got 0"),
        ("--source folder --data-dir {tmp}/sizes", "depth of 26 x 20 pixels for an RGB image of 8 x 8"),
        ("--run-dir {tmp}/none", "is not a run directory"),
        ("--pictures", "pictures: expected a directory for them, --out"),
        ("--out {tmp}/empty", "exists already"),
    ],
)
def test_bad_input_is_one_line_and_status_2(options, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("alone", "black", "small", "sizes"):
        write(tmp_path / folder, "a_image.png", "a_mask.png")
    (tmp_path / "alone" / "a_image.png").unlink()
    Image.fromarray(np.zeros((20, 26), np.uint8)).save(tmp_path / "black" / "a_mask.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "sizes" / "a_image.png")
    assert run(*options.format(tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
