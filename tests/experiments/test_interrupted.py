"""Training that is killed and goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.engine.progress import read_metrics
from tests.experiments.test_train import assert_same, without_times

ROOT = Path(__file__).parents[2]


def start(run_dir, steps):
    command = [sys.executable, "-m", "tests.experiments.tiny_run", str(run_dir), str(steps)]
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
