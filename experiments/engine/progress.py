"""What a run says while it trains: JSON lines in its directory, and a progress bar or plain lines on stderr."""

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.engine.samples import being_read, listed
from jaxup._writing import append_line, write_file

Metrics = dict[str, float]
PATIENCE = 60.0
"""Seconds of waiting for data after which a training says so."""


class TrainingError(RuntimeError):
    """Training cannot go on. The message is one line and names the step."""


class NotFiniteError(TrainingError):
    """A loss or gradient that is not finite, and the step of it."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"step {step}: {what}")
        self.step = step


class MetricsLog:
    """The metrics of a run: kept on the device until a line of `metrics.jsonl` is due.

    Args:
        run_dir: the run directory.
        start: the step that training goes on from. Lines of later steps, which a killed process wrote after
            its last checkpoint, are removed, since those steps will be done again.
        tensorboard: also write `run_dir/tensorboard`.
    """

    def __init__(self, run_dir: Path, start: int, tensorboard: bool = False) -> None:
        self._path = _file(run_dir)
        self._pending: list[Mapping[str, jax.Array | float]] = []
        self._step = start
        self._since = time.perf_counter()
        self._waited = 0.0
        self._done = start
        self._began = math.inf  # of waiting
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        self._board: Any = None
        if jax.process_index() == 0:
            _truncate(self._path, start)
            self._board = summary_writer(run_dir, start) if tensorboard else None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data, and says so after `PATIENCE` seconds of it."""
        began = self._began = time.perf_counter()
        try:
            yield
        finally:
            self._began = math.inf
        self._waited += time.perf_counter() - began

    def _watch(self) -> None:
        said = math.inf
        while not self._closed.wait(PATIENCE / 4):
            began = self._began
            if began != said and time.perf_counter() - began > PATIENCE:
                said, names = began, being_read()
                reading = f", reading {listed(names)}" if names else ""
                warn(f"no data for {PATIENCE:g} seconds after step {self._done}{reading}")

    def add(self, metrics: Mapping[str, jax.Array | float]) -> None:
        """Takes the metrics of one step; blocks while more than two steps are queued on the device."""
        self._pending.append(metrics)
        self._done += 1
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3])

    def write(self, step: int, scores: Metrics) -> Metrics:
        """Writes and returns the means since the line before, and the scores of a validation, if there was one.

        Raises:
            NotFiniteError: the loss or the gradient of a step.
        """
        pending = jax.device_get(self._pending)
        for i, metrics in enumerate(pending, self._step + 1):
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(metrics[name]):
                    raise NotFiniteError(i, f"{name} is {float(metrics[name])}")
        names = sorted(pending[-1], key=lambda name: (name != "loss", name))
        means = {name: math.fsum(float(m[name]) for m in pending) / len(pending) for name in names}
        seconds = time.perf_counter() - self._since
        line = means | {f"validation_{name}": score for name, score in scores.items()}
        line |= {"seconds": round(seconds, 4), "data_wait": round(self._waited / seconds, 4)}
        if jax.process_index() == 0:
            append_line(self._path, json.dumps({"step": step, **line}))
        if self._board is not None:
            for name, value in line.items():
                self._board.add_scalar(name, value, step)
        self._pending, self._step, self._since, self._waited = [], step, time.perf_counter(), 0.0
        return line

    def close(self) -> None:
        """Ends its own thread, and TensorBoard's, after what they have to write."""
        self._closed.set()
        if self._board is not None:
            self._board.close()


def summary_writer(run_dir: Path, start: int) -> Any:
    """TensorBoard's writer of a run that goes on after a step; later ones, written before, are hidden."""
    from tensorboardX import SummaryWriter  # here, because only runs that ask for it need it

    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)


def read_metrics(run_dir: Path) -> list[Metrics]:
    """The lines of `metrics.jsonl`, without a last one that a killed process left unfinished.

    Lines that cannot be read, or are not in the order of steps, are left out with one warning.
    """
    return [metrics for _, metrics in _lines(_file(run_dir))]


def _lines(path: Path, last: float = math.inf) -> list[tuple[bytes, Metrics]]:
    """The lines up to a step as they are and as what they say: of each step one, the first."""
    *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    kept: list[tuple[bytes, Metrics]] = []
    bad = 0
    for line in lines:
        metrics = _parsed(line)
        if metrics is None or (kept and kept[-1][1]["step"] >= metrics["step"]):
            bad += 1
        elif metrics["step"] <= last:
            kept.append((line, metrics))
    if bad:
        warn(f"{path}: {bad} of {len(lines)} lines cannot be read and are left out")
    return kept


def _parsed(line: bytes) -> Metrics | None:
    """Numbers by name, the step among them; None: the line is none of ours."""
    try:
        metrics = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(metrics, dict) or any(type(value) not in (int, float) for value in metrics.values()):
        return None
    return metrics if type(metrics.get("step")) is int and metrics["step"] > 0 and "seconds" in metrics else None


def _truncate(path: Path, step: int) -> None:
    kept = b"".join(line + b"\n" for line, _ in _lines(path, step))
    if not path.exists() or path.read_bytes() != kept:
        write_file(path, kept)


def _file(run_dir: Path) -> Path:
    return run_dir / "metrics.jsonl"


def warn(message: str) -> None:
    """One line on stderr, from one of the processes."""
    if jax.process_index() == 0:
        print(f"warning: {message}", file=sys.stderr, flush=True)


@contextmanager
def progress(start: int, steps: int) -> Iterator[Callable[[int, Metrics | None], None]]:
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
        start: steps done before.
        steps: steps in all.

    Yields:
        `show(step, metrics)`, to be called after every step, with None where there are no new metrics.
    """
    if jax.process_index() != 0:
        yield lambda step, metrics: None
        return
    if start:
        print(f"continuing after step {start} of {steps}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield lambda step, metrics: _print_line(step, steps, metrics)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps, completed=start)

        def show(step: int, metrics: Metrics | None) -> None:
            description = None if metrics is None else f"loss {metrics['loss']:.4g}"
            bar.update(task, completed=step, description=description)

        yield show


def _print_line(step: int, steps: int, metrics: Metrics | None) -> None:
    if metrics is not None:
        print(f"step {step}/{steps}  {_summary(metrics)}", file=sys.stderr, flush=True)


def _summary(metrics: Metrics) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
