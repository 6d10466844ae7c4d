"""Signals that end a process: with the exit status that says so, and nothing left half done."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_LAST = 10.0  # seconds that threads have to end

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """A signal asked this process to end: 128 and its number is the exit status, as shells have it."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)
        self.name = signal.Signals(number).name


def stop(number: int, frame: FrameType | None) -> None:
    """A handler that ends the process as an exception, so that what is half done is cleared up."""
    raise Stopped(number)


@contextmanager
def handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Let a function handle signals inside the block, but those that are ignored, as `nohup` has them.

    Outside of the main thread nothing happens, since Python has signals nowhere else.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def leave(status: int) -> NoReturn:
    """End a process that was asked to, whatever its threads do: one may read from a disk that hangs."""
    if status in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        sys.stdout.flush()
        sys.stderr.flush()
        last = threading.Timer(_LAST, os._exit, [status])
        last.daemon = True
        last.start()
    sys.exit(status)
