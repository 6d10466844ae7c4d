"""Training with validation: the best weights are kept, and the learning rate falls on a plateau."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from optax.contrib import reduce_on_plateau

from experiments.engine.checkpoint import load_model
from experiments.engine.config import RunConfig
from experiments.engine.progress import read_metrics
from experiments.engine.train import Validation, mean_scores
from jaxup.files import InputError
from tests.experiments.test_train import assert_same, keys_and_counts, weights, without_times
from tests.experiments.tiny_run import Tiny, squared_error, tiny_batches, train

LOSSES = [0.5, 0.4, 0.4, 0.3, 0.45, 0.6]  # of the validations after 2, 4, .. 12 steps


def scripted(start=0):
    """A validation that gives these losses, and sets aside the kernels that it has seen."""
    losses, seen = iter(LOSSES[start // 2 :]), []

    def score(model):
        assert model.dropout.deterministic
        seen.append(np.array(model.first.kernel[...]))
        return {"loss": next(losses), "other": 1.0}

    return Validation(2, score, reduce_on_plateau(factor=0.5, patience=1)), seen


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps with a checkpoint after 5, 10 and 12."""
    run = RunConfig(tmp_path_factory.mktemp("runs") / "validated", steps=12, log_every=12, save_every=5, keep=3)
    validation, seen = scripted()
    return run, train(run, validation=validation), seen


@pytest.mark.thorough
def test_the_best_weights_come_back(finished):
    run, model, seen = finished
    np.testing.assert_array_equal(model.first.kernel[...], seen[3])
    best = load_model(run.run_dir, Tiny(rngs=nnx.Rngs(5)), best=True)
    assert_same(weights(best), weights(model))
    last = load_model(run.run_dir, Tiny(rngs=nnx.Rngs(5)))
    np.testing.assert_array_equal(last.first.kernel[...], seen[5])
    earlier = load_model(run.run_dir, Tiny(rngs=nnx.Rngs(5)), step=5, best=True)
    np.testing.assert_array_equal(earlier.first.kernel[...], seen[1])


@pytest.mark.thorough
def test_scores_and_the_learning_rate_are_in_the_metrics(finished):
    run, _, _ = finished
    lines = read_metrics(run.run_dir)
    assert [line["validation_loss"] for line in lines if "validation_loss" in line] == LOSSES
    assert all(("validation_other" in line) == (line["step"] % 2 == 0) for line in lines)
    schedule = [1e-2 * 0.9 ** (line["step"] / 10) for line in lines if line["step"] != 5]
    rates = [line["learning_rate"] for line in lines if line["step"] != 5]
    # No improvement after 6, 10 and 12 steps; the step after is the first with the lower rate.
    np.testing.assert_allclose(np.array(rates) / schedule, [1, 1, 1, 0.5, 0.5, 0.25], rtol=0.02)


@pytest.mark.thorough
@pytest.mark.parametrize("step", [5, 10])
def test_a_restarted_run_ends_in_the_same_bits(finished, tmp_path, step):
    """From a checkpoint between two validations, and from one right after the plateau lowered the rate."""
    run, model, _ = finished
    shutil.copytree(run.run_dir, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "checkpoints").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    resumed = train(dataclasses.replace(run, run_dir=tmp_path), validation=scripted(step)[0])
    assert_same(weights(resumed), weights(model))
    jax.tree.map(np.testing.assert_array_equal, keys_and_counts(resumed), keys_and_counts(model))
    assert without_times(read_metrics(tmp_path)) == without_times(read_metrics(run.run_dir))
    last = (load_model(path, Tiny(rngs=nnx.Rngs(5))) for path in (tmp_path, run.run_dir))
    assert_same(*map(weights, last))


@pytest.mark.thorough
def test_mean_scores():
    traced, model = [], Tiny(rngs=nnx.Rngs(0))
    model.eval()

    def loss(model, batch):
        traced.append(batch)
        return squared_error(model, batch)

    batches = [batch for _, batch in zip(range(3), tiny_batches(), strict=False)]
    score = mean_scores(loss, batches)
    expected = np.mean([float(squared_error(model, batch)[0]) for batch in batches])
    for _ in range(2):
        scores = score(nnx.merge(*nnx.split(model)))
        assert scores.keys() == {"loss", "mae"}
        np.testing.assert_allclose(scores["loss"], expected, rtol=1e-5)
    assert len(traced) == 1, "compiled once"


@pytest.mark.thorough
def test_no_best_weights_is_named(tmp_path):
    train(RunConfig(tmp_path / "plain", steps=1))
    with pytest.raises(InputError, match="trained without validation"):
        load_model(tmp_path / "plain", Tiny(rngs=nnx.Rngs(0)), best=True)
    unfinished = Validation(1, lambda model: {"loss": float("nan")})
    train(RunConfig(tmp_path / "nan", steps=1), validation=unfinished)
    with pytest.raises(InputError, match="no validation was finite until step 1"):
        load_model(tmp_path / "nan", Tiny(rngs=nnx.Rngs(0)), best=True)
