"""Ends of a training that its user or cluster asks for, and what has the run directory meanwhile."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from experiments.engine.processes import first_alone, shardings
from jaxup._signals import Stopped
from jaxup.files import InputError

LOCK = ".lock"
_BEHIND = 2  # steps after which several processes know of a signal that came to one of them
_ONE = 1.0  # seconds in which signals are one: clusters and terminals send them to several processes of a group


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Has a run directory for this process, or all that train together; a killed process has nothing any more.

    Raises:
        InputError: another process has it.
    """

    def acquire() -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(held(run_dir / LOCK, f"{run_dir}: another process is training there"))

    with ExitStack() as stack:
        first_alone(acquire)
        yield


@contextmanager
def held(path: Path, message: str) -> Iterator[None]:
    """A file that only one process has.

    Raises:
        InputError: with this message: another one has it.
    """
    lock = filelock.FileLock(path, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(message) from None
    try:
        yield
    finally:
        lock.release()


class Signals:
    """SIGTERM and SIGINT during a training: noticed between steps, and at once where nothing is half done.

    The first one counts; a second one, a second later or more, ends the training where it is.
    """

    def __init__(self) -> None:
        self._number = 0
        self._first = 0.0
        self._at_once = False
        self._asked: deque[jax.Array] = deque()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        now = time.monotonic()
        if not self._number:
            self._number, self._first = number, now
        if self._at_once or now - self._first > _ONE:
            raise Stopped(self._number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal end the block; one of several processes waits for the others instead, see `noticed`."""
        self._at_once = jax.process_count() == 1
        try:
            if self._at_once and self._number:
                raise Stopped(self._number)
            yield
        finally:
            self._at_once = False

    def noticed(self, last: bool) -> Stopped | None:
        """Whether the training has to end after this step, the last one or not.

        Several processes call it after each step, and agree: the devices tell each other, beside the steps that are
        queued, and what they said is read some steps later, or after the last one.
        """
        if jax.process_count() == 1:
            return Stopped(self._number) if self._number else None
        replicated, split = shardings()
        mine = np.full(jax.local_device_count(), self._number, np.int32)
        self._asked.append(_most(replicated)(jax.make_array_from_process_local_data(split, mine)))
        found = 0
        while len(self._asked) > (0 if last else _BEHIND):
            found = max(found, int(self._asked.popleft()))
        return Stopped(found) if found else None


@cache
def _most(replicated: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.max, out_shardings=replicated)
