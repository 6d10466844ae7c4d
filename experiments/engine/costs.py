"""What a call takes, of time and of memory, the latter in a process of its own, as the largest never falls."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax

from jaxup._heap import use_kept_heap
from jaxup.files import InputError

Result = TypeVar("Result")


def alone(label: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function of a module, of arguments that can be pickled, computed in a new process.

    Raises:
        InputError: the process was ended, as systems do where memory is short; and what the function raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=use_kept_heap) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise InputError(f"{label}: its process was ended, perhaps for want of memory") from error


def highest() -> int:
    """The most bytes that a GPU's or TPU's arrays, or on CPUs all memory of this process, have taken so far."""
    found = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    if found is not None:
        return int(found["peak_bytes_in_use"])
    import resource  # here, because Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def page_faults() -> int:
    """How many pages of memory the system has handed to this process so far; 0 where it does not tell."""
    try:
        import resource  # here, because Windows has none
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes: on CPUs those of all threads, so that other work on the machine counts less."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    run()
    return clock() - start
