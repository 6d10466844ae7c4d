"""The training loop: a jitted Optax step over a data-parallel mesh, resumed exactly where it stopped.

State, data position and metrics are saved together, so that a run that was killed at any moment and is
started again ends in the same weights, on a CPU bit for bit. The loop reads results back from the device
only where it writes a line of metrics, and lets at most two steps queue up before it.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from signal import SIGINT, SIGTERM
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding

from experiments.engine.checkpoint import Best, Checkpoints, TrainState, split_model
from experiments.engine.config import RunConfig
from experiments.engine.processes import is_first, of_this_process, shardings, shared, spread
from experiments.engine.progress import Metrics, MetricsLog, NotFiniteError, TrainingError, progress
from experiments.engine.samples import listed
from experiments.engine.stopping import Signals, locked
from jaxup._heap import give_back
from jaxup._signals import Stopped, handled
from jaxup.files import InputError

Loss = Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]]


class Validation(NamedTuple):
    """What a run does every so many steps, and after the last one: it scores the model and keeps the best weights."""

    every: int
    score: Callable[[nnx.Module], Metrics]
    """Scores of a model in evaluation mode. "loss" decides: the less, the better. See `mean_scores`."""
    plateau: optax.GradientTransformationExtraArgs | None = None
    """`optax.contrib.reduce_on_plateau`: lowers the learning rate where that loss no longer falls."""


def fit(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    batches: grain.IterDataset,
    run: RunConfig,
    *,
    validation: Validation | None = None,
    prepare: Callable[[Any], Any] | None = None,
    on_log: Callable[[int, Metrics], None] | None = None,
) -> nnx.Module:
    """Trains a model, or goes on training it from the newest checkpoint of the run directory.

    Parameters are replicated over all devices and each batch is split over them along its leading axis.
    Writes checkpoints and `metrics.jsonl` to `run.run_dir`; each line has "step", "loss", the metrics of
    `loss` and "gradient_norm", all means over the steps since the line before; "learning_rate" if the
    optimiser was made with `optax.inject_hyperparams`; "memory", the bytes that the compiled step takes on a device
    with the first batch: state, batch, results and scratch; "seconds" since the line before, and "data_wait", the
    fraction of them that the loop waited for data. A validation adds a line with its scores, "validation_loss" and so
    on; the best weights and the state of the plateau are part of the checkpoints.

    Args:
        model: network with its initial weights; batch statistics and random state are trained and saved as
            well.
        optimizer: any Optax transformation, its schedule included.
        loss: `loss(model, batch)` gives (scalar, dictionary of scalars), each a mean over the batch.
        batches: endless dataset of pytrees of arrays [B, ...]; with several processes, the rows of this one:
            see `batched`. Shapes may differ from batch to batch: the step is compiled once for each.
        run: directory, length, and how often to log and save.
        validation: how often to score the model, and on what; none: never.
        prepare: what to do with each batch once it is on the devices, such as to look up examples that are kept there;
            a function of arrays, best a jitted one.
        on_log: called with (step, metrics) at every line of metrics.

    Returns:
        `model` with the trained weights, with validation the best ones, in evaluation mode.

    Raises:
        InputError: the checkpoint is of another model, the data end or cannot be read, a batch cannot be split over
            the devices, a checkpoint cannot be written, or another process is training in the run directory.
        TrainingError: loss or gradient is no longer finite; the newest checkpoint is from before.
        Stopped: SIGTERM or SIGINT came, in the main thread, and the state was saved: `SystemExit` with 143 or 130. A
            second signal, a second later or more, ends at once what the first one is still waiting for.
    """
    replicated, split = shardings()
    model.train()
    graph, params, rest = split_model(model)
    # Jitted, so that the state is a copy: the step donates its buffers, and the caller's model keeps its own.
    initial = jax.jit(_initial_state, static_argnums=(0, 1), out_shardings=replicated)
    state = initial(optimizer, validation, params, rest)
    train_step = jax.jit(_make_step(graph, optimizer, loss), donate_argnums=0, out_shardings=replicated)
    judge = jax.jit(_judge, static_argnums=0, donate_argnums=1, out_shardings=replicated)
    signals = Signals()
    with contextlib.ExitStack() as stack:
        enter, closing = stack.enter_context, contextlib.closing
        enter(handled(signals.handle, SIGTERM, SIGINT))
        enter(locked(run.run_dir))
        iterator = enter(closing(iter(batches)))
        checkpoints = enter(closing(Checkpoints(run.run_dir, run.keep)))
        start, state = checkpoints.restore(state, iterator)
        log = enter(closing(MetricsLog(run.run_dir, start, run.tensorboard)))
        show = enter(progress(start, run.steps))
        enter(_naming(batches))
        memory: dict[str, float] = {}
        saved, line = start, None
        for step in range(start + 1, run.steps + 1):
            position = iterator.get_state()
            try:
                with log.waiting(), signals.at_once():
                    batch = _next_batch(iterator, step, split)
            except Stopped as stopped:
                if saved < step - 1:
                    _ = line or log.write(step - 1, {})
                    checkpoints.save(step - 1, state, position)
                raise _told(stopped, step - 1, run) from None
            batch = batch if prepare is None else prepare(batch)
            state, metrics = train_step(state, batch)
            if not memory:
                memory = {"memory": memory_of(train_step.lower(state, batch).compile())}
                give_back()
            log.add(metrics | memory)
            scores: Metrics = {}
            if validation is not None and (step % validation.every == 0 or step == run.steps):
                scores = validation.score(_evaluated(graph, state))
                state = judge(validation, state, np.float32(scores["loss"]))
            save = step % run.save_every == 0 or step == run.steps
            due = save or bool(scores) or step % run.log_every == 0
            asked = signals.noticed(last=step == run.steps)
            line = log.write(step, scores) if due or asked else None
            show(step, line)
            if line is not None and on_log is not None:
                on_log(step, line)
            if save or asked:
                checkpoints.save(step, state, iterator.get_state())
                saved = step
            if asked:
                raise _told(asked, step, run)
    trained = (state.params, state.rest) if state.best is None else (state.best.params, state.best.rest)
    nnx.update(model, *of_this_process(trained))
    model.eval()
    return model


def _told(stopped: Stopped, step: int, run: RunConfig) -> Stopped:
    """Says what a signal ended, and that it can go on."""
    what = f"after step {step} of {run.steps}, saved: started again, it goes on from there" if step else "before step 1"
    if is_first():
        print(f"stopped by {stopped.name} {what}", file=sys.stderr, flush=True)
    return stopped


@contextlib.contextmanager
def _naming(batches: Any) -> Iterator[None]:
    """Adds to an error about a step what was read for it; grain's own datasets do not say."""
    try:
        yield
    except NotFiniteError as error:
        names: list[str] = []
        with contextlib.suppress(Exception):  # it is the first error that counts
            names = batches.names(error.step - 1)
        raise TrainingError(f"{error}, in the batch of {listed(names)}" if names else str(error)) from error


def squared_error(given: str, wanted: str) -> Loss:
    """The mean squared error of what a model makes of `batch[given]`, against `batch[wanted]`, and its PSNR.

    Images have values from 0 to 1.
    """

    def loss(model: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        error = jnp.mean((model(batch[given]) - batch[wanted]) ** 2)
        return error, {"psnr": -10 * jnp.log10(error)}

    return loss


def mean_scores(loss: Loss, batches: Sequence[Any]) -> Callable[[nnx.Module], Metrics]:
    """The scores of a `Validation`: means of the loss and its metrics over batches of equal size.

    Batches are split over all devices where they can be shared equally, and a device adds up what it has of them.

    Args:
        loss: as for `fit`.
        batches: pytrees of arrays; every process has all of them.

    Returns:
        A function of the model.
    """

    replicated, split = shardings()

    @partial(jax.jit, static_argnums=0, out_shardings=replicated)
    def measure(graph: nnx.GraphDef, state: nnx.State, batch: Any) -> dict[str, jax.Array]:
        value, metrics = loss(nnx.merge(graph, state), batch)
        return {"loss": value, **metrics}

    def score(model: nnx.Module) -> Metrics:
        graph, state = nnx.split(model)
        results = jax.device_get([measure(graph, state, shared(batch, replicated, split)) for batch in batches])
        return {name: float(np.mean([result[name] for result in results])) for name in results[0]}

    return score


def _evaluated(graph: nnx.GraphDef, state: TrainState) -> nnx.Module:
    model = nnx.merge(graph, state.params, state.rest, copy=True)
    model.eval()
    return model


def _judge(validation: Validation, state: TrainState, loss: jax.Array) -> TrainState:
    """Keep the weights if they are the best so far, and tell the plateau of their loss."""
    better = loss < state.best.loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), Best(loss, state.params, state.rest), state.best)
    if validation.plateau is None:
        return state._replace(best=best)
    with jax.numpy_dtype_promotion("standard"):
        _, plateau = validation.plateau.update({}, state.plateau, value=loss)
    return state._replace(best=best, plateau=plateau)


def _initial_state(
    optimizer: optax.GradientTransformation, validation: Validation | None, params: nnx.State, rest: nnx.State
) -> TrainState:
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules mix floats and integers
        state = TrainState(jnp.int32(0), params, rest, optimizer.init(params))
    if validation is None:
        return state
    best = Best(jnp.float32(jnp.inf), *jax.tree.map(jnp.copy, (params, rest)))  # its own memory, for it is donated, too
    return state._replace(best=best, plateau=validation.plateau and validation.plateau.init(params))


def _make_step(graph: nnx.GraphDef, optimizer: optax.GradientTransformation, loss: Loss) -> Callable[..., Any]:
    def evaluate(params: nnx.State, rest: nnx.State, batch: Any) -> tuple[jax.Array, tuple[Any, nnx.State]]:
        model = nnx.merge(graph, params, rest, copy=True)
        value, metrics = loss(model, batch)
        return value, (metrics, split_model(model)[2])

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        gradient = jax.value_and_grad(evaluate, has_aux=True)
        (value, (metrics, rest)), grads = gradient(state.params, state.rest, batch)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        metrics = {"loss": value, **metrics, "gradient_norm": optax.tree.norm(grads)}
        scale = jnp.float32(1) if state.plateau is None else state.plateau.scale
        metrics |= {name: scale * rate for name, rate in _learning_rate(optimizer_state).items()}
        updates = jax.tree.map(lambda update: scale.astype(update.dtype) * update, updates)
        params = optax.apply_updates(state.params, updates)
        return state._replace(step=state.step + 1, params=params, rest=rest, optimizer=optimizer_state), metrics

    return train_step


def memory_of(compiled: jax.stages.Compiled) -> float:
    """The bytes that a compiled function takes on a device; results in the place of what was donated count once.

    Of a step that ran before `lower(...).compile()` compiles nothing anew.
    """
    sizes: Any = compiled.memory_analysis()
    kinds = {"argument": 1, "output": 1, "temp": 1, "alias": -1}
    return float(sum(sign * getattr(sizes, f"{kind}_size_in_bytes") for kind, sign in kinds.items()))


def _learning_rate(optimizer_state: Any) -> dict[str, jax.Array]:
    """The rate that `optax.inject_hyperparams` keeps in its state; the state of its schedule has the same name."""
    found = optax.tree.get_all_with_path(
        optimizer_state, "learning_rate", filtering=lambda path, value: isinstance(value, jax.Array)
    )
    return {"learning_rate": found[0][1]} if len(found) == 1 else {}


def _next_batch(iterator: grain.DatasetIterator, step: int, split: NamedSharding) -> Any:
    """The next batch, spread over the devices."""
    try:
        batch = next(iterator)
    except StopIteration:
        raise InputError(f"batches: ended before step {step}; repeat the dataset") from None
    return spread(batch, split)
