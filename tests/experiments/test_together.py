"""Two processes over loopback: they agree, share evaluations, stop together, and none is left waiting for the other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.__main__ import main
from experiments.engine import failing, processes
from experiments.engine.config import RunConfig
from experiments.engine.processes import exchanged, first_alone, together
from jaxup.files import InputError
from tests.experiments.test_checkpoints import halve
from tests.experiments.test_processes import ROOT, by_options, free_port
from tests.experiments.tiny_run import train


def of_one_device(program, *arguments):
    """Starts a program as a process of one device."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command, env = [sys.executable, *program, *arguments], os.environ | {"XLA_FLAGS": " ".join(flags)}
    return subprocess.Popen(command, cwd=ROOT, env=env, **streams)


def two(program, *arguments):
    """Starts a program as two processes of one device; arguments are of both, or one for each."""
    port, running = free_port(), []
    for index in range(2):
        own = [str(each[index] if isinstance(each, tuple) else each) for each in arguments]
        running.append(of_one_device(program, *own, *by_options(index, port)[0]))
    return running


def ended(running, seconds=200):
    """Exit status, output and errors of each; none is left behind."""
    try:
        said = [process.communicate(timeout=seconds) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *each) for process, each in zip(running, said, strict=True)]


def of_two(monkeypatch, index, other):
    """Simulates a process of two, of which the other one has said something."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(processes, "_all_processes", lambda own: [own, other][:: 1 if index == 0 else -1])


def fail(error):
    raise error


def test_what_fails_in_one_process_fails_in_all(monkeypatch):
    done = []
    first_alone(lambda: done.append(0))
    assert done == [0] and together(lambda: 3) == 3 and exchanged(lambda: 3) == [3]
    for index in range(2):
        of_two(monkeypatch, index, {"made": 4})
        assert together(lambda: 3) == 3
        assert exchanged(lambda: 3) == [[3, 4], [4, 3]][index]
        with pytest.raises(KeyError, match="own"):  # as it was raised
            together(lambda: fail(KeyError("own")))
        of_two(monkeypatch, index, {"failed": "of the other"})
        for action in (together, exchanged, first_alone):
            with pytest.raises(InputError, match=r"^of the other$"):
                action(lambda: 3)
    of_two(monkeypatch, 1, {"made": None})
    first_alone(lambda: fail(AssertionError("the second process does nothing")))


@pytest.mark.thorough
def test_processes_agree_on_the_newest_checkpoint_and_stop_together(tmp_path):
    """The second one finds the newest damaged; then SIGTERM comes to it alone, and both save after the same step."""
    dirs = tmp_path / "first", tmp_path / "second"
    train(RunConfig(dirs[0], steps=6, log_every=2, save_every=3))
    shutil.copytree(dirs[0], dirs[1])
    halve("model")(dirs[1] / "checkpoints" / "6")
    running = two(["-m", "tests.experiments.tiny_run"], dirs, 100_000)
    lines = []
    while not any(line.startswith("step 12/") for line in lines):
        lines.append(running[0].stderr.readline())
        assert lines[-1], lines
    assert "continuing after step 3 of 100000\n" in lines
    (warning,) = (line for line in lines if line.startswith("warning"))
    assert "6: cannot be read as a checkpoint" in warning and "taking the checkpoint of step 3" in warning
    running[1].send_signal(signal.SIGTERM)
    first, second = ended(running)
    assert (first[0], second[0]) == (143, 143), (first, second)
    names = {path.name for path in (dirs[0] / "checkpoints").iterdir()}
    (step,) = (int(line.split()[5]) for line in first[2].splitlines() if line.startswith("stopped by SIGTERM after"))
    assert "unreadable-6" in names and max(int(name) for name in names if name.isdecimal()) == step
    assert "stopped" not in second[2] and {path.name for path in (dirs[1] / "checkpoints").iterdir()} == {"3", "6"}


FAILING = """
import sys
import jax
from pathlib import Path
from experiments import __main__ as command
from experiments.engine import failing
from experiments.engine.config import RunConfig
from experiments.engine.samples import Named
from tests.experiments import tiny_run

class Numbers(tiny_run.Numbers):
    def __getitem__(self, index):
        if jax.process_index() == 1 and index == 17:
            raise OSError(5, "Input/output error")
        return super().__getitem__(index)

def run(arguments):
    processes, (directory,) = command._processes(arguments)
    tiny_run.join(*processes)
    failing.watch()
    tiny_run.train(RunConfig(Path(directory), steps=100, log_every=2, save_every=3))

tiny_run.Numbers = lambda: Named(Numbers())
command._run = run
command.leave(command.main())
"""


@pytest.mark.thorough
def test_a_process_that_fails_does_not_leave_the_others_waiting(tmp_path):
    first, second = ended(two(["-c", FAILING], tmp_path / "run"))
    said = "sample 17 of Numbers: cannot be read: OSError: [Errno 5] Input/output error\n"
    assert second[::2] == (2, f"error: {said}"), second
    assert first[0] == 2 and first[2].endswith(f"error: process 1 ended: {said}"), first
    assert "Traceback" not in first[2]


@pytest.mark.parametrize("store", [None, SimpleNamespace(), SimpleNamespace(global_state=SimpleNamespace(client=3))])
def test_versions_of_jax_whose_store_is_not_known(monkeypatch, capsys, store):
    """Nobody is told of errors, which is said, and all else goes on."""
    failing.watch()
    assert not capsys.readouterr().err
    of_two(monkeypatch, 0, None)
    monkeypatch.setitem(sys.modules, "jax._src.distributed", store)
    failing.watch()
    failing.tell("said", 2)
    assert re.fullmatch("warning: the store of this version of JAX, .* is not known: .*\n", capsys.readouterr().err)
    of_two(monkeypatch, 1, None)
    failing.watch()
    assert not capsys.readouterr().err, "the first one alone says it"


COMMANDS = """
import json, sys
from experiments.__main__ import _processes, leave, main
from experiments.engine.processes import join
processes, (commands,) = _processes(sys.argv[1:])
if processes is not None:
    join(*processes)
leave(max(main(command) for command in json.loads(commands)))
"""


def evaluations(folder, out):
    """Commands by task, with an odd number of images each, so that the processes have different numbers of them."""
    photos = ["--test-dirs", folder / "photos", "--scales", "2", "--crop", "48"]
    found = {
        "joint-upsampling": ["--source", "scenes", "--scenes", "3", "--scene-size", "32", "--no-solvers"],
        "super-resolution": photos,
        "reconstruction": ["--run-dir", folder / "run", "--images", "211"],
    }
    return [[task, "evaluate", *map(str, words), "--out", str(out / task)] for task, words in found.items()]


def untrained(folder, out):
    """Of the other tasks, whose networks take long to compile."""
    found = {
        "denoising": ["--tests", folder / "photos", "--crop", "32"],
        "segmentation": [],
        "matting": ["--images", "3", "--size", "32"],
        "monocular-depth": ["--images", "3"],
    }
    return [[task, "evaluate", *map(str, words), "--out", str(out / task)] for task, words in found.items()]


@pytest.mark.parametrize(
    "commands", [pytest.param(evaluations, marks=pytest.mark.thorough), pytest.param(untrained, marks=pytest.mark.slow)]
)
def test_two_processes_evaluate_as_one(tmp_path, commands):
    """The same files as by one with one device, to the last digit: with several, networks round otherwise.

    The first one writes them; networks are read by both from one run directory.
    """
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    if commands is evaluations:
        words = ["--smoke", "--methods", "conv-carafe", "--run-dir", str(tmp_path / "run")]
        assert main(["reconstruction", "train", *words]) == 0
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    (whole,) = ended([of_one_device(["-c", COMMANDS], json.dumps(commands(tmp_path, alone)))], 400)
    assert whole[0] == 0, whole
    first, second = ended(two(["-c", COMMANDS], json.dumps(commands(tmp_path, shared))), 400)
    assert first[0] == second[0] == 0, (first, second)
    assert "|" not in second[1], "the first one alone prints tables"
    expected = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert sorted(path.relative_to(shared) for path in shared.rglob("*") if path.is_file()) == expected
    for name in expected:
        if name.suffix in (".json", ".md"):
            assert (shared / name).read_bytes() == (alone / name).read_bytes(), name


OPENING = """
import sys, time
from pathlib import Path
from experiments.engine.config import RunConfig, open_run
from jaxup.files import InputError
from tests.experiments.test_config import Config
directory, seed = Path(sys.argv[1]), int(sys.argv[2])
print(flush=True)
sys.stdin.readline()
try:
    open_run(directory, Config(RunConfig(directory, seed=seed)))
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.thorough
def test_one_of_two_that_open_a_new_directory_at_once_has_it(tmp_path):
    command = [sys.executable, "-c", OPENING, str(tmp_path / "run")]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    running = [subprocess.Popen([*command, str(seed)], cwd=ROOT, text=True, **streams) for seed in range(2)]
    for process in running:
        process.stdout.readline()
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=100)[1] for process in running]
    status = [process.returncode for process in running]
    assert sorted(status) == [0, 1], errors
    winner = status.index(0)
    assert errors[winner] == "" and errors[1 - winner].startswith(f"error: {tmp_path / 'run'}: ")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["seed"] == winner
