"""Devices and processes that train together: who they are, and what each does."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxup.files import InputError

T = TypeVar("T")
Tree = TypeVar("Tree")

# What JAX itself does not read; of Open MPI from version 5 it finds neither.
_COUNTS = ("JAX_NUM_PROCESSES", "OMPI_COMM_WORLD_SIZE")
_INDICES = ("JAX_PROCESS_ID", "OMPI_COMM_WORLD_RANK")


def join(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Joins the other processes; before anything else that uses JAX.

    Args:
        coordinator: HOST:PORT of process 0; none: JAX_COORDINATOR_ADDRESS.
        count: of the processes; none: JAX_NUM_PROCESSES.
        index: of this one; none: JAX_PROCESS_ID.

    What is missing then is found where Slurm, Open MPI, Kubernetes or a Cloud TPU started the processes.

    Raises:
        InputError: it cannot be found, or does not fit together.
    """
    count = _number(_COUNTS) if count is None else count
    index = _number(_INDICES) if index is None else index
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(f"coordinator: expected HOST:PORT, got {coordinator}")
    if count is not None and index is not None and not 0 <= index < count:
        raise InputError(f"process: expected one from 0 to {count - 1}, got {index}")
    given: dict[str, Any] = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
    try:
        jax.distributed.initialize(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise InputError(
            f"distributed: expected a coordinator, the number of processes and that of this one, or a cluster that JAX "
            f"knows; {error}"
        ) from error


def _number(names: tuple[str, ...]) -> int | None:
    """Of the first variable that is set."""
    for name in names:
        if name in os.environ:
            if not os.environ[name].isdecimal():
                raise InputError(f"{name}: expected a number, got {os.environ[name]!r}")
            return int(os.environ[name])
    return None


def is_first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """Of what all devices have, and of what is split among them along its first axis.

    The devices of a process follow each other, so that its rows of a batch do. Auto axes: XLA places the collectives,
    whatever operations a network is made of.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def spread(batch: Tree, sharding: NamedSharding) -> Tree:
    """A batch over the devices of all processes, each of which has its rows.

    Raises:
        InputError: not as many rows for each device.
    """
    for array in jax.tree.leaves(batch):
        if array.ndim == 0 or array.shape[0] % jax.local_device_count():
            shape = [n * jax.process_count() for n in array.shape[:1]] + list(array.shape[1:])
            raise InputError(
                f"batch: expected a multiple of {jax.device_count()} examples, one share for each device, "
                f"got an array {shape}"
            )
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def shared(batch: Tree, replicated: NamedSharding, split: NamedSharding) -> Tree:
    """A batch that every process has, over all devices: split, where there are as many rows for each."""
    equal = all(array.ndim and array.shape[0] % jax.device_count() == 0 for array in jax.tree.leaves(batch))
    sharding = split if equal else replicated
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__), batch)


def of_this_process(tree: Tree) -> Tree:
    """Arrays that all devices have, as ones of this process alone, which may go on without the others."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def share(count: int) -> range:
    """Which of 0 ... count - 1 this process does."""
    return range(jax.process_index(), count, jax.process_count())


def for_each(count: int, function: Callable[[int], T], *, alone: bool = False) -> list[T]:
    """What a function makes of 0 ... count - 1, shared among the processes, and known to all of them in the end.

    Args:
        count: how many.
        function: gives what JSON can hold.
        alone: each process does everything, because more is wanted of it than what is returned, such as pictures.
    """
    if alone or jax.process_count() == 1:
        return [function(i) for i in range(count)]
    found = exchanged(lambda: [function(i) for i in share(count)])
    return [found[i % len(found)][i // len(found)] for i in range(count)]


def together(action: Callable[[], T]) -> T:
    """Does what may fail in one process, which all of them do at the same point: then it fails in all of them.

    Raises:
        InputError: another process failed, and what it said. The process itself has its own error.
    """
    done: list[T] = []
    exchanged(lambda: done.append(action()))
    return done[0]


def first_alone(action: Callable[[], Any]) -> None:
    """Does something in the first process, for which the others wait; where it fails, it fails in all of them."""
    together(lambda: action() if is_first() else None)


def exchanged(action: Callable[[], Any]) -> list[Any]:
    """What each process makes, as JSON, known to all of them: numbers arrive as they were.

    Raises:
        InputError: as `together`.
    """
    if jax.process_count() == 1:
        return [action()]
    error: Exception | None = None
    try:
        own = {"made": action()}
    except Exception as caught:
        error, own = caught, {"failed": " ".join(str(caught).split()) or type(caught).__name__}
    found = _all_processes(own)
    if error is not None:
        raise error
    for said in (each["failed"] for each in found if "failed" in each):
        raise InputError(said)
    return [each["made"] for each in found]


def summed(action: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Sums of the arrays that each process makes, known to all of them."""
    found = zip(*exchanged(lambda: [array.tolist() for array in action()]), strict=True)
    return [sum(map(np.array, each), start=np.zeros(())) for each in found]


def _all_processes(value: Any) -> list[Any]:
    """What each process has, as JSON."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(text.size)))
    padded = np.pad(text, (0, int(sizes.max()) - text.size))
    texts = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[:size])) for row, size in zip(texts, sizes, strict=True)]
