"""Operators on large images: time per pixel and memory, each by itself."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import measuring
from experiments.bench.cases import OPERATORS, Shape
from experiments.engine.costs import alone, highest, seconds
from experiments.engine.report import check_out, markdown_table, publish
from jaxup._checks import check_int
from jaxup._heap import give_back
from jaxup.files import InputError

GUIDED = ("reassemble", "attention", "similarity", "fine_neighbours", "fade", "joint_bilateral", "guided_filter")
_PEAK = "peak, GiB"


def large(
    *,
    megapixels: tuple[float, ...] = (0.4, 16.0),
    channels: int = 4,
    scale: int = 8,
    only: tuple[str, ...] = (),
    repeats: int = 3,
    bound: float = 0.0,
    out: Path | None = None,
) -> None:
    """Measure operators on large images of 16 to 9, forward, float32: time per pixel and memory.

    On CPUs, seconds are those of all threads, and the peak is the largest resident memory of a process that does
    nothing else, its inputs included, and gives free memory back after its first call; elsewhere it is the largest
    memory of the device.

    Args:
        megapixels: sizes of the output; times are compared with the first one's.
        channels: of the map.
        scale: upsampling factor.
        only: operators; none: those that a guide, or weights of the size of the output, lead.
        repeats: timed runs, of which the fastest counts.
        bound: GiB that all peaks must stay below: exit status 1 where they do not; 0: none.
        out: directory for table.md and results.json, which must not exist yet.
    """
    for name, value in (("channels", channels), ("scale", scale), ("repeats", repeats)):
        check_int(name, value)
    if unknown := [name for name in only if name not in OPERATORS]:
        raise InputError(f"only: expected some of {', '.join(OPERATORS)}, got {', '.join(unknown)}")
    if not megapixels or min(megapixels) * 1e6 < 256 * scale**2:
        raise InputError(f"megapixels: expected at least {256 * scale**2 / 1e6:g}, got {megapixels}")
    check_out(out)
    rows = []
    for name in only or GUIDED:
        first = math.nan
        for size in megapixels:
            row = alone(name, measured, name, shape_of(size, scale, channels), repeats)
            first = row["ns per pixel"] if math.isnan(first) else first
            rows.append(row | {"to the first": row["ns per pixel"] / first})
            measuring.tell(rows[-1])
    about = measuring.circumstances()
    title = f"{scale}x, C {channels}, float32, forward; {about}"
    publish(out, about | {"rows": rows}, f"{title}\n\n{markdown_table(rows, digits=3)}")
    measuring.stay_below(bound, {f"{row['operator']} at {row['megapixels']:.3g}": row[_PEAK] for row in rows})


def shape_of(megapixels: float, scale: int, channels: int) -> Shape:
    """Of an image of about so many pixels, 16 to 9.

    Example:
        >>> shape_of(8.2944, 8, 64)
        Shape(rows=270, columns=480, scale=8, channels=64)
    """
    rows = round(math.sqrt(megapixels * 1e6 * 9 / 16) / scale)
    return Shape(rows, round(rows * 16 / 9), scale, channels)


def measured(name: str, shape: Shape, repeats: int) -> dict[str, Any]:
    """One row, of this process."""
    job = OPERATORS[name](shape)
    options, run = dict(job.options), job.run
    images = (jax.device_put(x, may_alias=True) for x in job.images)  # in memory once
    inputs = (*images, *jax.tree.map(jnp.asarray, job.others))
    del job
    compiled = jax.jit(lambda *arrays: run(*arrays, **options)).lower(*inputs).compile()

    def call() -> None:
        jax.block_until_ready(compiled(*inputs))

    call()
    give_back()
    taken = min(seconds(call) for _ in range(repeats))
    return {
        "operator": name,
        "megapixels": shape.pixels / 1e6,
        "s": taken,
        "ns per pixel": 1e9 * taken / shape.pixels,
        "compiled, GiB": measuring.peak(compiled) / 2**30,
        _PEAK: highest() / 2**30,
    }
