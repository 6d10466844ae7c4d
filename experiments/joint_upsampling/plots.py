"""Error against time and against parameters, from stored results (Kim et al., Fig. 1; Kundu et al., Fig. 5)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from experiments.engine.figures import save_figure
from experiments.engine.report import leaves_results
from experiments.joint_upsampling.paper import DEPTH, SCALES, SECONDS
from experiments.joint_upsampling.training import Protocol
from jaxup.files import InputError

# Of a name beside its point, the nearest first: right or left of it, above or below, or further up or down.
_PLACES: list[dict[str, Any]] = [
    {"xytext": (across * (5 if abs(up) < 8 else 0), up), "ha": {1: "left", -1: "right", 0: "center"}[across]}
    for up in (4, -4, 9, -9, 16, -16, 23, -23)
    for across in ((1, -1) if abs(up) < 8 else (0, 1, -1))
]

Table = dict[str, dict[str, float]]  # method -> scale ("8x") -> RMSE


@dataclass(frozen=True)
class PlotsConfig:
    """Which results are drawn."""

    results: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """A directory that evaluate has written, with --seconds for Fig. 1; may be given several times, for networks of
    one scale each: a method is taken from the first that has it at a scale."""
    protocol: Protocol = "grid"
    """Of results of several."""
    out: Path = Path("runs/joint-upsampling-plots")
    """Directory for time.png and parameters.png, which must not exist yet."""


@leaves_results
def plots(config: PlotsConfig) -> None:
    """Draw the error of each method against its seconds, and that of each network against its parameters."""
    if not config.results:
        raise InputError("results: expected at least one directory")
    found = [_read(path, config.protocol) for path in config.results]
    if len({result["unit"] for result in found}) > 1:
        raise InputError("results: expected errors in one unit, got " + ", ".join(r["unit"] for r in found))
    mean: Table = {}
    for result in found:
        for method, row in result["mean"].items():
            mean[method] = row | mean.get(method, {})
    drawn = []
    for name, label, numbers in (
        ("time", "CPU seconds for 640 x 480", {k: v for r in found for k, v in r.get("seconds", {}).items()}),
        ("parameters", "parameters", {k: v for r in found for k, v in r.get("parameters", {}).items()}),
    ):
        if numbers:
            paper = _paper_seconds() if name == "time" else {}
            _scatter(config.out / f"{name}.png", mean, numbers, label, found[0]["unit"], paper)
            drawn.append(f"{name}.png")
    if not drawn:
        raise InputError("results: neither seconds nor parameters in them: evaluate with --seconds or a network")
    print(f"figures: {', '.join(str(config.out / name) for name in drawn)}")


def _read(path: Path, protocol: str) -> dict[str, Any]:
    """One protocol of stored results."""
    try:
        stored = json.loads((path / "results.json").read_text())
        results = stored.get(protocol, stored)
        numbers = [results["mean"], results.get("seconds", {}), results.get("parameters", {})]
        if not all(isinstance(part, dict) for part in (*numbers, *results["mean"].values())):
            raise TypeError
        str(results["unit"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected results of evaluate with the protocol {protocol}") from error
    return dict(results)


def _paper_seconds() -> dict[str, dict[str, tuple[float, float]]]:
    """Seconds and RMSE on NYU Depth v2, scale by scale: what the paper's Fig. 1 shows of 8x."""
    rows = {name: values for table in DEPTH.values() for name, values in table["nyu"].items() if name in SECONDS}
    return {
        f"{scale}x": {name: (SECONDS[name], values[i]) for name, values in rows.items()}
        for i, scale in enumerate(SCALES)
    }


def _scatter(
    path: Path,
    mean: Table,
    numbers: Mapping[str, float],
    label: str,
    unit: str,
    paper: Mapping[str, Mapping[str, tuple[float, float]]],
) -> None:
    """A column for each scale; below ours the paper's, if there are any."""
    scales = sorted({scale for row in mean.values() for scale in row}, key=lambda scale: int(scale.rstrip("x")))
    ours = {
        scale: {name: (numbers[name], row[scale]) for name, row in mean.items() if scale in row and name in numbers}
        for scale in scales
    }
    rows = [(f"RMSE [{unit}]", ours)] + ([("RMSE [cm], Kim et al., Tables 2 and 3", paper)] if paper else [])
    figure = Figure(figsize=(4.2 * len(scales), 3.4 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(scales), squeeze=False)
    for line, (name, points) in zip(grid, rows, strict=True):
        for axis, scale in zip(line, scales, strict=True):
            axis.set_xscale("log")
            axis.set_title(scale, fontsize=9)
            axis.set_xlabel(label, fontsize=8)
            axis.set_ylabel(name, fontsize=8)
            axis.margins(0.25, 0.12)
            axis.grid(alpha=0.3)
            for n, (x, y) in enumerate(points.get(scale, {}).values()):
                axis.scatter([x], [y], s=18, color=f"C{n}")
    figure.draw_without_rendering()  # from here on it is known where things are
    for line, (_, points) in zip(grid, rows, strict=True):
        for axis, scale in zip(line, scales, strict=True):
            _name(axis, points.get(scale, {}))
    save_figure(figure, path)


def _name(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names in the colours of their points, each at the first of its places that is inside and free."""
    corners = [axis.transData.transform(point) - 3 for point in points.values()]
    taken = [Bbox.from_bounds(x, y, 6, 6) for x, y in corners]
    for n, (method, point) in enumerate(points.items()):
        style: dict[str, Any] = dict(textcoords="offset points", fontsize=7, va="center", color=f"C{n}")
        for place in _PLACES:
            text = axis.annotate(method, point, **style, **place)
            box = text.get_window_extent()
            within = axis.bbox.containsx(box.x0) and axis.bbox.containsx(box.x1)
            within &= axis.bbox.containsy(box.y0) and axis.bbox.containsy(box.y1)
            if within and not box.count_overlaps(taken):
                break
            text.remove()
        else:  # no room anywhere
            axis.annotate(method, point, **style, **_PLACES[0])
        taken.append(box)
