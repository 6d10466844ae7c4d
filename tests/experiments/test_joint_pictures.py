"""Kernels made visible, error against time and parameters, and what sensors give, of the depth upsampling task."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.__main__ import main
from experiments.data import Scenes, normalised
from experiments.engine.runs import Run
from experiments.joint_upsampling import evaluation, sensors
from experiments.joint_upsampling import plots as plots_of
from experiments.joint_upsampling.classical import FILTERS
from experiments.joint_upsampling.kernels import kernels_figure, kernels_of, splatted
from experiments.joint_upsampling.networks import NetworkConfig
from jaxup.ops import resize
from tests.modules import call
from tests.registry.examples import thorough


def run_of(**options):
    network = NetworkConfig("FDKN", widths=(4, 4), **({"window_size": 9} | options)).build(0)
    network.eval()
    return Run(f"FDKN {options}", None, network)


@pytest.mark.thorough
@pytest.mark.parametrize("residual", [thorough(False), True], ids=str)
def test_kernels_are_what_the_network_averages_by(residual):
    """On the pixels of its window the weights give what the network gives, away from the border."""
    sample, run = Scenes(1, 32, 0)[0], run_of(residual=residual)
    weights, positions = kernels_of(run, sample, 4, "grid")
    example = normalised(sample, 4, "grid")
    maps = example["target"][None], example["guide"][None]
    out = np.asarray(call(run.network, *maps))[0, ..., 0]
    depth = np.asarray(resize(maps[0], scale=4, method="bicubic"))[0, ..., 0]
    for y, x in ((9, 20), (16, 16), (22, 7)):
        kernel = splatted((weights[y, x], positions[y, x]), 9)
        assert np.abs(positions[y, x]).max() < 4  # beyond the window's edge samples fade
        assert kernel.sum() == pytest.approx(0 if residual else 1, abs=1e-5)
        found = (kernel * depth[y - 4 : y + 5, x - 4 : x + 5]).sum() + (depth[y, x] if residual else 0)
        assert found == pytest.approx(out[y, x], abs=1e-4)


@pytest.mark.thorough
def test_figure_of_kernels(tmp_path):
    runs = [run_of(residual=False), run_of(offsets=False, guided=False, window_size=15)]
    kernels_figure(tmp_path / "kernels.png", Scenes(1, 32, 0)[0], 4, "grid", runs)
    with Image.open(tmp_path / "kernels.png") as figure:
        assert figure.height > 800


def results(path, mean, **more):
    path.mkdir()
    (path / "results.json").write_text(json.dumps({"unit": "px", "mean": mean} | more))
    return path


def plots(*paths, out):
    return main(["joint-upsampling", "plots", "--out", str(out), *(w for p in paths for w in ("--results", str(p)))])


@pytest.mark.thorough
def test_error_against_time_and_parameters(tmp_path, capsys):
    """Of several results together, each method where it has both numbers."""
    first = results(tmp_path / "a", {"bicubic": {"4x": 2, "8x": 3}}, seconds={"bicubic": 0.1})
    second = results(tmp_path / "b", {"FDKN": {"8x": 2}}, parameters={"FDKN": 7e5}, seconds={"FDKN": 0.7})
    assert plots(first, second, out=tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"time.png", "parameters.png"}
    capsys.readouterr()
    protocols = tmp_path / "c"
    protocols.mkdir()
    (protocols / "results.json").write_text(json.dumps({"djf": {"unit": "cm", "mean": {"bicubic": {"8x": 3}}}}))
    for paths, message in [
        ((), "results: expected at least one directory"),
        ((results(tmp_path / "d", {"bicubic": {"8x": 1}}),), "neither seconds nor parameters"),
        ((protocols,), "expected results of evaluate with the protocol grid"),
        ((results(tmp_path / "e", {"bicubic": 3}),), "expected results of evaluate"),
        ((tmp_path / "none",), "none"),
    ]:
        assert plots(*paths, out=tmp_path / "new") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_seconds_and_parameters_are_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "FILTERS", {"bicubic": FILTERS["bicubic"]})
    monkeypatch.setattr(evaluation, "_TIMED", (32, 48))
    words = "evaluate --source scenes --scenes 1 --scene-size 32 --scales 4 --no-solvers --seconds --out"
    assert main(["joint-upsampling", *words.split(), str(tmp_path / "out")]) == 0
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 0 < stored["seconds"]["bicubic"] < 60 and stored["parameters"] == {}
    assert "CPU seconds for 640 x 480" in capsys.readouterr().out


def test_what_sensors_give():
    depth = np.linspace(1, 2, 30 * 45).reshape(30, 45)
    depth[:, 20] = np.nan
    for sensor, shape in ((sensors.holes, (30, 45)), (sensors.phone, (4, 6)), (sensors.lidar, (30, 45))):
        given = sensor(depth)
        assert given.depth.shape == shape and given.scored.shape == depth.shape
        assert given.scored.any() and not (given.scored & ~np.isfinite(depth)).any()
        if given.depth.shape == depth.shape:
            assert not (given.scored & np.isfinite(given.depth)).any()
            known = np.isfinite(given.depth)
            np.testing.assert_array_equal(given.depth[known], depth[known])
    phone = sensors.phone(np.where(np.arange(45) < 20, 1.0, 2.0)[None].repeat(30, 0))
    np.testing.assert_array_equal(phone.confidence[0], [1, 1, 0.5, 0.5, 1, 1])
    assert np.isfinite(sensors.lidar(depth).depth).mean() == pytest.approx(1 / 40, rel=0.2)


@pytest.mark.thorough
def test_sensors_smoke(tmp_path, capsys):
    assert main(["joint-upsampling", "sensors", "--preset", "smoke", "--pictures", "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table.md", "results.json", "mrf.png"}
    errors = json.loads((tmp_path / "out" / "results.json").read_text())["images"]["mrf"]
    assert [name.partition(": ")[2] for name in errors] == list(sensors.SENSORS)
    assert all(0 < error < 10 for error in errors.values())


@pytest.mark.parametrize(
    "options, message",
    [
        ("--methods jbu", "methods: expected one of 'fgi', 'fbs'"),
        ("--window 10", "window: expected at least 15, got 10"),
        ("--source pairs --scenes 3", "scenes: has no effect with the source pairs"),
        ("--pictures", "pictures: expected a directory for them, --out"),
    ],
)
def test_bad_options_of_sensors(options, message, capsys):
    assert main(["joint-upsampling", "sensors", *options.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_names_in_plots_do_not_cover_each_other():
    figure = Figure(figsize=(4, 3))
    axis = figure.subplots()
    axis.set(xlim=(0, 10), ylim=(0, 10))
    points = {f"a method {n}": (5 + 0.1 * n, 5 + 0.2 * (n % 3)) for n in range(6)}
    plots_of._name(axis, points)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == list(points)
    assert not any(box.count_overlaps(boxes[:n]) for n, box in enumerate(boxes))
