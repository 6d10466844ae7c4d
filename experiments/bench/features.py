"""Features of a vision transformer at the size of the image: time and memory of each upsampler, each by itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.bench import measuring
from experiments.engine.costs import alone, highest, seconds
from experiments.engine.report import check_out, markdown_table, publish
from jaxup._checks import check_int
from jaxup.cli.feature_networks import PLAIN
from jaxup.files import InputError
from jaxup.interop.load import FEATURE_UPSAMPLERS

_NAMES = (*PLAIN, *FEATURE_UPSAMPLERS)
_COMPILED, _PEAK = "compiled, GiB", "peak, GiB"


def features(
    *,
    image: int = 448,
    cells: int = 32,
    channels: int = 384,
    only: tuple[str, ...] = (),
    bound: float = 0.0,
    run: bool = True,
    out: Path | None = None,
) -> None:
    """Measure all upsamplers of a vision transformer's features, with random weights, up to the size of the image.

    On CPUs, seconds are those of all threads, and the peak is the largest resident memory of a process that does
    nothing else, compiling included; elsewhere it is the largest memory of the device.

    Args:
        image: height and width, in pixels, a multiple of cells.
        cells: height and width of the features.
        channels: of the features.
        only: upsamplers; none: all.
        bound: GiB that the peak, or else what was compiled, must stay below: exit status 1 where it does not; 0: none.
        run: or compile only.
        out: directory for table.md and results.json, which must not exist yet.
    """
    for name, value in (("image", image), ("cells", cells), ("channels", channels)):
        check_int(name, value)
    unknown = [name for name in only if name not in _NAMES]
    if image % cells or unknown:
        raise InputError(f"features: expected an image of whole cells, and {', '.join(_NAMES)}, got {image}, {only}")
    check_out(out)
    about = measuring.circumstances()
    rows = []
    for name in only or _NAMES:
        row = alone(name, measured, name, image, cells, channels, run)
        measuring.tell(row)
        rows.append(row)
    title = f"{cells} x {cells} to {image} x {image}, C {channels}, float32; {about}"
    publish(out, about | {"rows": rows}, f"{title}\n\n{markdown_table(rows, digits=3)}")
    measuring.stay_below(bound, {row["upsampler"]: row.get(_PEAK, row[_COMPILED]) for row in rows})


def measured(name: str, image: int, cells: int, channels: int, run: bool) -> dict[str, Any]:
    """One row, of this process."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((1, cells, cells, channels), np.float32))
    guide = jnp.asarray(random.random((1, image, image, 3), np.float32))
    call, state = _built(name, channels, image, cells)
    compiled: list[Any] = []
    to_compile = seconds(lambda: compiled.append(jax.jit(call).lower(state, x, guide).compile()))
    row = {"upsampler": name, _COMPILED: measuring.peak(compiled[0]) / 2**30, "compile s": to_compile}
    if run:
        row["s"] = seconds(lambda: jax.block_until_ready(compiled[0](state, x, guide)))
        row[_PEAK] = highest() / 2**30
    return row


def _built(name: str, channels: int, image: int, cells: int) -> tuple[Any, Any]:
    if name in PLAIN:
        return lambda state, x, guide: PLAIN[name](x, guide, (image, image)), ()
    options: dict[str, Any] = {} if name in ("anyup", "naf") else {"in_features": channels}
    if name == "uplift":
        options["patch_size"] = image // cells
    make: Any = FEATURE_UPSAMPLERS[name]
    module = make(**options, rngs=nnx.Rngs(0))
    module.eval()
    graph, state = nnx.split(module)

    def call(state: Any, x: jax.Array, guide: jax.Array) -> jax.Array:
        merged: Any = nnx.merge(graph, state)
        found: jax.Array = merged(x, guide, size=(image, image))
        return found

    return call, state
