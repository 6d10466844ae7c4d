"""Training that is killed and goes on, and training by several processes."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.engine.config import RunConfig
from experiments.engine.progress import read_metrics
from tests.experiments.test_train import assert_same, without_times
from tests.experiments.tiny_run import train

ROOT = Path(__file__).parents[2]


def start(run_dir, steps, *process):
    command = [sys.executable, "-m", "tests.experiments.tiny_run", str(run_dir), str(steps), *process]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def kill_at_random(run_dir, steps, delay):
    """Starts a run and kills it `delay` seconds after its first line of metrics; whether it still ran then."""
    process = start(run_dir, steps)
    process.stderr.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.thorough
def test_killed_and_started_again_ends_in_the_same_bits(tmp_path):
    """SIGKILL at random moments of a run that spends most of its time writing checkpoints."""
    steps, chance = 30, random.Random(os.urandom(4))
    whole = start(tmp_path / "whole", steps)
    delays = [chance.uniform(0, 0.5) for _ in range(2)]
    kills = sum([kill_at_random(tmp_path / "killed", steps, delay) for delay in delays])
    assert kills, f"the run was over before it could be killed after {delays} seconds"
    for process in (whole, start(tmp_path / "killed", steps)):
        _, said = process.communicate()
        assert process.returncode == 0, (delays, said)
        assert "WARNING" not in said and "Traceback" not in said, said
    expected, got = np.load(tmp_path / "whole/weights.npz"), np.load(tmp_path / "killed/weights.npz")
    assert expected.files == got.files
    assert_same(expected.values(), got.values())
    expected, got = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "killed")
    assert without_times(expected) == without_times(got), delays


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Each holds half of the devices and half of every batch; started again, they go on together."""
    for steps in (6, 9):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        processes = [start(tmp_path, steps, address, str(index)) for index in range(2)]
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    together = {line["step"]: line["loss"] for line in read_metrics(tmp_path)}
    train(RunConfig(tmp_path / "alone", steps=9, log_every=2, save_every=3))
    alone = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "alone")}
    assert together.keys() == alone.keys()
    np.testing.assert_allclose(list(together.values()), list(alone.values()), rtol=1e-4)
