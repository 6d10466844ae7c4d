"""From examples to batches, of which each process reads its own rows: the one place where data meet processes.

Batch number k holds the examples k B ... k B + B - 1, whatever the number of processes: with P of them, process p reads
the rows p B / P ... (p + 1) B / P - 1. The position is the number of examples that all of them have read together, so
that a run goes on from there with any other number of processes.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grain
import jax

from experiments.engine.samples import listed, noted, reason
from jaxup._checks import check_int
from jaxup.files import InputError

Batch = TypeVar("Batch")


def batched(
    examples: grain.MapDataset,
    batch_size: int,
    *,
    threads: int = 2,
    ahead: int = 4,
    name: Callable[[Any], str] | None = None,
) -> grain.IterDataset:
    """The batches of a dataset of examples that repeats without end, or the rows of them that this process reads.

    The state of its iterators is {"examples": n}, the same in all processes: what example number i looks like may
    depend on i alone.

    Args:
        examples: pytrees of arrays or numbers, by their number.
        batch_size: examples in a batch of all processes together.
        threads: how many read ahead, 0: none. Two hide the reading of files.
        ahead: how many batches are ready at most: few, because one of 256 x 256 crops is megabytes.
        name: what an example is called where something is wrong with it; none: by the samples that are read for it, if
            their source is `Named`, or by its number.

    Raises:
        ValueError: a batch size below 1, or (InputError) one that the processes cannot share equally.
    """
    check_int("batch_size", batch_size)
    index, count = jax.process_index(), jax.process_count()
    if batch_size % count:
        raise InputError(f"batch_size: expected a multiple of the {count} processes, got {batch_size}")
    share = batch_size // count
    rows = range(index * share, (index + 1) * share)
    own = _Rows(examples, rows, batch_size, name)
    batches = own.batch(share, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return _Counted(batches.to_iter_dataset(options), batch_size, own.names)


class _Rows(grain.MapDataset[Any]):
    """Some rows of each batch, one after the other."""

    def __init__(
        self, parent: grain.MapDataset, rows: Sequence[int], batch_size: int, name: Callable[[Any], str] | None
    ) -> None:
        super().__init__(parent)
        self._rows, self._batch_size, self._name = rows, batch_size, name

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        number = batch * self._batch_size + self._rows[row]
        with noted() as names:
            try:
                return self._parent[number]
            except InputError:  # names what it is about
                raise
            except Exception as error:
                of = f" ({listed(names)})" if names else ""
                raise InputError(f"example {number}{of}: {reason(error)}") from error

    def names(self, batch: int) -> list[str]:
        """The samples of a batch, or the numbers of its examples where these have none; they are read again."""
        found = []
        for row in self._rows:
            number = batch * self._batch_size + row
            with noted() as names:
                example = self._parent[number]
            found += [self._name(example)] if self._name else names or [f"example {number}"]
        return found


class _Counted(grain.IterDataset[Batch]):
    """Batches whose position is a number of examples."""

    def __init__(
        self, parent: grain.IterDataset[Batch], batch_size: int, names: Callable[[int], list[str]] = lambda batch: []
    ) -> None:
        super().__init__(parent)
        self._batch_size = batch_size
        self.names = names
        """What was read for a batch of this process, by its number from 0 on."""

    def __iter__(self) -> grain.DatasetIterator[Batch]:
        return _Counter(iter(self._parent), self._batch_size)


class _Counter(grain.DatasetIterator[Batch]):
    def __init__(self, parent: grain.DatasetIterator[Batch], batch_size: int) -> None:
        super().__init__(parent)
        self._batch_size = batch_size

    def __next__(self) -> Batch:
        return next(self._parent)

    def get_state(self) -> dict[str, Any]:
        return {"examples": self._parent.get_state()["next_index"] * self._batch_size}

    def set_state(self, state: dict[str, Any]) -> None:
        if "next_index" not in state:  # checkpoints of older versions count batches
            batches, rest = divmod(state["examples"], self._batch_size)
            if rest:
                raise InputError(f"examples: expected a multiple of {self._batch_size}, got {state['examples']}")
            state = {"next_index": batches}
        self._parent.set_state(state)
