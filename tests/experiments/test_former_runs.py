"""Run directories of version 0f5c294, stopped after 2 of 4 steps, go on with the code of today and are evaluated.

`former_runs/TASK.zip` is the run, `TASK.npz` holds the weights with which that version ended on the machine that
`machine.json` describes, under the settings of `tests/conftest.py`.
"""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import experiments.denoising as denoising
import experiments.joint_upsampling as joint_upsampling
import experiments.super_resolution as super_resolution
from experiments import reconstruction
from experiments.__main__ import main
from experiments.engine.checkpoint import _to_arrays, load_model, split_model
from experiments.engine.config import load_config, versions
from experiments.joint_upsampling.classical import FILTERS
from experiments.reconstruction.training import TrainConfig as ReconstructionConfig

FORMER = Path(__file__).parent / "former_runs"
# What rounds otherwise since: means of whole blocks are summed rows first; attention is products of tiles; and XLA
# makes code in one piece, not one per thread (`tests/__init__.py`), under whose former setting this one agrees in all
# bits.
REARRANGED = ("joint_upsampling", "reconstruction", "super_resolution")


def unpacked(task, run_dir):
    with zipfile.ZipFile(FORMER / f"{task}.zip") as archive:
        archive.extractall(run_dir)
    return run_dir


def resumed(cls, run_dir, train, directory=None):
    """The configuration of a run whose training went on to its end; `directory` is that of several runs."""
    config = load_config(cls, run_dir)
    train(replace(config, run=replace(config.run, run_dir=directory or run_dir)))
    return config


def weights(run_dir, network, **options):
    _, params, rest = split_model(load_model(run_dir, network, **options))
    return {name: np.asarray(array) for name, array in _to_arrays({"params": params, "rest": rest}).items()}


def this_machine():
    """What decides the last bit."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")]
    return {"cpu": names[:1]} | {package: version for package, version in versions().items() if package != "jaxup"}


def assert_as_before(task, found):
    """Bit for bit where machine, packages and arithmetic are the same, else to the rounding of other compilers."""
    exact = task not in REARRANGED and json.loads((FORMER / "machine.json").read_text()) == this_machine()
    with np.load(FORMER / f"{task}.npz") as expected:
        assert expected.keys() == found.keys()
        for name, array in found.items():
            assert array.dtype == expected[name].dtype
            tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
            np.testing.assert_allclose(array, expected[name], **tolerance, err_msg=name)


@pytest.mark.slow
def test_joint_upsampling(tmp_path, monkeypatch, capsys):
    run_dir = unpacked("joint_upsampling", tmp_path / "run")
    config = resumed(joint_upsampling.training.TrainConfig, run_dir, joint_upsampling.training.train)
    assert_as_before("joint_upsampling", weights(run_dir, config.network.build(0)))
    monkeypatch.setattr(joint_upsampling.evaluation, "METHODS", FILTERS)
    options = ["--source", "scenes", "--scenes", "1", "--scene-size", "16", "--scales", "4", "--run-dir", str(run_dir)]
    assert main(["joint-upsampling", "evaluate", *options]) == 0
    assert "| SA_M1_F8 " in capsys.readouterr().out


@pytest.mark.thorough
def test_super_resolution(tmp_path, capsys):
    run_dir = unpacked("super_resolution", tmp_path / "run")
    config = resumed(super_resolution.training.TrainConfig, run_dir, super_resolution.training.train)
    best = weights(run_dir, config.network.build(0), best=True)
    last = weights(run_dir, config.network.build(0))
    assert_as_before("super_resolution", last | {f"best.{name}": array for name, array in best.items()})
    assert main(["super-resolution", "evaluate", "--smoke", "--run-dir", str(run_dir)]) == 0
    assert "| attention " in capsys.readouterr().out


@pytest.mark.thorough
def test_reconstruction(tmp_path, capsys):
    run_dir = unpacked("reconstruction", tmp_path / "runs" / "holistic")
    config = resumed(ReconstructionConfig, run_dir, reconstruction.evaluation.train, run_dir.parent)
    assert_as_before("reconstruction", weights(run_dir, config.build()))
    assert main(["reconstruction", "evaluate", "--run-dir", str(run_dir)]) == 0
    assert capsys.readouterr().out.count("| IP-IU, HIN |") == 2


@pytest.mark.slow
def test_denoising(tmp_path, monkeypatch, capsys):
    run_dir = unpacked("denoising", tmp_path / "run")
    config = resumed(denoising.training.TrainConfig, run_dir, denoising.training.train)
    assert_as_before("denoising", weights(run_dir, config.network.build(0)))
    monkeypatch.setattr(denoising.evaluation, "_total_variation", lambda sigma: lambda x: x)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "images" / "a.png")
    options = ["--tests", str(tmp_path / "images"), "--run-dir", str(run_dir)]
    assert main(["denoising", "evaluate", *options]) == 0
    assert "| dncnn, 2 features " in capsys.readouterr().out
