import dataclasses
import importlib.util
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.engine.checkpoint import load_model
from experiments.engine.config import MAY_DIFFER, RunConfig, from_json, load_config, open_run, to_json
from experiments.engine.optim import SGD, Adam
from experiments.engine.progress import TrainingError, progress, read_metrics
from experiments.engine.stored import WAS_FLAT
from experiments.engine.train import fit
from jaxup.files import InputError
from tests.experiments.tiny_run import Tiny, adam, squared_error, tiny_batches, train

ROOT = Path(__file__).parents[2]


def weights(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))]


def keys_and_counts(model):
    state = nnx.state(model, nnx.RngState)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if leaf.dtype != "uint32" else leaf), state)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


def without_times(lines):
    return [{k: v for k, v in line.items() if k not in ("seconds", "data_wait")} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps without interruption, with a checkpoint at 4, 8 and 12, of which the last two are kept."""
    run = RunConfig(tmp_path_factory.mktemp("runs") / "finished", steps=12, log_every=3, save_every=4)
    return run, train(run)


def test_the_metrics_are_means_between_lines(finished):
    run, _ = finished
    lines = read_metrics(run.run_dir)
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 12]
    assert list(lines[0])[:2] == ["step", "loss"]
    assert lines[0].keys() == {
        "step", "loss", "mae", "gradient_norm", "learning_rate", "memory", "seconds", "data_wait",
    }  # fmt: skip
    np.testing.assert_allclose(lines[-1]["learning_rate"], 1e-2 * 0.9 ** np.mean([0.9, 1.0, 1.1]), rtol=1e-4)
    assert 0 <= lines[0]["data_wait"] <= 1
    weights = sum(p.nbytes for p in jax.tree.leaves(nnx.state(finished[1], nnx.Param)))
    assert {line["memory"] for line in lines} == {lines[0]["memory"]} and 3 * weights < lines[0]["memory"] < 1e6


def test_the_step_is_the_plain_optax_step(tmp_path):
    """Two steps on four devices against the same written out on one, without jit, mesh or donation.

    Not with Adam, which blows up rounding where a gradient is zero, as that of a bias before a normalisation.
    """
    optimizer = optax.sgd(0.1, momentum=0.9)
    with_mesh = Tiny(rngs=nnx.Rngs(0))
    assert fit(with_mesh, optimizer, squared_error, tiny_batches(), RunConfig(tmp_path, steps=2)) is with_mesh
    model = Tiny(rngs=nnx.Rngs(0))
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    state, losses = optimizer.init(params), []
    for _, batch in zip(range(2), tiny_batches(), strict=False):

        def loss(params, rest=rest, batch=batch):
            model = nnx.merge(graph, params, rest, copy=True)
            value, _ = squared_error(model, batch)
            return value, nnx.state(model, nnx.Not(nnx.Param))

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    np.testing.assert_allclose(read_metrics(tmp_path)[-1]["loss"], np.mean(losses), rtol=1e-5)
    nnx.update(model, params, rest)
    assert not np.allclose(model.norm.mean[...], 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        weights(with_mesh),
        weights(model),
    )
    jax.tree.map(np.testing.assert_array_equal, keys_and_counts(with_mesh), keys_and_counts(model))


def test_the_model_comes_back_for_evaluation_and_loads_again(finished):
    run, model = finished
    assert model.dropout.deterministic and model.norm.use_running_average
    loaded = load_model(run.run_dir, Tiny(rngs=nnx.Rngs(5)))
    assert_same(weights(loaded), weights(model))
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(loaded(x), model(x))
    earlier = load_model(run.run_dir, Tiny(rngs=nnx.Rngs(5)), step=8)
    assert not np.array_equal(earlier.first.kernel[...], model.first.kernel[...])


def test_a_finished_run_is_not_trained_again(finished):
    run, model = finished
    before = (run.run_dir / "metrics.jsonl").read_bytes()
    assert_same(weights(train(run)), weights(model))
    assert (run.run_dir / "metrics.jsonl").read_bytes() == before


def test_a_run_continues_from_its_checkpoint(finished, tmp_path):
    """What a kill leaves: the last checkpoint unfinished, metrics of later steps, the last line cut off."""
    run, model = finished
    shutil.copytree(run.run_dir, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "12").rename(checkpoints / "12.orbax-checkpoint-tmp")
    shutil.rmtree(checkpoints / "12.orbax-checkpoint-tmp" / "optimizer")
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    resumed = train(dataclasses.replace(run, run_dir=tmp_path))
    assert_same(weights(resumed), weights(model))
    jax.tree.map(np.testing.assert_array_equal, keys_and_counts(resumed), keys_and_counts(model))
    assert without_times(read_metrics(tmp_path)) == without_times(read_metrics(run.run_dir))
    assert sorted(path.name for path in checkpoints.iterdir()) == ["12", "8"]


@pytest.mark.parametrize("item", ["model", "optimizer", "data"])
def test_a_damaged_checkpoint_is_one_line(finished, tmp_path, item):
    run, _ = finished
    shutil.copytree(run.run_dir, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints" / "12" / item).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"12: cannot be read as a checkpoint") as caught:
        train(dataclasses.replace(run, run_dir=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_or_optimiser_is_named(finished):
    run, _ = finished
    wide = Tiny(width=9, rngs=nnx.Rngs(0))
    match = r"model: is of another configuration, params.first.bias is float32\[8\], expected float32\[9\]"
    with pytest.raises(InputError, match=match):
        load_model(run.run_dir, wide)
    with pytest.raises(InputError, match=match):
        fit(wide, adam(), squared_error, tiny_batches(), run)
    with pytest.raises(InputError, match="optimizer: is of another configuration"):
        fit(Tiny(rngs=nnx.Rngs(0)), optax.sgd(1e-2), squared_error, tiny_batches(), run)
    with pytest.raises(InputError, match=r"it has params.first.bias as well"):
        load_model(run.run_dir, nnx.Dropout(0.5, rngs=nnx.Rngs(0)))


def test_a_missing_checkpoint_is_named(finished, tmp_path):
    run, model = finished
    with pytest.raises(InputError, match="holds no checkpoints"):
        load_model(tmp_path / "nothing", model)
    with pytest.raises(InputError, match=r"holds no checkpoint of step 4, only \[8, 12\]"):
        load_model(run.run_dir, model, step=4)


def linear_error(model, batch):
    return jnp.mean((model(batch["x"]) - 1) ** 2), {}


def numbered_batches(make):
    return grain.MapDataset.range(1000).map(lambda i: {"x": make(i)}).to_iter_dataset()


@pytest.mark.parametrize("inf, name", [(np.inf, "loss"), (1e15, "gradient_norm")])
def test_what_is_not_finite_stops_the_run_before_it_is_saved(tmp_path, inf, name):
    """The 7th batch is bad; it is noticed at the line of step 8, and the checkpoint of step 4 remains.

    A value of 1e15 gives a finite loss, and a gradient whose square is not.
    """
    batches = numbered_batches(lambda i: np.full((4, 3), inf if i == 6 else 1, np.float32))
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    with pytest.raises(TrainingError, match=f"step 7: {name} is (inf|nan)"):
        fit(model, optax.sgd(1e-2), linear_error, batches, RunConfig(tmp_path, steps=20, save_every=4))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    assert [line["step"] for line in read_metrics(tmp_path)] == [4]
    assert np.isfinite(model.kernel[...]).all(), "the caller's model is left as it was"


def test_batches_are_prepared_on_the_device(tmp_path):
    """Batches of indices into arrays that stay on the device: the same training."""
    random = np.random.default_rng(3)
    xs = jnp.asarray(random.normal(size=(12, 3)), jnp.float32)
    table = {"x": xs, "y": xs.sum(-1, keepdims=True)}
    indices = grain.MapDataset.range(12).seed(0).shuffle().repeat().batch(4)
    examples = indices.map(lambda index: {name: np.asarray(array)[index] for name, array in table.items()})
    look_up = jax.jit(lambda index: {name: array[index] for name, array in table.items()})
    kept, read = (
        fit(
            Tiny(rngs=nnx.Rngs(0)),
            adam(),
            squared_error,
            batches.to_iter_dataset(),
            RunConfig(path, steps=3),
            **options,
        )
        for batches, path, options in (
            (indices, tmp_path / "kept", {"prepare": look_up}),
            (examples, tmp_path / "read", {}),
        )
    )
    assert_same(weights(kept), weights(read))


def test_each_shape_is_compiled_once(tmp_path):
    traced, lines = [], []

    def loss(model, batch):
        traced.append(batch["x"].shape)
        return linear_error(model, batch)

    batches = numbered_batches(lambda i: np.ones((4, 1 + i % 2, 3), np.float32))
    run = RunConfig(tmp_path, steps=8, log_every=4)
    fit(
        nnx.Linear(3, 1, rngs=nnx.Rngs(0)),
        adam(),
        loss,
        batches,
        run,
        on_log=lambda *line: lines.append(line),
    )
    assert traced == [(4, 1, 3), (4, 2, 3)]
    assert [step for step, _ in lines] == [4, 8]
    assert [{"step": step, **metrics} for step, metrics in lines] == read_metrics(tmp_path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, bars", [(Terminal, True), (io.StringIO, False)])
def test_a_terminal_gets_a_bar_and_a_file_plain_lines(monkeypatch, stream, bars):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress(2, 5) as show:
        for step in (3, 4, 5):
            show(step, {"loss": 0.25} if step == 4 else None)
    said = sys.stderr.getvalue()
    assert "continuing after step 2 of 5" in said and "loss 0.25" in said
    assert ("5/5" in said and "\r" in said) if bars else said.splitlines()[1:] == ["step 4/5  loss 0.25"]


def test_batches_that_cannot_be_used_are_named(tmp_path):
    devices = jax.device_count()
    if devices > 1:
        with pytest.raises(InputError, match=rf"expected a multiple of {devices} examples.* \[{devices + 1}, 3\]"):
            train_on(np.ones((devices + 1, 3), np.float32), RunConfig(tmp_path / "a"))
    few = grain.MapDataset.range(3).map(lambda i: {"x": np.ones((devices, 3), np.float32)}).to_iter_dataset()
    with pytest.raises(InputError, match="ended before step 4"):
        fit(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), adam(), linear_error, few, RunConfig(tmp_path / "b", steps=4))


def train_on(x, run):
    return fit(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), adam(), linear_error, numbered_batches(lambda i: x), run)


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


@dataclasses.dataclass(frozen=True)
class Scenes:
    count: int = 3
    size: tuple[int, int] = (4, 6)


@dataclasses.dataclass(frozen=True)
class Folder:
    path: Path
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    run: RunConfig
    source: Scenes | Folder = Scenes()
    scales: tuple[int, ...] = (4, 8)
    names: dict[str, float] = dataclasses.field(default_factory=dict)
    rate: float = 1e-3
    note: str = dataclasses.field(default="", metadata=MAY_DIFFER)


def test_configurations_survive_json(tmp_path):
    for source in (Scenes(size=(1, 2)), Folder(Path("a/b")), Folder(Path("c"), limit=4)):
        config = Config(RunConfig(tmp_path / "run", steps=7), source, scales=(), names={"a": 0.1}, rate=0.3)
        assert from_json(Config, json.loads(json.dumps(to_json(config)))) == config
    assert from_json(Config, {"run": {"run_dir": "x"}}) == Config(RunConfig(Path("x")))


@pytest.mark.parametrize(
    "data, match",
    [
        ({}, "config.run: missing"),
        ({"run": {"run_dir": "x", "stepz": 1}}, r"config.run.stepz: RunConfig has no such field"),
        ({"run": {"run_dir": "x", "steps": "9"}}, r"config.run.steps: expected int, got '9'"),
        ({"run": {"run_dir": "x", "steps": 0}}, r"steps: expected at least 1, got 0"),
        ({"run": 3}, "config.run: expected the fields of RunConfig, got 3"),
        ({"run": {"run_dir": "x"}, "source": {"class": "Video"}}, "config.source: .* is of no type in"),
        (
            {"run": {"run_dir": "x"}, "source": {"class": "Scenes", "size": [1]}},
            "size: expected 2 values, got 1",
        ),
    ],
)
def test_json_that_is_no_configuration_is_named(data, match):
    with pytest.raises(InputError, match=match):
        from_json(Config, data)


def test_a_run_directory_belongs_to_one_configuration(tmp_path):
    run = RunConfig(tmp_path / "new" / "run", steps=7)
    config = Config(run)
    open_run(run.run_dir, config)
    before = {path.name: path.read_bytes() for path in run.run_dir.iterdir()}
    assert before.keys() == {"config.json", "versions.json"}
    assert json.loads(before["versions.json"])[0]["jax"] == jax.__version__
    assert load_config(Config, run.run_dir) == config
    moved = dataclasses.replace(run, run_dir=tmp_path, log_every=1, save_every=2, keep=9)
    open_run(run.run_dir, dataclasses.replace(config, run=moved, note="may differ"))
    for other, match in [
        (
            dataclasses.replace(config, run=dataclasses.replace(run, seed=1)),
            "run.seed: it has 0, asked for 1",
        ),
        (dataclasses.replace(config, scales=(4,)), r"scales: it has \[4, 8\], asked for \[4\]"),
        (
            dataclasses.replace(config, source=Folder(Path("x"))),
            "source: it has 'Scenes', asked for 'Folder'",
        ),
        (run, "task: it has 'Config', asked for 'RunConfig'"),
    ]:
        with pytest.raises(InputError, match=match):
            open_run(run.run_dir, other)
    with pytest.raises(InputError, match="expected the configuration of a Scenes"):
        load_config(Scenes, run.run_dir)
    stored = json.loads(before["config.json"])
    del stored["scales"]  # as if the field were new: it has its default
    (run.run_dir / "config.json").write_text(json.dumps(stored))
    open_run(run.run_dir, dataclasses.replace(config, scales=Config.scales))
    (run.run_dir / "config.json").write_bytes(before["config.json"])
    assert before == {path.name: path.read_bytes() for path in run.run_dir.iterdir()}


def test_another_environment_is_added_to_the_versions(tmp_path):
    config = Config(RunConfig(tmp_path))
    open_run(tmp_path, config)
    (tmp_path / "versions.json").write_text('[{"python": "2.7"}]')
    for _ in range(2):
        open_run(tmp_path, config)
    assert len(json.loads((tmp_path / "versions.json").read_text())) == 2


def test_a_directory_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"x")
    config = Config(RunConfig(tmp_path))
    with pytest.raises(InputError, match="neither empty nor a run directory"):
        open_run(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]
    with pytest.raises(InputError, match="expected a directory, got a file"):
        open_run(tmp_path / "holiday.png", config)
    with pytest.raises(InputError, match="is not a run directory"):
        load_config(Config, tmp_path)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "config.json.tmp").write_text("{")
    open_run(killed, config)
    assert load_config(Config, killed) == config
    (killed / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json: cannot be read as JSON"):
        open_run(killed, config)


def test_a_run_may_grow_but_not_shrink(tmp_path):
    config = Config(RunConfig(tmp_path, steps=7))
    open_run(tmp_path, config)
    longer = dataclasses.replace(config, run=RunConfig(tmp_path, steps=9))
    open_run(tmp_path, longer)
    assert load_config(Config, tmp_path) == longer
    with pytest.raises(InputError, match=r"run\.steps: it has 9, asked for 7, expected at least as many"):
        open_run(tmp_path, config)
    with pytest.raises(InputError, match=r"run\.seed"):
        open_run(tmp_path, dataclasses.replace(config, run=RunConfig(tmp_path, steps=20, seed=1)))
    assert load_config(Config, tmp_path) == longer


@dataclasses.dataclass(frozen=True)
class Nested:
    run: RunConfig
    data_dir: Path | None = dataclasses.field(default=None, metadata=MAY_DIFFER)
    optimizer: Adam = dataclasses.field(default=Adam(), metadata=WAS_FLAT)


def test_what_older_versions_stored_flat_is_read(tmp_path):
    older = {"class": "Nested", "run": to_json(RunConfig(tmp_path)), "learning_rate": 0.5, "drops": [3], "smoke": False}
    del older["run"]["tensorboard"]
    config = Nested(RunConfig(tmp_path), optimizer=Adam(0.5, (3,)))
    assert from_json(Nested, older) == config
    (tmp_path / "config.json").write_text(json.dumps(older))
    open_run(tmp_path, dataclasses.replace(config, data_dir=tmp_path))
    with pytest.raises(InputError, match=r"optimizer\.learning_rate: it has 0\.5, asked for 0\.1"):
        open_run(tmp_path, dataclasses.replace(config, optimizer=Adam(0.1, (3,))))
    with pytest.raises(InputError, match=r"config\.decay: Nested has no such field"):
        from_json(Nested, older | {"decay": 1})


@pytest.mark.parametrize("cls", [Adam, SGD])
def test_the_learning_rate_falls_in_steps(cls):
    optimizer = cls(0.1, drops=(2, 3), drop_factor=5.0).build()
    params, rates = {"w": jnp.ones(2)}, []
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for _ in range(4):
            updates, state = optimizer.update({"w": jnp.ones(2)}, state, params)
            rates.append(float(state.hyperparams["learning_rate"]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.02, 0.004], rtol=1e-5)
    assert (updates["w"] < 0).all()
    for options, match in (
        ({"drops": (3, 2)}, "drops"),
        ({"drop_factor": 0.0}, "drop_factor"),
        ({"learning_rate": -1.0}, "rate"),
    ):
        with pytest.raises(InputError, match=match):
            cls(**options)


def test_tensorboard_shows_what_the_metrics_say(tmp_path):
    events = pytest.importorskip("tensorboardX").proto.event_pb2
    train(RunConfig(tmp_path, steps=4, log_every=2, save_every=2, tensorboard=True))
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, found = file.read_bytes(), []
    while content:  # length, its checksum, event, its checksum
        (length,) = np.frombuffer(content, "<u8", 1)
        event = events.Event.FromString(content[12 : 12 + int(length)])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + int(length) :]
    lines = read_metrics(tmp_path)
    expected = [(line["step"], name, value) for line in lines for name, value in line.items() if name != "step"]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-6)


def test_tensorboard_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tensorboard: needs the package tensorboardX, which is not installed"):
        open_run(tmp_path / "run", Config(RunConfig(tmp_path / "run", tensorboard=True)))
    assert not (tmp_path / "run").exists()
