"""A training run that takes a second: `python -m tests.experiments.tiny_run RUN_DIR STEPS [--distributed ...]`."""

import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.__main__ import _processes
from experiments.data.batching import batched
from experiments.engine.config import RunConfig
from experiments.engine.processes import for_each, join, summed
from experiments.engine.train import fit


class Tiny(nnx.Module):
    """Everything a checkpoint has to hold: parameters, batch statistics, and random state that dropout advances."""

    def __init__(self, width: int = 8, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(jax.nn.relu(self.norm(self.first(x)))))


class Numbers:
    """A random-access source."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=3).astype(np.float32)
        return {"x": x, "y": x.sum(keepdims=True)}


def add_noise(example, rng):
    return {**example, "x": example["x"] + rng.normal(scale=0.1, size=3).astype(np.float32)}


def tiny_batches(batch_size=8):
    examples = grain.MapDataset.source(Numbers()).seed(1).shuffle().repeat().random_map(add_noise)
    return batched(examples, batch_size)


def squared_error(model, batch):
    error = model(batch["x"]) - batch["y"]
    return jnp.mean(error**2), {"mae": jnp.mean(jnp.abs(error))}


def adam():
    schedule = optax.exponential_decay(1e-2, transition_steps=10, decay_rate=0.9)
    return optax.inject_hyperparams(optax.adam)(learning_rate=schedule)


def train(run: RunConfig, **options) -> Tiny:
    return fit(Tiny(rngs=nnx.Rngs(run.seed)), adam(), squared_error, tiny_batches(), run, **options)


if __name__ == "__main__":
    processes, (directory, steps) = _processes(sys.argv[1:])
    directory, steps = Path(directory), int(steps)
    if processes is not None:
        join(*processes)
    trained = train(RunConfig(directory, steps=steps, log_every=2, save_every=3))
    leaves = jax.tree.leaves(nnx.state(trained, nnx.Not(nnx.RngState)))
    shared = {"each": for_each(5, lambda i: i / 3), "sum": summed(lambda: [np.full(2, jax.process_index() + 1)])[0]}
    if jax.process_index() == 0:
        shared = shared if jax.process_count() > 1 else {}
        np.savez(directory / "weights.npz", *[np.asarray(leaf) for leaf in leaves], **shared)
