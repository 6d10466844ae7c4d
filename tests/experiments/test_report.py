from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from experiments.engine import figures as report
from experiments.engine import report as results
from experiments.engine.figures import Comparison, Panel, comparison_figure, kernel_figure, panel_figure
from experiments.engine.report import beside_paper, leaves_results, markdown_table, publish
from jaxup._writing import write_file
from jaxup.files import InputError


def test_a_table_reads_as_markdown_and_as_text():
    rows = [
        {"method": "bicubic", "8x": 0.123456, "steps": 10},
        {"method": "a|b", "8x": np.float32(12345.6), "steps": 2},
    ]
    assert markdown_table(rows, ["method", "8x", "steps", "none"], digits=3) == (
        "| method  |       8x | steps | none |\n"
        "| :------ | -------: | ----: | :--- |\n"
        "| bicubic |    0.123 |    10 |      |\n"
        "| a\\|b    | 1.23e+04 |     2 |      |"
    )


def comparison(height=16, width=24, methods=("bicubic", "attention"), invalid=True):
    rng = np.random.default_rng(0)
    truth = rng.random((height, width, 1), np.float32) + 1
    valid = np.ones((height, width, 1), bool)
    valid[:4, :4] = not invalid
    results = {name: truth + np.float32(0.1 * i) for i, name in enumerate(methods)}
    errors = {name: 0.1 * i for i, name in enumerate(methods)}
    return Comparison("sample", rng.random((height, width, 3)), truth[::4, ::4], results, truth, valid, "m", errors)


@pytest.mark.thorough
def test_the_figure_is_a_png_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "figure.png"
    comparison_figure(path, [comparison(), comparison(height=20, invalid=False)])
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] > image.size[1] > 300


def test_all_methods_share_their_scales_and_say_their_errors(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report.Figure, "savefig", lambda figure, file, **_: figures.append(figure))
    comparison_figure(tmp_path / "figure.png", [comparison(methods=("a", "b", "c"))])
    axes = np.reshape(figures[0].axes, (2, 7))
    titles = [[axis.get_title() for axis in row] for row in axes]
    assert titles[0] == ["guide", "input, 6 x 4", "a", "b", "c", "ground truth", ""]
    assert titles[1][2:5] == ["RMSE 0 m", "RMSE 0.1 m", "RMSE 0.2 m"]
    depths = [axis.images[0] for axis in axes[0, 1:6]]
    errors = [axis.images[0] for axis in axes[1, 2:5]]
    assert len({id(image.norm) for image in depths}) == 1
    assert len({id(image.norm) for image in errors}) == 1
    assert (errors[0].norm.vmin, errors[0].norm.vmax) == pytest.approx((0, 0.2), rel=1e-5)
    shown = comparison().truth[4:, :].min(), comparison().truth[4:, :].max()
    assert depths[0].norm.vmin <= shown[0] and depths[0].norm.vmax >= shown[1]
    assert errors[2].get_array().mask[:4, :4].all() and not errors[2].get_array().mask[4:].any()
    assert depths[-1].get_array().mask.sum() == 16


def test_a_sample_without_ground_truth_is_named(tmp_path):
    sample = comparison()._replace(valid=np.zeros((16, 24, 1)))
    with pytest.raises(InputError, match="sample: has no valid pixel"):
        comparison_figure(tmp_path / "figure.png", [sample])
    assert not list(tmp_path.iterdir())


def test_a_figure_without_errors_or_relief_can_be_drawn(tmp_path):
    flat = comparison(methods=("exact",))
    flat = flat._replace(truth=np.ones_like(flat.truth), results={"exact": np.ones_like(flat.truth)})
    comparison_figure(tmp_path / "figure.png", [flat])
    assert (tmp_path / "figure.png").exists()


def test_pictures_in_rows(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report.Figure, "savefig", lambda figure, file, **_: figures.append(figure))
    colour, grey = np.full((8, 12, 3), 2.0), np.full((2, 3, 1), -0.5)
    rows = [[Panel(colour, "colour"), Panel(grey, "grey", (-1, 3))], [Panel(grey[..., 0], label="left")]]
    panel_figure(tmp_path / "new" / "rows.png", rows)
    axes = figures[0].axes
    assert [axis.get_title() for axis in axes] == ["colour", "grey", "", ""]
    assert [axis.get_ylabel() for axis in axes] == ["", "", "left", ""]
    shown = [axis.images[0] for axis in axes[:3]]
    assert [image.get_array().shape for image in shown] == [(8, 12, 3), (2, 3), (2, 3)]
    assert (shown[0].get_array() == 1).all() and (shown[1].norm.vmin, shown[1].norm.vmax) == (-1, 3)
    assert not axes[3].images and not axes[3].axison
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.png"]


def test_the_papers_columns_stand_beside_ours():
    rows = [{"method": "a", "4x": 1.0, "8x": 2.0}, {"method": "b", "4x": 3.0, "8x": 4.0}]
    found = beside_paper(rows, {"4x": {"b": "2.9", "c": "0.1"}, "8x": {"c": "0.2"}})
    assert [list(row) for row in found] == [["method", "4x", "paper 4x", "8x", "paper 8x"]] * 3
    assert [row["paper 4x"] for row in found] == ["", "2.9", "0.1"]
    assert found[2] == {"method": "c", "4x": "", "paper 4x": "0.1", "8x": "", "paper 8x": "0.2"}
    assert beside_paper(rows, {}) == rows


class Command(NamedTuple):
    out: Path | None
    pictures: bool = False


def test_a_killed_evaluation_does_not_stand_in_its_own_way(tmp_path, monkeypatch, capsys):
    """Whatever file it was killed at; the directory of a finished one is refused, as is one of something else."""
    out = tmp_path / "new" / "out"

    @leaves_results
    def command(config):
        write_file(out / "picture.png", b"x")
        publish(out, [1], "table")

    written = []

    def killed_at(count):
        def write(path, content):
            if path.suffix and len(written) == count:
                raise KeyboardInterrupt
            written.extend([path] if path.suffix else [])
            write_file(path, content)

        return write

    for count in (0, 1):
        written.clear()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(results, "write_file", killed_at(count))
            command(Command(out))
        assert out.is_dir() and not (out / "table.md").exists()
    command(Command(out))
    assert sorted(path.name for path in out.iterdir()) == ["picture.png", "results.json", "table.md"]
    (tmp_path / "link").symlink_to("nothing")
    for path in (out, tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match="exists already"):
            command(Command(path))


def test_errors_leave_no_directory(tmp_path):
    @leaves_results
    def command(config):
        raise InputError("no such run")

    with pytest.raises(InputError, match="no such run"):
        command(Command(tmp_path / "out"))
    with pytest.raises(InputError, match="expected a directory for them"):
        command(Command(None, pictures=True))
    assert not list(tmp_path.iterdir())


def test_kernels_of_the_steepest_pixels(tmp_path, monkeypatch):
    """In the corners of a square lie the only slopes; each kernel has its pixel's number and largest entry as title."""
    figures = []
    monkeypatch.setattr(report.Figure, "savefig", lambda figure, file, **_: figures.append(figure))
    image = np.zeros((32, 40))
    image[8:24, 10:30] = 1
    kernels = np.zeros((32, 40, 9))
    kernels[..., 4] = image
    kernel_figure(tmp_path / "new" / "kernels.png", image, kernels)
    whole, *axes = figures[0].axes
    shown = [axis for axis in axes if axis.images]
    assert len(axes) == 10 and 4 <= len(shown) <= 10
    for number, (axis, text) in enumerate(zip(shown, whole.texts, strict=True), 1):
        x, y = text.get_position()
        assert text.get_text() == str(number) and image[y - 1 : y + 2, x - 1 : x + 2].std() > 0
        assert axis.get_title() == f"{number}: {image[y, x]:.2f}"
        np.testing.assert_array_equal(axis.images[0].get_array(), kernels[y, x].reshape(3, 3))


def test_a_flat_image_has_kernels_too(tmp_path):
    kernel_figure(tmp_path / "kernels.png", np.zeros((5, 4)), np.full((5, 4, 25), 0.04))
    assert [entry.name for entry in tmp_path.iterdir()] == ["kernels.png"]
