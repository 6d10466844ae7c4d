import ast
import dataclasses
import gc
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import experiments.__main__ as cli
from experiments.engine.config import RunConfig, open_run
from experiments.engine.progress import TrainingError
from jaxup.files import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    run: RunConfig
    crop_size: int = 64
    """Side of the window."""
    scales: tuple[int, ...] = (4, 8)


called = []


def train(config: Config) -> None:
    """Train a network.

    At length.
    """
    open_run(config.run.run_dir, config)
    called.append(config)


def small() -> Config:
    """Fits on a laptop; 100 % ours: 0.5."""
    return Config(RunConfig(Path("runs/small"), steps=10))


def large() -> Config:
    """The schedule of the paper."""
    return Config(RunConfig(Path("runs/large"), steps=1000), crop_size=256)


def smoke() -> Config:
    """Seconds."""
    return Config(RunConfig(Path("runs/smoke"), steps=1), crop_size=4)


def evaluate(run_dir: Path, *, fail: str = "") -> None:
    """Evaluate a checkpoint.

    Args:
        run_dir: where it is.
        fail: how to fail.
    """
    called.append(run_dir)
    if fail == "os":
        (run_dir / "nothing").read_text()
    errors = {"input": InputError, "value": ValueError, "training": TrainingError, "bug": RuntimeError}
    if fail == "interrupt":
        raise KeyboardInterrupt
    if fail:
        raise errors[fail]("first line\n  second line")


@pytest.fixture(autouse=True)
def fake_task(monkeypatch):
    module = types.ModuleType("experiments.fake_task", "A fake task.")
    module.COMMANDS = {"train": train, "evaluate": evaluate}
    module.PRESETS = {"train": {"small": small, "large": large, "smoke": smoke}}
    monkeypatch.setitem(sys.modules, "experiments.fake_task", module)
    monkeypatch.setattr(cli, "TASKS", {**cli.TASKS, "fake-task": "Only for tests."})
    monkeypatch.delenv("JAXUP_TRACEBACK", raising=False)
    monkeypatch.delenv("JAXUP_DISTRIBUTED", raising=False)
    called.clear()


def test_options_override_the_chosen_preset(tmp_path):
    arguments = ["fake-task", "train", "--run_dir", str(tmp_path / "run"), "--crop-size", "32", "--scales", "2"]
    assert cli.main(arguments) == 0
    run = RunConfig(tmp_path / "run", steps=10)
    assert called == [Config(run, crop_size=32, scales=(2,))]
    assert cli.main(["fake_task", "train", "--preset", "large", "--run-dir", str(tmp_path / "other")]) == 0
    assert called[1] == dataclasses.replace(large(), run=RunConfig(tmp_path / "other", steps=1000))


def test_options_are_read_while_garbage_is_collected(tmp_path):
    """Python 3.11 cannot parse, as tyro does, while what a collection runs parses too."""
    thresholds = gc.get_threshold()
    callback = lambda *_: ast.parse("x = 1")  # noqa: E731
    gc.callbacks.append(callback)
    gc.set_threshold(50)
    try:
        assert cli.main(["fake-task", "train", "--run-dir", str(tmp_path)]) == 0
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("words", ["--smoke", "--preset smoke", "--preset large --smoke", "--smoke --preset large"])
def test_smoke_is_a_preset(words, tmp_path):
    assert cli.main(["fake-task", "train", *words.split(), "--run-dir", str(tmp_path), "--crop-size", "8"]) == 0
    assert called == [Config(RunConfig(tmp_path, steps=1), crop_size=8)]


@pytest.mark.parametrize("task", [task for task in cli.TASKS if task != "bench"])
def test_every_command_has_a_smoke_size(task):
    module = importlib.import_module(f"experiments.{task.replace('-', '_')}")
    assert module.COMMANDS.keys() == module.PRESETS.keys()
    for command, presets in module.PRESETS.items():
        # Drawing what is stored takes a second.
        assert command == "plots" or (list(presets)[-1] == "smoke" and len(presets) > 1)
        for preset in presets.values():
            assert "python -m experiments" in preset.__doc__ and dataclasses.is_dataclass(preset())


def test_a_function_of_options_needs_no_preset():
    assert cli.main(["fake-task", "evaluate", "--run-dir", "a/b"]) == 0
    assert called == [Path("a/b")]


@pytest.mark.parametrize(
    "fail, status, line",
    [
        ("input", 2, "error: first line second line"),
        ("value", 2, "error: first line second line (JAXUP_TRACEBACK=1 shows where)"),
        ("os", 2, "error: a/b/nothing: No such file or directory"),
        ("training", 1, "error: first line second line"),
        ("interrupt", 130, None),
    ],
)
def test_what_is_not_our_mistake_ends_in_one_line(capsys, fail, status, line):
    assert cli.main(["fake-task", "evaluate", "--run-dir", "a/b", "--fail", fail]) == status
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ([line] if line else [])
    assert captured.out == ""


def test_our_mistakes_and_the_curious_get_the_traceback(monkeypatch):
    with pytest.raises(RuntimeError):
        cli.main(["fake-task", "evaluate", "--run-dir", "a", "--fail", "bug"])
    monkeypatch.setenv("JAXUP_TRACEBACK", "1")
    with pytest.raises(InputError):
        cli.main(["fake-task", "evaluate", "--run-dir", "a", "--fail", "input"])


def test_a_run_directory_of_another_configuration_is_left_alone(tmp_path, capsys):
    assert cli.main(["fake-task", "train", "--run-dir", str(tmp_path)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(["fake-task", "train", "--run-dir", str(tmp_path), "--crop-size", "8"]) == 2
    error = f"error: {tmp_path}: holds a run of another configuration, crop_size: it has 64, asked for 8"
    assert capsys.readouterr().err.splitlines() == [error]
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["TASK"]),
        (["fake-tusk"], ["fake-tusk", "joint-upsampling"]),
        (["fake-task"], ["COMMAND"]),
        (["fake-task", "trian"], ["trian", "train"]),
        (["fake-task", "train", "--preset", "huge"], ["huge", "small"]),
        (["fake-task", "train", "--stepz", "3"], ["--stepz"]),
        (["fake-task", "train", "--steps", "many"], ["many"]),
        (["fake-task", "train", "--steps", "0"], ["steps: expected at least 1, got 0"]),
    ],
)
def test_wrong_usage_is_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not called


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--help"], ["joint-upsampling", "Only for tests.", "--distributed"]),
        (["fake-task", "--help"], ["A fake task.", "Train a network.", "Evaluate a checkpoint."]),
        (["fake-task", "train", "--help"], ["At length.", "100 % ours: 0.5", "--run-dir", "Side of the window.", "64"]),
        (["fake-task", "train", "--help", "--preset", "large"], ["those of large", "256"]),
        (["fake-task", "evaluate", "-h"], ["how to fail"]),
    ],
)
def test_help_at_every_level(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said


def test_help_does_not_import_jax():
    code = "import sys, experiments.__main__ as m\ntry: m.main(['--help'])\nfinally: assert 'jax' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], cwd=Path(cli.__file__).parents[1], capture_output=True)
    assert finished.returncode == 0, finished.stderr


def test_several_processes_only_when_asked_for(monkeypatch):
    import jax

    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda: joined.append(True))
    cli.main(["fake-task", "evaluate", "--run-dir", "a"])
    assert not joined
    cli.main(["fake-task", "evaluate", "--distributed", "--run-dir", "a"])
    monkeypatch.setenv("JAXUP_DISTRIBUTED", "1")
    cli.main(["fake-task", "evaluate", "--run-dir", "a"])
    assert joined == [True, True]
    assert called == [Path("a")] * 3


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        (["--distributed"], {}, {}),
        (
            ["--coordinator", "here:1", "--processes", "4", "--process", "3"],
            {},
            {"coordinator_address": "here:1", "num_processes": 4, "process_id": 3},
        ),
        (["--distributed"], {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, {"num_processes": 2, "process_id": 0}),
        (
            ["--coordinator=here:1"],  # Open MPI 5, of which JAX finds nothing
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
            {"coordinator_address": "here:1", "num_processes": 2, "process_id": 1},
        ),
        (["--process", "1"], {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, {"num_processes": 2, "process_id": 1}),
    ],
)
def test_who_the_processes_are(monkeypatch, options, variables, expected):
    import jax

    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: joined.append(given))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["fake-task", "evaluate", *options, "--run-dir", "a"]) == 0
    assert joined == [expected] and called == [Path("a")]


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["--distributed"], {}, "distributed: expected a coordinator"),
        (["--coordinator", "here"], {}, "coordinator: expected HOST:PORT, got here"),
        (
            ["--coordinator", "here:1", "--processes", "2", "--process", "2"],
            {},
            "process: expected one from 0 to 1",
        ),
        (["--distributed"], {"JAX_PROCESS_ID": "first"}, "JAX_PROCESS_ID: expected a number, got 'first'"),
    ],
)
def test_processes_that_cannot_find_each_other(monkeypatch, capsys, options, variables, message):
    import jax

    def undefined(**given):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", undefined)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["fake-task", "evaluate", *options, "--run-dir", "a"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not called
