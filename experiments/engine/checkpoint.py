"""Checkpoints of a training run: the one file that touches Orbax.

`run_dir/checkpoints/STEP` holds the items "model" (parameters, batch statistics and random state), "optimizer",
"data" (the position of the input, once for all processes) and, of a run with validation, "best" (the best model so
far). On disk a state is a flat dictionary from names such as "params.encoder.0.kernel" to arrays, so that a checkpoint
does not depend on the classes of Flax or Optax, and the names and shapes can be compared before anything is read. Orbax
writes a checkpoint to a temporary directory and renames it, so that what a killed process left behind is never taken
for a checkpoint. Saving is synchronous: the training step donates its buffers, which nothing may still be reading.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from jaxup.files import InputError

Tree = TypeVar("Tree")

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of its own defaults, line after line


class Best(NamedTuple):
    """The model with the least loss in a validation."""

    loss: jax.Array
    params: nnx.State
    rest: nnx.State


class TrainState(NamedTuple):
    """All that training changes; a pytree."""

    step: jax.Array
    params: nnx.State
    rest: nnx.State
    """What is trained by other means than gradients: batch statistics, random state."""
    optimizer: Any
    plateau: Any = None
    """State of `optax.contrib.reduce_on_plateau`, where a validation has one."""
    best: Any = None
    """A `Best`, where there is validation."""


class Checkpoints:
    """The checkpoints of one run directory, opened for training.

    Args:
        run_dir: the run directory; made if need be.
        keep: number of checkpoints kept, the newest ones.
    """

    def __init__(self, run_dir: Path, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(_directory(run_dir), options=options, item_handlers=_handlers())

    def save(self, step: int, state: TrainState, iterator: grain.DatasetIterator) -> None:
        """Saves everything that is needed to go on after `step`."""
        items = {
            **{item: ocp.args.StandardSave(_to_arrays(tree)) for item, tree in _items(state).items()},
            "data": ocp.args.JsonSave(iterator.get_state()),
        }
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, state: TrainState, iterator: grain.DatasetIterator) -> tuple[int, TrainState]:
        """Restores the newest checkpoint.

        Args:
            state: the state to fill: gives names, shapes, dtypes and shardings.
            iterator: the data iterator, put to the saved position in place.

        Returns:
            (step, state); (0, `state`) where there is no checkpoint yet.

        Raises:
            InputError: the checkpoint is of another model or optimiser, or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return 0, state
        restored = _restore(self._manager, step, _items(state), iterator)
        best = Best(**restored["best"]) if "best" in restored else None
        return step, TrainState(**restored["model"], **restored["optimizer"], best=best)

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._manager.close()


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run goes on from where it stopped, and not from its initial weights."""
    return any(entry.name.isdigit() for entry in _directory(run_dir).glob("*"))


def load_model(run_dir: Path, model: nnx.Module, step: int | None = None, *, best: bool = False) -> nnx.Module:
    """Loads trained weights into a model, for evaluation.

    Args:
        run_dir: directory of a training run, which may still be going on.
        model: a model of the same configuration, which may be `unfilled`; changed in place.
        step: which checkpoint; None is the newest.
        best: the weights that were best in a validation until then, in place of the last ones.

    Returns:
        `model`, in evaluation mode.

    Raises:
        InputError: there is no such checkpoint, it is of another model, it cannot be read, or there was no validation.
    """
    directory = _directory(run_dir)
    if not directory.is_dir():
        raise InputError(f"{run_dir}: holds no checkpoints")
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(directory, options=options, item_handlers=_handlers()) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise InputError(f"{run_dir}: holds no checkpoints")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(f"{run_dir}: holds no checkpoint of step {step}, only {steps}")
        _, params, rest = split_model(model)
        weights = {"params": params, "rest": rest}
        targets = {"best": {"loss": jnp.float32(0), **weights}} if best else {"model": weights}
        if best and "best" not in {item.name for item in (manager.directory / str(step)).iterdir()}:
            raise InputError(f"{run_dir}: holds no best weights, because it was trained without validation")
        restored = _restore(manager, step, targets)["best" if best else "model"]
    if best and np.isinf(restored["loss"]):
        raise InputError(f"{run_dir}: holds no best weights yet, no validation was finite until step {step}")
    nnx.update(model, restored["params"], restored["rest"])
    model.eval()
    return model


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Splits a model into its structure, its parameters, and the rest of `TrainState`."""
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = states
    return graph, params, rest


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """The items of a checkpoint; the step is there too because Orbax refuses an empty item, as SGD's would be."""
    items = {
        "model": {"params": state.params, "rest": state.rest},
        "optimizer": {"step": state.step, "optimizer": state.optimizer, "plateau": state.plateau},
    }
    return items if state.best is None else {**items, "best": state.best._asdict()}


def _directory(run_dir: Path) -> Path:
    return run_dir.absolute() / "checkpoints"


def _handlers() -> dict[str, Any]:
    """Handlers by item, without which Orbax does not find the metadata of a checkpoint it did not write itself."""
    return {
        "model": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        "best": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler("process_0-of-1.json"),  # the name that older versions gave it
    }


def _restore(
    manager: ocp.CheckpointManager,
    step: int,
    targets: dict[str, Any],
    iterator: grain.DatasetIterator | None = None,
) -> dict[str, Any]:
    """Reads the items in `targets`, and the iterator's position, after comparing names, shapes and dtypes."""
    path = manager.directory / str(step)
    wanted = {item: _to_arrays(tree) for item, tree in targets.items()}
    try:
        found = manager.item_metadata(step)
        trees = {item: dict(found[item].tree) for item in targets}
    except Exception as error:  # whatever Orbax and the layers below it raise on files they did not expect
        raise _unreadable(path, error) from error
    for item in targets:
        _check_same(f"{path}/{item}", wanted[item], trees[item])
    items = {item: ocp.args.StandardRestore(jax.tree.map(_abstract, wanted[item])) for item in targets}
    if iterator is not None:
        items["data"] = ocp.args.JsonRestore()
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        if iterator is not None:
            iterator.set_state(restored["data"])
            iterator.start_prefetch()
    except Exception as error:
        raise _unreadable(path, error) from error
    return {item: _from_arrays(tree, restored[item]) for item, tree in targets.items()}


def _unreadable(path: Any, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason})")


def _check_same(path: str, wanted: dict[str, jax.Array], found: dict[str, Any]) -> None:
    """Orbax itself would cast dtypes without a word, and name no parameter where the trees differ."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise InputError(f"{path}: is of another configuration, it has no {name}")
        if name not in wanted:
            raise InputError(f"{path}: is of another configuration, it has {name} as well")
        new, old = wanted[name], found[name]
        if new.shape != tuple(old.shape) or new.dtype != old.dtype:
            raise InputError(
                f"{path}: is of another configuration, {name} is {old.dtype}{list(old.shape)}, "
                f"expected {new.dtype}{list(new.shape)}"
            )


def _abstract(array: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Of a model without values: for the first device."""
    sharding = array.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _names(tree: Any) -> list[str]:
    """Names of the leaves; a variable is one leaf, whatever Flax calls the value inside it."""
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def _to_arrays(tree: Any) -> dict[str, jax.Array]:
    """Flattens a state to named arrays; random keys become the integers they are made of."""
    named = zip(_names(tree), jax.tree.leaves(tree), strict=True)
    return {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named}


def _from_arrays(like: Tree, arrays: dict[str, jax.Array]) -> Tree:
    leaves = []
    for name, leaf in zip(_names(like), jax.tree.leaves(like), strict=True):
        array = arrays[name]
        leaves.append(jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
