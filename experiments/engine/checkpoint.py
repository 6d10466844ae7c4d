"""Checkpoints of a training run: the one file that touches Orbax.

`run_dir/checkpoints/STEP` holds the items "model" (parameters, batch statistics and random state), "optimizer",
"data" (the position of the input, once for all processes), of a run with validation "best" (the best model so far), and
"digest" (of what is in the others; older ones lack it). On disk a state is a flat dictionary from names such as
"params.encoder.0.kernel" to arrays, so that a checkpoint does not depend on the classes of Flax or Optax, and the names
and shapes can be compared before anything is read. Orbax writes a checkpoint to a temporary directory and renames it,
so that what a killed process left behind is never taken for a checkpoint. One that was damaged later is passed over for
the newest whole one, with a warning, and never deleted. Saving is synchronous: the training step donates its buffers,
which nothing may still be reading.
"""

import gc
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from experiments.engine.processes import exchanged, first_alone, together
from experiments.engine.progress import warn
from jaxup.files import InputError

T = TypeVar("T")
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
        self._directory = _directory(run_dir)
        self._manager: ocp.CheckpointManager | None = None
        first_alone(lambda: self._open(keep))

    def _open(self, keep: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False, **_alone()
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=_handlers())

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Saves everything that is needed to go on after `step`; `position` is the state of the data's iterator.

        Raises:
            InputError: it cannot be written; older checkpoints are as they were.
        """
        first_alone(lambda: self._save(step, state, position))

    def _save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        assert self._manager is not None
        trees = {item: _to_arrays(tree) for item, tree in _items(state).items()}
        arrays = jax.device_get(trees) if jax.process_count() > 1 else trees  # Orbax refuses those of one of several
        digests = {item: _digest(found) for item, found in arrays.items()}
        items = {
            **{item: ocp.args.StandardSave(found) for item, found in arrays.items()},
            "data": ocp.args.JsonSave(position),
            "digest": ocp.args.JsonSave({"step": step, **digests, "data": _json_digest(position)}),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:  # whatever the layers below Orbax raise on a full disk
            raise InputError(f"{self._directory}/{step}: cannot be written ({_reason(error)})") from error

    def restore(self, state: TrainState, iterator: grain.DatasetIterator) -> tuple[int, TrainState]:
        """Restores the newest checkpoint that can be read; newer ones are set aside under another name.

        Args:
            state: the state to fill: gives names, shapes, dtypes and shardings.
            iterator: the data iterator, put to the saved position in place.

        Returns:
            (step, state); (0, `state`) where there is no checkpoint yet.

        Raises:
            InputError: the checkpoints are of another model or optimiser, or none of them can be read.
        """
        steps = _steps(self._directory)
        if not steps:
            return 0, state
        with _reader(self._directory) as manager:
            step, restored = _newest(steps, lambda step: _restore(manager, step, _items(state), iterator))
        first_alone(lambda: self._set_aside([each for each in steps if each > step]))
        iterator.start_prefetch()
        best = Best(**restored["best"]) if "best" in restored else None
        return step, TrainState(**restored["model"], **restored["optimizer"], best=best)

    def _set_aside(self, steps: list[int]) -> None:
        assert self._manager is not None
        for step in steps:
            _set_aside(self._directory / str(step))
        self._manager.reload()

    def close(self) -> None:
        """Ends Orbax's threads."""
        if self._manager is not None:
            self._manager.close()


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run goes on from where it stopped, and not from its initial weights."""
    return bool(_steps(_directory(run_dir)))


def load_model(run_dir: Path, model: nnx.Module, step: int | None = None, *, best: bool = False) -> nnx.Module:
    """Loads trained weights into a model, for evaluation.

    Args:
        run_dir: directory of a training run, which may still be going on.
        model: a model of the same configuration, which may be `unfilled`; changed in place.
        step: which checkpoint; None is the newest that can be read.
        best: the weights that were best in a validation until then, in place of the last ones.

    Returns:
        `model`, in evaluation mode.

    Raises:
        InputError: there is no such checkpoint, it is of another model, it cannot be read, or there was no validation.
    """
    directory = _directory(run_dir)
    steps = _steps(directory)
    if not steps:
        raise InputError(f"{run_dir}: holds no checkpoints")
    if step is not None and step not in steps:
        raise InputError(f"{run_dir}: holds no checkpoint of step {step}, only {steps}")
    if best and not any((directory / str(each) / "best").is_dir() for each in steps):
        raise InputError(f"{run_dir}: holds no best weights, because it was trained without validation")
    _, params, rest = split_model(model)
    weights = {"params": params, "rest": rest}
    targets = {"best": {"loss": jnp.float32(0), **weights}} if best else {"model": weights}
    with _reader(directory) as manager:
        step, found = _newest(steps if step is None else [step], lambda step: _restore(manager, step, targets))
    restored = found["best" if best else "model"]
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
    directory = run_dir.absolute() / "checkpoints"
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: expected a directory of checkpoints, got a file")
    return directory


def _steps(directory: Path) -> list[int]:
    """The steps of which there is a checkpoint, in order, readable or not: as the first process sees it."""

    def found() -> list[int]:
        entries = directory.iterdir() if directory.is_dir() else ()
        return sorted(int(entry.name) for entry in entries if _is_step(entry.name) and entry.is_dir())

    return exchanged(found)[0]


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))


def _newest(steps: list[int], read: Callable[[int], T]) -> tuple[int, T]:
    """The newest step that all processes can read, and what was read; one warning names what was passed over.

    Raises:
        InputError: of the newest, if none can be read.
    """
    errors: list[InputError] = []
    for step in reversed(steps):
        try:
            found = together(partial(read, step))
        except InputError as error:
            errors.append(error)
            continue
        if errors:
            others = f", nor can {len(errors) - 1} more" if errors[1:] else ""
            warn(f"{errors[0]}{others}: taking the checkpoint of step {step}")
        return step, found
    raise errors[0]


def _set_aside(path: Path) -> None:
    """Lets training save that step again, without deleting what is there."""
    free = (path.with_name(f"unreadable-{path.name}{suffix}") for suffix in ["", *(f"-{n}" for n in range(2, 1000))])
    path.rename(next(name for name in free if not name.exists()))


def _reader(directory: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(read_only=True, **_alone())
    return ocp.CheckpointManager(directory, options=options, item_handlers=_handlers())


def _alone() -> dict[str, Any]:
    """Options by which Orbax waits for no other process, one of which may be in trouble: that is our business."""
    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process-{index}"
    )
    return {"multiprocessing_options": options, "create": False}


def _handlers() -> dict[str, Any]:
    """Handlers by item, without which Orbax does not find the metadata of a checkpoint it did not write itself."""
    return {
        "model": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        "best": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler("process_0-of-1.json"),  # the name that older versions gave it
        "digest": ocp.JsonCheckpointHandler(),
    }


def _restore(
    manager: ocp.CheckpointManager,
    step: int,
    targets: dict[str, Any],
    iterator: grain.DatasetIterator | None = None,
) -> dict[str, Any]:
    """Reads the items in `targets`, and the iterator's position, after comparing names, shapes and dtypes.

    Raises:
        InputError: they are of something else, cannot be read, or are not what was saved.
    """
    path = Path(manager.directory) / str(step)
    wanted = {item: _to_arrays(tree) for item, tree in targets.items()}

    def shapes() -> dict[str, Any]:
        found = manager.item_metadata(step)
        return {item: dict(found[item].tree) for item in targets}

    trees = _tried(path, shapes)
    for item in targets:
        _check_same(f"{path}/{item}", wanted[item], trees[item])
    items = {item: ocp.args.StandardRestore(jax.tree.map(_abstract, wanted[item])) for item in targets}
    if iterator is not None:
        items["data"] = ocp.args.JsonRestore()
    if (path / "digest").exists():  # older versions saved none
        items["digest"] = ocp.args.JsonRestore()
    restored = _tried(path, lambda: manager.restore(step, args=ocp.args.Composite(**items)))
    if "digest" in items:
        position = {} if iterator is None else {"data": _json_digest(restored["data"])}
        digests = {item: _digest(restored[item]) for item in targets}
        _check_digests(path, restored["digest"], {"step": step, **digests, **position})
    if "optimizer" in targets and restored["optimizer"]["step"] != step:
        raise InputError(f"{path}: cannot be read as a checkpoint, it is that of step {restored['optimizer']['step']}")
    if iterator is not None:
        _tried(path, lambda: iterator.set_state(restored["data"]))
    return {item: _from_arrays(tree, restored[item]) for item, tree in targets.items()}


def _tried(path: Path, read: Callable[[], T]) -> T:
    """Turns whatever Orbax and the layers below it raise on files they did not expect into one line.

    They leave coroutines behind that, once they are collected, print pages: that is done here, unheard.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        try:
            return read()
        except Exception as error:
            failed = InputError(f"{path}: cannot be read as a checkpoint ({_reason(error)})")
        gc.collect()
        raise failed
    finally:
        sys.unraisablehook = hook


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_digests(path: Path, saved: Any, found: Mapping[str, Any]) -> None:
    for item, value in found.items():
        if not isinstance(saved, dict) or saved.get(item) != value:
            raise InputError(f"{path}: cannot be read as a checkpoint, its {item} is not what was saved")


def _digest(arrays: Mapping[str, jax.Array]) -> str:
    """Of names, types, shapes and bytes: what was saved, however Orbax lays it out in files."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {arrays[name].shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _json_digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


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
