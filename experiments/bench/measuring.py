"""Time and memory of functions, in turns with what they are compared with, and what the machine can do."""

import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.engine.config import versions
from experiments.engine.costs import page_faults, seconds
from jaxup.files import InputError

_WARM_UPS, _SETTLED, _PATIENCE = 8, 100, 20.0  # rounds at most; page faults of a round; seconds
_COPIED, _SIDE = 64 << 20, 1024  # bytes that are copied, and rows of the matrices that are multiplied


class Times(NamedTuple):
    """Seconds of several calls."""

    taken: np.ndarray  # on CPUs those of all threads
    elapsed: np.ndarray


def in_turns(runs: Sequence[Callable[[], Any]], repeats: int) -> list[Times]:
    """How long `repeats` calls of each function take, one after the other, after some that do not count.

    These go on until the system hands out no more pages, because a heap that is kept takes a few calls to settle.
    """
    start = time.perf_counter()
    for _ in range(_WARM_UPS):
        before = page_faults()
        for run in runs:
            run()
        if page_faults() - before < _SETTLED or time.perf_counter() - start > _PATIENCE:
            break
    measured = np.array([[_both(run) for run in runs] for _ in range(repeats)])
    return [Times(*times) for times in measured.transpose(1, 2, 0)]


def _both(run: Callable[[], Any]) -> tuple[float, float]:
    start = time.perf_counter()
    return seconds(run), time.perf_counter() - start


def faster(ours: Times, theirs: Times) -> tuple[float, float]:
    """By how much ours is, as ratios of medians; elapsed time counts what threads wait for, and other programs."""
    taken, elapsed = (float(np.median(b) / np.median(a)) for a, b in zip(ours, theirs, strict=True))
    return taken, elapsed


def spread(times: np.ndarray) -> float:
    """Half the distance of the quartiles in parts of the median."""
    low, middle, high = np.percentile(times, [25, 50, 75])
    return float((high - low) / 2 / middle)


def scratch(compiled: jax.stages.Compiled) -> int:
    """Bytes of scratch memory."""
    return _memory(compiled).temp_size_in_bytes


def peak(compiled: jax.stages.Compiled) -> int:
    """Bytes of inputs, outputs and scratch memory."""
    analysis = _memory(compiled)
    return analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes


def _memory(compiled: jax.stages.Compiled) -> Any:
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise InputError(f"bench: the {jax.default_backend()} backend does not tell its memory")
    return analysis


def tell(row: Mapping[str, Any]) -> None:
    """Prints a row as soon as it was measured."""
    print(", ".join(f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)


def stay_below(bound: float, peaks: Mapping[str, float]) -> None:
    """Exit status 1 if there is a bound, and a peak does not stay below it, both in GiB."""
    over = [name for name, peak in peaks.items() if bound and not peak < bound]
    if over:
        print(f"not below {bound:g} GiB: {', '.join(over)}", file=sys.stderr)
        raise SystemExit(1)


class Machine(NamedTuple):
    """What the same clock says of a copy in memory and of a product of matrices."""

    bytes_per_second: float  # read and written
    multiply_adds_per_second: float

    def share(self, taken: float, moved: float, multiply_adds: float) -> dict[str, float]:
        """The parts of both rates that a function reaches, in percent."""
        bandwidth = 100 * moved / self.bytes_per_second / taken
        return {"% of copy": bandwidth, "% of matmul": 100 * multiply_adds / self.multiply_adds_per_second / taken}


def machine(repeats: int = 5) -> Machine:
    """Measured anew: a buffer that is overwritten, so that no page is new, and float32 matrices."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    buffer = [jnp.zeros(_COPIED // 4)]
    matrix = jnp.ones((_SIDE, _SIDE))
    multiply = jax.jit(jnp.matmul)

    def copy() -> None:
        buffer[0] = jax.block_until_ready(add(buffer[0]))

    times = in_turns([copy, lambda: jax.block_until_ready(multiply(matrix, matrix))], repeats)
    copied, multiplied = (float(np.median(each.taken)) for each in times)
    return Machine(2 * _COPIED / copied, _SIDE**3 / multiplied)


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytorch() -> Any:
    """The module, with as many threads as this process may use cores."""
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise InputError("bench: the comparison needs PyTorch, which is not installed") from error
    torch.set_num_threads(available())
    return torch


def run_on(cores: int) -> None:
    """Keep this process to some cores: before JAX starts, which makes a thread for each.

    Programs are compiled anew: one that is read from a cache is divided among the cores of the process that made it.
    """
    if cores < 0 or cores > available() or not hasattr(os, "sched_setaffinity"):
        raise InputError(
            f"cores: expected 1 to {available()}, on a system that can keep a process to them, got {cores}"
        )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    jax.config.update("jax_enable_compilation_cache", False)


def circumstances() -> dict[str, Any]:
    """Hardware, versions, commit and date of a measurement."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    found: dict[str, Any] = versions()
    return found | {
        "processor": _processor(),
        "cores": available(),
        "load": os.getloadavg()[0],
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
