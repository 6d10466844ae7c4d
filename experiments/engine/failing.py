"""An error in one of several processes: the others, which would wait for it in vain, are told and end as well."""

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from typing import Any

import jax

from experiments.engine.processes import is_first

_KEY = "jaxup/failed/"
_POLL, _GRACE = 1.0, 5.0  # seconds from one look to the next, and for an error of one's own
_told = threading.Event()  # that a process failed
_LAST = 4.0  # seconds after which the first process leaves, without whose store JAX aborts the others


def watch() -> None:
    """Looks from now on whether another process has failed, and ends this one if it does not end by itself."""
    if _store() is not None:
        threading.Thread(target=_poll, daemon=True).start()
    elif jax.process_count() > 1 and is_first():
        told = "when a process fails, the others are not told, and wait for it until JAX ends them"
        print(f"warning: the store of this version of JAX, {jax.__version__}, is not known: {told}", file=sys.stderr)


def tell(message: str, status: int, error: Exception | None = None) -> None:
    """Tells the other processes of an error; does not return, unless they all have one of their own.

    Args:
        message: of the error.
        status: the exit status, also theirs.
        error: one that is to be printed with its traceback; not if it only follows from that of another process.
    """
    if _store() is None:
        return
    if error is not None:
        time.sleep(2 * _POLL)
        if _told.is_set():
            threading.Event().wait()  # until `_poll` ends this process
        traceback.print_exception(error)
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first process, which has the store, is gone
        _store().key_value_set(f"{_KEY}{jax.process_index()}", f"{status} {message}")
        until = time.monotonic() + _POLL + _GRACE + 1
        while time.monotonic() < until:
            if len(_store().key_value_dir_get(_KEY)) == jax.process_count():
                return
            time.sleep(_POLL / 4)
    _end(status)  # at once: JAX would wait minutes for the others, and they are gone


def _poll() -> None:
    while not (found := sorted(_store().key_value_dir_get(_KEY))):
        time.sleep(_POLL)
    _told.set()
    time.sleep(_GRACE)
    key, value = found[0]
    if int(key.removeprefix(_KEY)) != jax.process_index():
        status, _, message = value.partition(" ")
        print(f"error: process {key.removeprefix(_KEY)} ended: {message}", file=sys.stderr)
        _end(int(status))


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(_LAST)
    os._exit(status)


def _store() -> Any:
    """The keys and values that the processes share; none where there is one process, or JAX keeps them elsewhere."""
    if jax.process_count() == 1:
        return None
    try:  # JAX makes it public nowhere
        client = importlib.import_module("jax._src.distributed").global_state.client
    except (ImportError, AttributeError):
        return None
    return client if hasattr(client, "key_value_set") and hasattr(client, "key_value_dir_get") else None
