"""What sensors give to solvers: holes, low resolution with levels of confidence, and samples here and there."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.data import HELD_OUT_SEED, RGBD, PairFolder, Scenes, Source, crop_to_multiple, data_dir
from experiments.engine.figures import Panel, panel_figure
from experiments.engine.report import leaves_results, markdown_table, publish
from jaxup._checks import check_choice, check_int
from jaxup.cli.depth import upsample_depth
from jaxup.cli.methods import CLASSICAL, make_method
from jaxup.files import InputError

SOLVERS = tuple(name for name, method in CLASSICAL.items() if method.solver)
_MULTIPLE = 15  # of 7.5
_BLOCK, _HIDDEN = 15, 0.1  # pixels, and the part of such blocks whose depth is hidden
_ROWS, _COLUMNS = 8, 5  # of a lidar: every eighth line, and there every fifth pixel
_SURE = 0.05  # relative difference of neighbours from which a phone is not sure


class Given(NamedTuple):
    """What a sensor gives of a depth map."""

    depth: np.ndarray
    """[h, w], NaN where nothing was measured."""
    confidence: np.ndarray | None
    """[h, w] in 0 .. 1."""
    scored: np.ndarray
    """bool [H, W], where what was measured is compared with a result."""


@dataclass(frozen=True)
class SensorsConfig:
    """Which pairs and solvers."""

    source: Literal["scenes", "pairs"] = "scenes"
    """Generated scenes with holes, or a folder of pairs, as `data.PairFolder` reads it, with zeros where a sensor has
    measured nothing."""
    data_dir: Path | None = None
    """The folder. None: the environment variable JAXUP_DATA."""
    methods: tuple[str, ...] = SOLVERS
    """Some of the solvers of `jaxup upsample`."""
    window: int = 480
    """Height and width of the middle part that is seen, at most."""
    scenes: int = 2
    """Number of generated scenes."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a figure per method to `out`."""


@leaves_results
def sensors(config: SensorsConfig) -> None:
    """Complete depth with holes, that of phones at 7.5x with confidence, and sparse samples: RMSE where measured."""
    _check(config)
    source = _open(config)
    samples = [_middle(source[index], config.window) for index in range(len(source))]
    rows, results = [], {}
    for name in config.methods:
        errors, panels = {}, []
        for sample, (kind, sensor) in product(samples, SENSORS.items()):
            given = sensor(np.where(sample.valid, sample.depth, np.nan)[..., 0].astype(np.float64))
            result = _complete(name, given, sample)
            off = np.abs(result - sample.depth[..., 0])
            error = errors[f"{sample.name}: {kind}"] = float(np.sqrt(np.mean(off[given.scored] ** 2)))
            panels.append(_panels(sample, given, result, off, f"{kind}, RMSE {error:.4g} {source.unit}"))
        rows.append({"method": name, **errors})
        results[name] = errors
        if config.pictures and config.out is not None:
            panel_figure(config.out / f"{name}.png", panels, side=2.6, title=name)
    text = f"RMSE in {source.unit} of what was measured and not given (phone: of all that was measured)"
    publish(config.out, {"unit": source.unit, "images": results}, f"{text}\n\n{markdown_table(rows)}")


def _check(config: SensorsConfig) -> None:
    check_int("window", config.window)
    check_int("scenes", config.scenes)
    for name in config.methods:
        check_choice("methods", name, SOLVERS)
    for name in ("data_dir",) if config.source == "scenes" else ("scenes",):
        if getattr(config, name) != getattr(SensorsConfig, name):
            raise InputError(f"{name}: has no effect with the source {config.source}")
    if config.window < _MULTIPLE:
        raise InputError(f"window: expected at least {_MULTIPLE}, got {config.window}")


def _open(config: SensorsConfig) -> Source:
    if config.source == "pairs":
        return PairFolder(data_dir(config.data_dir))
    return _Holes(Scenes(config.scenes, 120, HELD_OUT_SEED))


class _Holes:
    """Generated scenes; behind each step of the depth, and in a disc, nothing was measured."""

    def __init__(self, scenes: Scenes):
        self.scenes, self.unit = scenes, scenes.unit

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> RGBD:
        sample = self.scenes[index]
        depth = sample.depth[..., 0]
        behind = np.abs(depth - np.roll(depth, 3, axis=1)) > 0.1 * np.ptp(depth)
        y, x = np.indices(depth.shape)
        centre = np.random.default_rng(index).uniform(0.2, 0.8, 2) * depth.shape
        disc = np.hypot(y - centre[0], x - centre[1]) < 0.1 * depth.shape[0]
        return sample._replace(valid=sample.valid & ~(behind | disc)[..., None])


def _middle(sample: RGBD, window: int) -> RGBD:
    starts = [max(0, (length - window) // 2) for length in sample.depth.shape[:2]]
    cut = sample.cut(*(slice(start, start + window) for start in starts))
    if not cut.valid.any():
        raise InputError(f"{sample.name}: nothing was measured in the middle")
    return crop_to_multiple(cut, _MULTIPLE)


def holes(depth: np.ndarray) -> Given:
    """All but what a sensor has not measured, and some blocks that are hidden to be compared."""
    blocks = [-(-n // _BLOCK) for n in depth.shape]
    hidden = np.random.default_rng(0).random(blocks) < _HIDDEN
    hidden = hidden.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[: depth.shape[0], : depth.shape[1]]
    return Given(np.where(hidden, np.nan, depth), None, hidden & np.isfinite(depth))


def phone(depth: np.ndarray) -> Given:
    """The pixel in the middle of each cell of 7.5 x 7.5, with three levels of confidence, as phones give them.

    0 where nothing was measured, 1/2 beside that and at steps of more than 5 %, else 1.
    """
    rows, columns = ((2 * np.arange(n * 2 // _MULTIPLE) + 1) * _MULTIPLE // 4 for n in depth.shape)
    low = depth[np.ix_(rows, columns)]
    padded = np.pad(low, 1, mode="edge")
    near = np.stack([padded[y : y + low.shape[0], x : x + low.shape[1]] for y in range(3) for x in range(3)])
    unsure = ~np.isfinite(near).all(0) | (np.abs(near - low) > _SURE * np.abs(low)).any(0)
    confidence = np.where(np.isfinite(low), np.where(unsure, 0.5, 1.0), 0.0)
    return Given(low, confidence, np.isfinite(depth))


def lidar(depth: np.ndarray) -> Given:
    """Every fifth pixel of every eighth line, a fortieth of all."""
    y, x = np.indices(depth.shape)
    given = (y % _ROWS == _ROWS // 2) & ((x + y // _ROWS) % _COLUMNS == 0)
    return Given(np.where(given, depth, np.nan), None, np.isfinite(depth) & ~given)


SENSORS: dict[str, Callable[[np.ndarray], Given]] = {"holes": holes, "phone, 7.5x": phone, "lidar": lidar}


def _complete(name: str, given: Given, sample: RGBD) -> np.ndarray:
    guide = np.rint(sample.guide * 255).astype(np.uint8)
    return upsample_depth(
        given.depth,
        guide,
        make_method(name, None),
        invalid=np.nan,
        confidence=given.confidence,
        fill=True,
        warn=lambda line: print(f"{sample.name}: {line}", flush=True),
    )


def _panels(sample: RGBD, given: Given, result: np.ndarray, off: np.ndarray, title: str) -> list[Panel]:
    known = sample.depth[sample.valid]
    low, high = float(known.min()), float(known.max())
    most = float(np.percentile(off[given.scored], 99)) or 1.0
    shown = np.where(np.isfinite(given.depth), given.depth, low)
    pictures = [Panel(sample.guide, title), Panel(shown, "given", (low, high)), Panel(result, "completed", (low, high))]
    return [*pictures, Panel(np.where(given.scored, off, 0), f"|error|, white: {most:.3g}", (0, most))]
