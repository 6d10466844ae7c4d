"""Ends of a training that its user or cluster asks for, and what has the run directory meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import filelock
import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.engine.processes import is_first
from jaxup._signals import Stopped
from jaxup.files import InputError

LOCK = ".lock"
_ONE = 1.0  # seconds in which signals are one: clusters and terminals send them to several processes of a group


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Has a run directory for this process, or all that train together; a killed process has nothing any more.

    Raises:
        InputError: another process has it.
    """
    if not is_first():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(run_dir / LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{run_dir}: another process is training there") from None
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

    def noticed(self, together: bool) -> Stopped | None:
        """Whether the training has to end. Several processes agree on it where they come by `together`."""
        if jax.process_count() > 1 and together:
            self._number = int(np.max(multihost_utils.process_allgather(np.int32(self._number))))
        elif jax.process_count() > 1:
            return None
        return Stopped(self._number) if self._number else None
