"""The benchmark of operators at named sizes runs, and its forms in PyTorch compute the same."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.__main__ import main
from experiments.bench.cases import OPERATORS, SHAPES, moved
from experiments.bench.compare import compare, measure
from experiments.bench.measuring import Machine, spread
from jaxup.files import InputError

ABLE = Machine(1e9, 1e9)


@pytest.mark.torch
@pytest.mark.first(3, 12)
@pytest.mark.parametrize("name", sorted(OPERATORS, key=lambda name: name not in ("sample", "reassemble", "box_filter")))
def test_the_forms_in_torch_agree_in_values_and_gradients(name):
    """`measure` compares both before it counts."""
    forms = pytest.importorskip("experiments.bench.torch_forms", exc_type=ImportError)
    for gradients in (False, True):
        row = measure(OPERATORS[name](SHAPES["tiny"]), "float32", gradients, forms, ABLE, repeats=1)
        assert row["torch / jaxup"] > 0 and row["peak MiB"] > row["scratch MiB"] >= 0


@pytest.mark.torch
def test_forms_that_differ_are_an_error():
    forms = pytest.importorskip("experiments.bench.torch_forms", exc_type=ImportError)
    job = OPERATORS["pixel_shuffle"](SHAPES["tiny"])
    wrong = job._replace(run=lambda x, scale: jnp.flip(x.reshape(1, 12, 10, 4), 1))
    with pytest.raises(RuntimeError, match="result 0 and PyTorch's differ"):
        measure(wrong, "float32", False, forms, ABLE, repeats=1)


def test_what_has_to_move_is_inputs_and_outputs():
    shape = SHAPES["tiny"]
    job = OPERATORS["reassemble"](shape)
    low, high = 30 * 4, 120 * 4
    kernels = 120 * 25
    assert moved(job, jnp.float32, False) == 4 * (low + kernels + high)
    assert moved(job, jnp.bfloat16, True) == 2 * (2 * low + 2 * kernels + high)
    assert job.multiply_adds == 25 * high


def test_shares_and_spread():
    share = Machine(100.0, 50.0).share(2.0, moved=50.0, multiply_adds=10.0)
    assert share == {"% of copy": 25.0, "% of matmul": 10.0}
    assert spread(np.array([1.0, 2.0, 3.0])) == 0.25


@pytest.mark.thorough
def test_leaves_a_table_and_what_it_was_measured_with(tmp_path, capsys):
    out = tmp_path / "out"
    compare(cases=("tiny", "4k"), only=("pixel_shuffle",), types=("bfloat16",), repeats=1, memory=0.001, out=out)
    results = json.loads((out / "results.json").read_text())
    assert {"processor", "cores", "commit", "date", "jax", "device", "machine"} <= set(results)
    assert [row["pass"] for row in results["rows"]] == ["forward", "gradients"]
    assert "| tiny | pixel_shuffle | bfloat16 | forward " in (out / "table.md").read_text()
    assert "4k pixel_shuffle bfloat16 forward: left out, moves 2.0 GiB" in capsys.readouterr().out


def test_without_pytorch_where_its_process_was_ended(monkeypatch, capsys):
    """Both passes, then each, then each without its forms; what cannot be measured is told, and the rest goes on."""

    def alone(label, function, wanted, against, options):
        if against == "torch" or wanted[0].gradients:
            raise InputError(f"{label}: its process was ended")
        return [(1, {"ms": 2.0})]

    here = sys.modules[compare.__module__]  # the package has a function of that name
    monkeypatch.setattr(here, "_forms", lambda against: None)
    monkeypatch.setattr(here, "alone", alone)
    compare(cases=("tiny",), only=("sample",), against="torch")
    told = capsys.readouterr().out
    assert told.count("tiny sample float32 forward: its process was ended") == 1
    assert told.count("tiny sample float32 gradients: its process was ended") == 2
    assert "| tiny | sample   | float32 | forward | 2.00 |" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cases", "fqn"], "cases: expected some of fpn"),
        (["--only", "carafee"], "only: expected some of nearest"),
        (["--types", "int8"], "types: expected some of float32, bfloat16, got int8"),
        (["--repeats", "0"], "repeats: expected a number above 0"),
        (["--cores", "999"], "cores: expected 1 to "),
    ],
)
def test_bad_options(options, message, capsys):
    assert main(["bench", "operators", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_torch_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "experiments.bench.torch_forms", raising=False)
    assert main(["bench", "operators", "--against", "torch"]) == 2
    assert capsys.readouterr().err == "error: bench: the comparison needs PyTorch, which is not installed\n"
