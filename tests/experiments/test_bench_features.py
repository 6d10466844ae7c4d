"""The benchmark of feature upsamplers."""

import importlib
import json

import pytest

from experiments.__main__ import main

features = importlib.import_module("experiments.bench.features")  # the package has the command by this name


@pytest.mark.thorough
def test_measures_each(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "alone", lambda label, function, *arguments: function(*arguments))
    sizes = ["--image", "32", "--cells", "2", "--channels", "8", "--only", "bilinear", "anyup"]
    assert main(["bench", "features", *sizes, "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [row["upsampler"] for row in rows] == ["bilinear", "anyup"]
    assert all(0 < row["compiled, GiB"] < row["peak, GiB"] and row["s"] > 0 for row in rows)
    assert "2 x 2 to 32 x 32, C 8" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize("name", ["fitted", "uplift", "naf"])
@pytest.mark.thorough
def test_all_compile(name):
    row = features.measured(name, 32, 2, 8, run=False)
    assert row["compiled, GiB"] > 0 and "s" not in row


def test_a_bound_that_is_not_kept_is_exit_status_1(monkeypatch, capsys):
    monkeypatch.setattr(
        features, "alone", lambda label, function, name, *_: {"upsampler": name, "compiled, GiB": 2.0, "compile s": 1.0}
    )
    with pytest.raises(SystemExit, match="1"):
        features.features(only=("naf",), bound=2.0, run=False)
    assert "not below 2 GiB: naf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cells", "30"], "expected an image of whole cells"),
        (["--only", "resfu"], "got 448, ('resfu',)"),
        (["--channels", "0"], "channels: expected"),
    ],
)
def test_bad_options(options, message, capsys):
    assert main(["bench", "features", *options]) == 2
    assert message in capsys.readouterr().err
