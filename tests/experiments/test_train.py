"""Training: its steps, metrics, checkpoints, and what is said where it cannot go on."""

import dataclasses
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.engine.checkpoint import load_model
from experiments.engine.config import RunConfig
from experiments.engine.optim import SGD, Adam
from experiments.engine.progress import TrainingError, read_metrics
from experiments.engine.train import fit
from jaxup.files import InputError
from tests.experiments.tiny_run import Tiny, adam, squared_error, tiny_batches, train


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


@pytest.mark.thorough
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
    """Two steps on four devices against the same written out on one, without mesh or donation.

    Not with Adam, which blows up rounding where a gradient is zero, as that of a bias before a normalisation.
    """
    optimizer = optax.sgd(0.1, momentum=0.9)
    with_mesh = Tiny(rngs=nnx.Rngs(0))
    assert fit(with_mesh, optimizer, squared_error, tiny_batches(), RunConfig(tmp_path, steps=2)) is with_mesh
    model = Tiny(rngs=nnx.Rngs(0))
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    state, losses = optimizer.init(params), []

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        value, _ = squared_error(model, batch)
        return value, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def step(params, rest, state, batch):
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state, params)
        return value, optax.apply_updates(params, updates), rest, state

    for _, batch in zip(range(2), tiny_batches(), strict=False):
        value, params, rest, state = step(params, rest, state, batch)
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


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_run_goes_on_before_a_damaged_checkpoint(finished, tmp_path, capsys):
    """Metrics that were damaged, too, are repaired; the run ends in the same weights."""
    run, model = finished
    shutil.copytree(run.run_dir, tmp_path, dirs_exist_ok=True)
    (data,) = (tmp_path / "checkpoints" / "12" / "data").glob("*.json")
    data.write_text(data.read_text().replace("96", "88"))
    metrics = tmp_path / "metrics.jsonl"
    first, *others = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join([first, first, first.replace(b"loss", b"l\xffss"), b"{}\n", *others]))
    resumed = train(dataclasses.replace(run, run_dir=tmp_path))
    assert_same(weights(resumed), weights(model))
    assert without_times(read_metrics(tmp_path)) == without_times(read_metrics(run.run_dir))
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2 and "taking the checkpoint of step 8" in warnings[0]
    assert warnings[1] == f"warning: {metrics}: 3 of 9 lines cannot be read and are left out"


@pytest.mark.thorough
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


@pytest.mark.slow
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


@pytest.mark.thorough
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


def train_on(x, run):
    return fit(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), adam(), linear_error, numbered_batches(lambda i: x), run)


def test_batches_that_cannot_be_used_are_named(tmp_path):
    devices = jax.device_count()
    if devices > 1:
        with pytest.raises(InputError, match=rf"expected a multiple of {devices} examples.* \[{devices + 1}, 3\]"):
            train_on(np.ones((devices + 1, 3), np.float32), RunConfig(tmp_path / "a"))
    few = grain.MapDataset.range(3).map(lambda i: {"x": np.ones((devices, 3), np.float32)}).to_iter_dataset()
    with pytest.raises(InputError, match="ended before step 4"):
        fit(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), adam(), linear_error, few, RunConfig(tmp_path / "b", steps=4))


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
