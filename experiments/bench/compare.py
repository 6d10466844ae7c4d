"""Operators at named sizes, alone or in turns with their plain forms in PyTorch."""

import importlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.cases import OPERATORS, SHAPES, Job, moved
from experiments.bench.measuring import (
    Machine,
    Times,
    circumstances,
    faster,
    in_turns,
    machine,
    peak,
    pytorch,
    run_on,
    scratch,
    spread,
    tell,
)
from experiments.engine.costs import alone, seconds
from experiments.engine.report import check_out, markdown_table, publish
from jaxup.files import InputError

_TYPES = ("float32", "bfloat16")
# By how much of the largest entry float32 results may differ from PyTorch's, and how many entries by more: where a
# derivative jumps, as at pixels that are sampled, rounding decides its side. Two of 67 million ReLUs may change all
# pixels that they see: then the norm of the difference has to be that small.
_AGREES, _KINKS = 2e-3, 1e-4

Run = Callable[[], Any]
Options = tuple[Machine, int, float]  # what the machine can do, repeats, and GiB


def compare(
    *,
    cases: tuple[str, ...] = ("fpn",),
    only: tuple[str, ...] = (),
    against: Literal["nothing", "torch"] = "nothing",
    types: tuple[str, ...] = ("float32",),
    repeats: int = 9,
    cores: int = 0,
    memory: float = 4.0,
    out: Path | None = None,
) -> None:
    """Measure operators at named sizes, forward and with gradients, alone or in turns with PyTorch.

    On CPUs, times are CPU seconds of all threads; the ratios are of medians, "elapsed" of the time that passed. Each
    operator has a process of its own.

    Args:
        cases: fpn (64 to 128, C 256), head (128 to 512, C 256), matting (512 to 1024, C 32), vit (28 to 448, C 384),
            depth (640 x 480, 8x), 4k (3840 x 2160, 8x, C 64); tiny.
        only: operators; none: all.
        against: torch: our own plain forms in PyTorch, whose results must agree.
        types: float32, bfloat16.
        repeats: timed runs of each function, taken in turns.
        cores: on which this process and its threads run, where the system can say so; 0: as it is.
        memory: GiB; what moves more than a quarter of it is left out, and said so.
        out: directory for table.md and results.json, which must not exist yet.
    """
    for name, given, known in (("cases", cases, SHAPES), ("only", only, OPERATORS), ("types", types, _TYPES)):
        unknown = [word for word in given if word not in known]
        if unknown:
            raise InputError(f"{name}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    if repeats < 1:
        raise InputError(f"repeats: expected a number above 0, got {repeats}")
    check_out(out)
    forms = _forms(against)
    if cores:
        run_on(cores)
    able, about = machine(), circumstances()
    if forms:
        about["torch"] = forms.torch.__version__
    rows: list[dict[str, Any]] = []
    for case, name, dtype in itertools.product(cases, only or OPERATORS, types):
        both = [_Row(case, name, dtype, gradients) for gradients in (False, True)]
        rows += _rows(both, against, (able, repeats, memory))
    head = f"copy {able.bytes_per_second / 1e9:.1f} GB/s, matrices {able.multiply_adds_per_second / 1e9:.0f} GMAC/s"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    results = about | {"machine": able._asdict(), "rows": rows}
    publish(out, results, f"{head}; {about}\n\n{markdown_table(rows, columns, digits=3)}")


def _forms(against: str) -> Any:
    if against != "torch":
        return None
    pytorch()
    return importlib.import_module("experiments.bench.torch_forms")


class _Row(NamedTuple):
    case: str
    operator: str
    dtype: str
    gradients: bool

    @property
    def about(self) -> dict[str, str]:
        """In words."""
        which = "gradients" if self.gradients else "forward"
        return {"case": self.case, "operator": self.operator, "type": self.dtype, "pass": which}


def _rows(wanted: Sequence[_Row], against: str, options: Options) -> list[dict[str, Any]]:
    """In one process; where that was ended, in one for each, and then without PyTorch, whose forms need much memory."""
    try:
        found = alone(" ".join(wanted[0].about.values()), _measured, wanted, against, options)
    except InputError as error:
        if len(wanted) > 1:
            return [row for one in wanted for row in _rows([one], against, options)]
        print(error, flush=True)
        return [] if against == "nothing" else _rows(wanted, "nothing", options)
    rows = []
    for row, (needed, measures) in zip(wanted, found, strict=True):
        if measures is None:
            print(f"{' '.join(row.about.values())}: left out, moves {needed / 2**30:.1f} GiB", flush=True)
        else:
            rows.append(row.about | measures)
            tell(rows[-1])
    return rows


def _measured(wanted: Sequence[_Row], against: str, options: Options) -> list[tuple[int, dict[str, Any] | None]]:
    """How many bytes have to move, and the measures unless that is too many."""
    able, repeats, memory = options
    forms = _forms(against)
    job, found = OPERATORS[wanted[0].operator](SHAPES[wanted[0].case]), []
    for row in wanted:
        needed = moved(job, row.dtype, row.gradients)
        little = 4 * needed <= memory * 2**30
        found.append((needed, measure(job, row.dtype, row.gradients, forms, able, repeats) if little else None))
    return found


def measure(job: Job, dtype: str, gradients: bool, forms: Any, able: Machine, repeats: int) -> dict[str, Any]:
    """One row: times, memory, shares of what the machine can do, and the ratio to PyTorch if there are `forms`."""
    run, compiled, compile_seconds = _ours(job, dtype, gradients)
    runs = [run]
    theirs = _theirs(job, dtype, gradients, forms) if forms else None
    if theirs is not None:
        runs.append(theirs)
        if dtype == "float32":
            _check_agreement(run(), theirs(), len(job.images))
    times = in_turns(runs, repeats)
    taken = float(np.median(times[0].taken))
    row = {"ms": 1000 * taken, "spread": spread(times[0].taken)}
    if forms:
        other = times[1] if theirs else Times(np.array([np.nan]), np.array([np.nan]))
        row |= {"torch ms": 1000 * float(np.median(other.taken)), "torch spread": spread(other.taken)}
        row["torch / jaxup"], row["elapsed"] = faster(times[0], other)
    row |= {"compile s": compile_seconds, "scratch MiB": scratch(compiled) / 2**20, "peak MiB": peak(compiled) / 2**20}
    row["scratch / arrays"] = scratch(compiled) / (peak(compiled) - scratch(compiled))
    return row | able.share(taken, moved(job, dtype, gradients), job.multiply_adds * (2 if gradients else 1))


def _ours(job: Job, dtype: str, gradients: bool) -> tuple[Run, jax.stages.Compiled, float]:
    inputs = (*(jnp.asarray(x, dtype) for x in job.images), *jax.tree.map(jnp.asarray, job.others))

    def forward(*arrays: Any) -> jax.Array:
        return job.run(*arrays, **job.options)

    def pulled(ct: jax.Array, *arrays: Any) -> Any:
        return jax.vjp(forward, *arrays)[1](ct)

    function: Callable[..., Any] = pulled if gradients else forward
    if gradients:
        inputs = jnp.ones_like(jax.eval_shape(forward, *inputs)), *inputs
    found: list[jax.stages.Compiled] = []

    def compile_it() -> None:
        found.append(jax.jit(function).lower(*inputs).compile())

    taken = seconds(compile_it)
    return lambda: jax.block_until_ready(found[0](*inputs)), found[0], taken


def _theirs(job: Job, dtype: str, gradients: bool, forms: Any) -> Run | None:
    """None where PyTorch has no such operation for this type."""
    torch = forms.torch

    def tensor(x: np.ndarray) -> Any:
        return torch.from_numpy(np.array(x)).requires_grad_(gradients)

    images = [
        torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).to(getattr(torch, dtype)).contiguous() for x in job.images
    ]
    images = [x.requires_grad_(gradients) for x in images]
    others = jax.tree.map(tensor, job.others)
    form, leaves = getattr(forms, job.form), [*images, *jax.tree.leaves(others)]

    def forward() -> Any:
        with torch.no_grad():
            return form(*images, *others, **job.options)

    def pulled() -> Any:
        out = form(*images, *others, **job.options)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    run = pulled if gradients else forward
    try:
        run()
    except (NotImplementedError, RuntimeError):
        if dtype == "float32":
            raise
        return None
    return run


def _check_agreement(ours: Any, theirs: Any, images: int) -> None:
    """Outputs, and gradients of images, are NCHW there."""
    single = isinstance(ours, jax.Array)
    pairs = zip([ours] if single else jax.tree.leaves(ours), [theirs] if single else theirs, strict=True)
    for place, (mine, other) in enumerate(pairs):
        array = other.detach().numpy()
        array = array.transpose(0, 2, 3, 1) if place < images else array
        difference, largest = np.abs(mine - array), float(np.abs(array).max())
        near = np.mean(difference <= _AGREES * max(largest, 1e-6)) >= 1 - _KINKS
        if not near and not np.linalg.norm(difference) <= _AGREES * np.linalg.norm(array):
            raise RuntimeError(f"result {place} and PyTorch's differ by up to {difference.max()} of {largest}")
