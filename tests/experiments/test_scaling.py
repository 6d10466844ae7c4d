"""Data-parallel training on paper."""

import pytest
from flax import nnx

from experiments.__main__ import main
from experiments.bench.scaling import _Case, dominated, row


@pytest.mark.parametrize(("parameters", "operations", "rate"), [(1_000_000, 1e12, 10.0), (30_000_000, 2e13, 50.0)])
def test_moving_takes_longer_from_there_on(parameters, operations, rate):
    link, first = 8.0, dominated(parameters, operations, 8.0, rate)

    def moving_takes_longer(devices):
        moving = 8 * parameters * (devices - 1) / devices / (link * 1e9)
        return moving >= operations / devices / (rate * 1e12)

    assert moving_takes_longer(first) and not moving_takes_longer(first - 1)


def test_a_row_counts_what_a_step_does():
    case = _Case(lambda: nnx.Linear(10, 20, use_bias=False, rngs=nnx.Rngs(0)), [(10,)], 4)
    found = row("linear", case, 25.0, 50.0)
    assert found["parameters (M)"] == pytest.approx(200e-6) and found["MB moved per device"] == pytest.approx(1.6e-3)
    assert found["TFLOP per step"] == pytest.approx(3 * 2 * 200 * 4 / 1e12)
    assert found["all-reduce dominates from"] == "2"


def test_one_network_from_the_command_line(capsys):
    assert main(["bench", "scaling", "--only", "denoising"]) == 0
    said = capsys.readouterr().out
    assert "25 GB/s per device" in said and "| denoising, dncnn " in said and "matting" not in said
    assert main(["bench", "scaling", "--link", "0"]) == 2
    assert "link and rate: expected numbers above 0" in capsys.readouterr().err
