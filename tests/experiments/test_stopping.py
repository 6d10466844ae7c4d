"""Trainings that are stopped, doubled, or have data that fail or hang."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.__main__ import main
from experiments.data.batching import batched
from experiments.engine import progress, stopping, train
from experiments.engine.config import RunConfig, open_run
from experiments.engine.progress import TrainingError, read_metrics
from experiments.engine.samples import Named
from experiments.engine.stopping import locked
from experiments.engine.train import Validation, fit
from jaxup._signals import Stopped
from jaxup.files import InputError
from tests.experiments.test_config import Config
from tests.experiments.test_interrupted import start

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STEPS = 8


class Sample:
    def __init__(self, index):
        self.name, self.x = f"photo-{index}.png", np.full(3, index / 100, np.float32)


class Source:
    """Samples of 16 files; `at` is called with the number of each."""

    def __init__(self, at=lambda index: None):
        self.at = at

    def __len__(self):
        return 16

    def __getitem__(self, index):
        self.at(int(index))
        return Sample(int(index))


def batches(at=lambda index: None, change=lambda x: x, threads=2):
    examples = grain.MapDataset.source(Named(Source(at))).repeat().map(lambda sample: {"x": change(sample.x)})
    return batched(examples, 4, threads=threads)


def error_of(model, batch):
    return ((model(batch["x"]) - 1) ** 2).mean(), {}


def trained(run_dir, data=None, **options):
    """The weights of a run of `STEPS` steps."""
    run = RunConfig(run_dir, steps=STEPS, log_every=3, save_every=5)
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    fit(model, optax.sgd(0.1), error_of, batches() if data is None else data, run, **options)
    return np.asarray(model.kernel[...]).tobytes()


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """What a script starts in its background ignores SIGINT, and so would all that these tests start.

    A SIGTERM that comes after its training fails the test: it would end all of them, and say nothing.
    """
    late = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    default = signal.signal(signal.SIGTERM, lambda *_: late.append("SIGTERM"))
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGTERM, default)
    assert not late


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"))


def once(number, condition=lambda *_: True):
    """Sends a signal the first time that a condition holds, in whichever of several threads."""
    sent = threading.Lock()

    def send(*args):
        if condition(*args) and sent.acquire(blocking=False):
            os.kill(os.getpid(), number)

    return send


def saving(send):
    class Sending(train.Checkpoints):
        def save(self, step, *args):
            send(step)
            super().save(step, *args)

    return Sending


def compiling(send):
    def memory_of(compiled):
        send()
        return 0.0

    return memory_of


MOMENTS = {
    "after a line": lambda send, _: {"on_log": lambda step, metrics: send()},
    "first of the data": lambda send, _: {"data": batches(lambda index: send())},
    "data ahead": lambda send, _: {"data": batches(lambda index: send() if index == 9 else None)},
    "data, no threads": lambda send, _: {"data": batches(lambda index: send() if index == 9 else None, threads=0)},
    "saving": lambda send, patch: patch.setattr(train, "Checkpoints", saving(send)) or {},
    "compiling": lambda send, patch: patch.setattr(train, "memory_of", compiling(send)) or {},
    "twice in a row": lambda send, _: {"on_log": lambda step, metrics: (send(), os.kill(os.getpid(), signal.SIGTERM))},
}


@pytest.mark.parametrize("moment, number", list(zip(MOMENTS, itertools.cycle(SIGNALS), strict=False)), ids=str)
@pytest.mark.first(4)
def test_a_signal_saves_and_the_run_goes_on(tmp_path, whole, monkeypatch, capsys, moment, number):
    """In the same bits, whatever it was doing; the exit status says which signal it was."""
    handlers, threads = [signal.getsignal(each) for each in SIGNALS], threading.enumerate()
    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        trained(tmp_path, **MOMENTS[moment](once(number), patch))
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"stopped by {number.name} ")
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert ("before step 1" in line) == (not steps) and all(f"step {max(steps)} of" in line for _ in steps[:1])
    assert trained(tmp_path) == whole
    lines = [line["step"] for line in read_metrics(tmp_path)]
    assert lines == sorted(set(lines)) and set(lines) >= {3, 5, 6, 8}
    assert not threads_of_data(threads)


def threads_of_data(before):
    """Those that read ahead and were not there before, a moment later."""
    for _ in range(50):
        left = [each.name for each in threading.enumerate() if "grain" in each.name and each not in before]
        if not left:
            return []
        time.sleep(0.1)
    return left


@pytest.mark.thorough
def test_a_signal_during_an_evaluation(tmp_path):
    """It ends, so that the best weights are those of a run that was not stopped."""

    def score(model):
        send()
        return {"loss": float(np.asarray(model.kernel[...]).sum())}

    send = lambda: None  # noqa: E731
    expected = trained(tmp_path / "whole", validation=Validation(2, score))
    send = once(signal.SIGTERM)
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", validation=Validation(2, score))
    assert [line["step"] for line in read_metrics(tmp_path / "stopped")] == [2]
    assert trained(tmp_path / "stopped", validation=Validation(2, score)) == expected


def test_a_second_signal_ends_at_once(tmp_path, whole, monkeypatch):
    """After a second, with the checkpoints that there were."""
    monkeypatch.setattr(stopping, "_ONE", 0.0)

    def on_log(step, metrics):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("it went on")

    with pytest.raises(Stopped):
        trained(tmp_path, on_log=on_log)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert trained(tmp_path) == whole


def test_signals_outside_of_the_main_thread_and_ignored_ones(tmp_path, whole):
    """Are left to whom they belong."""
    results = []
    thread = threading.Thread(target=lambda: results.append(trained(tmp_path / "thread")))
    thread.start()
    thread.join()
    assert results == [whole]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert trained(tmp_path / "ignored", on_log=lambda *_: os.kill(os.getpid(), signal.SIGINT)) == whole
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_says_it_by_its_status(monkeypatch):
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr("experiments.__main__._run", lambda arguments, n=number: os.kill(os.getpid(), n))
        assert main(["bench"]) == status
        assert signal.getsignal(signal.SIGTERM) is before


def test_one_run_directory_has_one_process(tmp_path, whole):
    """It is free again after errors, and a lock that a killed process left holds nobody up."""
    config = Config(RunConfig(tmp_path / "run"))
    open_run(tmp_path / "run", config)
    with locked(tmp_path / "run"):
        before = sorted(tmp_path.rglob("*"))
        for action in (lambda: open_run(tmp_path / "run", config), lambda: trained(tmp_path / "run")):
            with pytest.raises(InputError, match=r"run: another process is training there$"):
                action()
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(RuntimeError, match="of the caller"):
        trained(tmp_path / "run", on_log=fail)
    assert (tmp_path / "run" / ".lock").exists()
    open_run(tmp_path / "run", config)
    assert trained(tmp_path / "run") == whole


def fail(*_):
    raise RuntimeError("of the caller")


def test_a_directory_that_was_locked_and_nothing_more_is_new(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config.json.0123456789abcdef").write_text("{")
    open_run(tmp_path, Config(RunConfig(tmp_path)))


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyError("x"), MemoryError(), ValueError("a\nb")])
@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.first(4)
def test_a_source_that_raises_names_the_sample(tmp_path, error, threads):
    def at(index):
        if index == 13:
            raise error

    with pytest.raises(InputError, match=r"^sample 13 of Source: cannot be read: \w+") as caught:
        trained(tmp_path, batches(at, threads=threads))
    assert "\n" not in str(caught.value)


def test_an_example_that_cannot_be_made_names_its_sample(tmp_path):
    def change(x):
        if x[0] == np.float32(0.13):
            raise IndexError("out of bounds")
        return x

    with pytest.raises(InputError, match=r"^example 13 \(photo-13.png\): IndexError: out of bounds"):
        trained(tmp_path, batches(change=change))


def test_a_loss_that_is_not_finite_names_the_batch(tmp_path):
    """Noticed at the line of step 3, and made by the batch of step 2."""
    data = batches(change=lambda x: np.where(x == np.float32(0.06), np.float32(np.nan), x))
    expected = "^step 2: loss is nan, in the batch of photo-4.png, photo-5.png, photo-6.png, photo-7.png$"
    with pytest.raises(TrainingError, match=expected):
        trained(tmp_path, data)
    numbers = batched(grain.MapDataset.range(100).map(lambda i: {"x": np.full(3, i / 0, np.float32)}), 4, threads=0)
    with np.errstate(all="ignore"), pytest.raises((TrainingError, InputError), match=r"example [03]"):
        trained(tmp_path / "numbers", numbers)


def hangs_and_is_terminated(run_dir, hang):
    """An `at` of `Source` that hangs in sample 12; one SIGTERM after step 3, however often that is read ahead."""
    terminate = once(signal.SIGTERM)

    def later():
        while not read_metrics(run_dir):
            time.sleep(0.05)
        time.sleep(1)
        terminate()

    def at(index):
        if index == 12:
            threading.Thread(target=later).start()
            hang()

    return at


def test_a_source_that_hangs_is_reported_and_can_be_stopped(tmp_path, whole, monkeypatch, capsys):
    """Once, with what is being read; a signal saves what was trained until then."""
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    goes_on = threading.Event()
    with pytest.raises(Stopped):
        trained(tmp_path, batches(hangs_and_is_terminated(tmp_path, lambda: goes_on.wait(60))))
    goes_on.set()
    said = capsys.readouterr().err
    assert said.count("warning: no data for 0.2 seconds after step 3, reading sample 12 of Source") == 1
    assert "stopped by SIGTERM after step 3 of 8, saved" in said
    assert trained(tmp_path) == whole


@pytest.mark.slow  # one signal in the process itself by default
@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_processes_that_are_stopped_again_and_again(tmp_path, number):
    """Stopped during imports, compilation or steps, once or twice; the end is that of a run that was not."""
    weights = []
    for name, delays in (("whole", ()), ("stopped", (0.3, 0.05, 0.9))):
        for delay in delays:
            process = start(tmp_path / name, 40)
            process.stderr.readline()
            time.sleep(delay)
            for _ in range(2):
                process.send_signal(number)
            _, said = process.communicate(timeout=120)
            assert process.returncode in (0, 128 + number), said
            assert "Traceback" not in said and said.count("stopped by") == (process.returncode != 0), said
        process = start(tmp_path / name, 40)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0 and "warning" not in said, said
        with np.load(tmp_path / name / "weights.npz") as stored:
            weights.append([array.tobytes() for array in stored.values()])
    assert weights[0] == weights[1]


HANGING = """
import sys, time
from jaxup._signals import Stopped, leave
from tests.experiments import test_stopping
run_dir = test_stopping.Path(sys.argv[1])
try:
    at = test_stopping.hangs_and_is_terminated(run_dir, lambda: time.sleep(600))
    test_stopping.trained(run_dir, test_stopping.batches(at))
except Stopped as stopped:
    leave(stopped.status)
"""
FULL = """
import resource, signal, sys
from tests.experiments import test_stopping
def full(step):
    if step == 8:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
test_stopping.train.Checkpoints = test_stopping.saving(full)
try:
    test_stopping.trained(test_stopping.Path(sys.argv[1]))
except test_stopping.InputError as error:
    sys.exit(f"error: {error}")
"""


def child(program, run_dir):
    command = [sys.executable, "-c", program, str(run_dir)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)


@pytest.mark.thorough
def test_threads_that_hang_do_not_keep_the_process(tmp_path, whole):
    done = child(HANGING, tmp_path)
    assert done.returncode == 143 and "after step 3 of 8, saved" in done.stderr, done.stderr
    assert trained(tmp_path) == whole


@pytest.mark.thorough
def test_a_full_disk_keeps_the_older_checkpoint(tmp_path, whole):
    done = child(FULL, tmp_path)
    *_, line = done.stderr.splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert line.startswith(f"error: {tmp_path / 'checkpoints' / '8'}: cannot be written ("), done.stderr
    assert "5" in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert trained(tmp_path) == whole
