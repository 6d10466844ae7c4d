"""The benchmark of large images."""

import importlib
import json

import pytest

from experiments.__main__ import main

large = importlib.import_module("experiments.bench.large")  # the package has the command by this name


@pytest.mark.thorough
def test_time_per_pixel_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "alone", lambda label, function, *arguments: function(*arguments))
    sizes = ["--megapixels", "0.01", "0.04", "--scale", "2", "--only", "joint_bilateral", "--repeats", "1"]
    assert main(["bench", "large", *sizes, "--bound", "20", "--out", str(tmp_path / "out")]) == 0
    first, second = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert first["to the first"] == 1 and second["to the first"] == second["ns per pixel"] / first["ns per pixel"]
    assert first["ns per pixel"] == pytest.approx(1e3 * first["s"] / first["megapixels"])
    assert 0 < first["compiled, GiB"] < second["compiled, GiB"] < first["peak, GiB"] <= second["peak, GiB"]
    assert "2x, C 4, float32, forward" in (tmp_path / "out" / "table.md").read_text()


def test_a_bound_that_is_not_kept_is_exit_status_1(monkeypatch, capsys):
    row = {"megapixels": 1.0, "ns per pixel": 2.0, "peak, GiB": 3.0}
    monkeypatch.setattr(large, "alone", lambda label, function, name, *_: row | {"operator": name})
    with pytest.raises(SystemExit, match="1"):
        large.large(megapixels=(1.0,), only=("fade",), bound=3.0)
    assert "not below 3 GiB: fade at 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "naf"], "only: expected some of nearest"),
        (["--megapixels", "0.001"], "megapixels: expected at least 0.016384, got (0.001,)"),
        (["--megapixels"], "megapixels: expected at least"),
        (["--repeats", "0"], "repeats: expected"),
    ],
)
def test_bad_options(options, message, capsys):
    assert main(["bench", "large", *options]) == 2
    assert message in capsys.readouterr().err
