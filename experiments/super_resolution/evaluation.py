"""Comparison of trained super-resolution networks with bicubic interpolation and the paper: tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.data.photos import embedded, middles, resized
from experiments.data.super_resolution import Pair, Photos, degraded, read_folder
from experiments.engine.config import RunConfig
from experiments.engine.figures import busiest_window, kernel_figure
from experiments.engine.processes import for_each
from experiments.engine.report import leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs, parameters, unique
from experiments.super_resolution.paper import RESULTS, SCALES
from experiments.super_resolution.pictures import draw
from experiments.super_resolution.training import TrainConfig
from jaxup._checks import check_int
from jaxup.files import InputError
from jaxup.metrics import psnr, ssim
from jaxup.models import SuperResolutionNetwork

_LEAST = 11  # pixels that SSIM needs between the borders that do not count


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which photographs."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose best weights join the table; may be given several times. Runs that differ in
    nothing but their seed are averaged."""
    test_dirs: tuple[Path, ...] = ()
    """Folders of photographs, such as those of Set5, Set14 and BSDS100; none: photographs that scikit-image carries."""
    scales: tuple[int, ...] = ()
    """Factors to compare at; none: those of the runs, or 2, 4 and 8 where there is none."""
    images: int | None = None
    """Test on the first ones of each folder only; none: on all."""
    crop: int | None = None
    """Test on the middle of each photograph only, so many pixels wide and high; none: on all of it."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per photograph and scale to `out`: the region where the methods differ most."""


class Entry(NamedTuple):
    """Runs of one configuration."""

    label: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> TrainConfig:
        """Of the first run; the others differ in their seeds."""
        return self.runs[0].config


class Score(NamedTuple):
    """What a method makes of one photograph: PSNR and SSIM of each run."""

    psnr: list[float]
    ssim: list[float]


Compared = Mapping[str, Mapping[str, Score]]  # photograph -> method -> score


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks with bicubic interpolation by PSNR and SSIM, beside the paper's; pictures on request."""
    entries = trained(config.run_dir)
    scales = _scales(config, entries)
    sets: dict[str, Photos] = {folder.name: read_folder(folder) for folder in config.test_dirs}
    sets = sets or {"scikit-image": embedded("test")}
    sets = {name: middles(photographs, config.images, config.crop) for name, photographs in sets.items()}
    _check_sizes(sets, scales)
    rows, images = [], []
    for name, photographs in sets.items():
        for scale in scales:
            folder = config.out if config.pictures else None
            scores = _compared((name, scale), photographs, entries, folder)
            rows += _rows(name, scale, list(scores.values()), entries)
            images += [{"test set": name, "image": k, "scale": scale, **_plain(score)} for k, score in scores.items()]
            if folder is not None:
                _draw_kernels(folder, (name, scale), next(iter(photographs.values())), entries)
    text = "\n".join([markdown_table(rows), "", *map(_footnote, entries)]).rstrip()
    publish(config.out, {"mean": rows, "images": images, "runs": list(map(_footnote, entries))}, text)


def _scales(config: EvaluateConfig, entries: Sequence[Entry]) -> Sequence[int]:
    """The factors to compare at, among them those of all runs."""
    known = sorted({entry.config.network.scale for entry in entries})
    for scale in config.scales:
        check_int("scales", scale)
    if config.scales and not set(known) <= set(config.scales):
        raise InputError(f"scales: expected those of the runs, {known}, among them, got {list(config.scales)}")
    return config.scales or known or SCALES


def _check_sizes(sets: Mapping[str, Photos], scales: Sequence[int]) -> None:
    for scale in scales:
        least = 2 * scale + _LEAST
        for name, rgb in ((name, rgb) for photographs in sets.values() for name, rgb in photographs.items()):
            if min(n - n % scale for n in rgb.shape[:2]) < least:
                size = f"{rgb.shape[1]} x {rgb.shape[0]}"
                raise InputError(f"{name}: {size} pixels, expected at least {least} for {scale}x")


def trained(run_dirs: Sequence[Path]) -> list[Entry]:
    """The networks of training runs by configuration, labelled by upsampler, where that is not enough by directory."""
    groups: dict[TrainConfig, list[Run]] = {}
    for run in load_runs(TrainConfig, run_dirs, best=True):
        seedless = replace(run.config, run=RunConfig(Path(), steps=run.config.run.steps))
        groups.setdefault(seedless, []).append(run)
    labels = [config.label for config in groups]
    scales = [(config.label, config.network.scale) for config in groups]
    names = unique(labels, [runs[0].run_dir for runs in groups.values()], scales)
    return [Entry(name, tuple(runs)) for name, runs in zip(names, groups.values(), strict=True)]


def _compared(test: tuple[str, int], photographs: Photos, entries: Sequence[Entry], pictures: Path | None) -> Compared:
    """Scores on a test set at a scale, whose photographs are shared among processes if no pictures are wanted."""
    (name, scale), named = test, list(photographs.items())

    def scores_of(index: int) -> dict[str, Score]:
        image, rgb = named[index]
        high, made = compare(rgb, scale, entries)
        found = {method: _score(results, high, scale) for method, results in made.items()}
        if pictures is not None:
            shown = {f"{method}, {score.psnr[0]:.2f} dB": made[method][0] for method, score in found.items()}
            draw(pictures / f"{name}_{image}_{scale}x.png", f"{image}, {scale}x", high, shown)
        return found

    each = for_each(len(named), scores_of, alone=pictures is not None)
    return {
        image: {method: Score(*score) for method, score in found.items()}
        for (image, _), found in zip(named, each, strict=True)
    }


def compare(rgb: np.ndarray, scale: int, entries: Sequence[Entry]) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Lower the resolution of a photograph, and enlarge it by bicubic interpolation and by the runs of that scale.

    Returns:
        The photograph's luminance, 0 .. 255, and by method the images of each run, clipped to it.
    """
    low, high = degraded(rgb, scale)
    x = jnp.asarray(low[None, ..., None] / 255, jnp.float32)
    results = {"bicubic": [resized(low.astype(np.float32), high.shape)]}
    for entry in entries:
        if entry.config.network.scale == scale:
            results[entry.label] = [255 * np.asarray(jitted(run.network)(x))[0, ..., 0] for run in entry.runs]
    return high, {method: [np.clip(image, 0, 255) for image in images] for method, images in results.items()}


def _score(images: Sequence[np.ndarray], truth: np.ndarray, border: int) -> Score:
    """The outermost pixels do not count."""

    def inner(image: np.ndarray) -> jax.Array:
        return jnp.asarray(image[None, border:-border, border:-border, None], jnp.float32)

    both = [(inner(image), inner(truth)) for image in images]
    return Score(
        [float(psnr(*pair, data_range=255)[0]) for pair in both],
        [float(ssim(*pair, data_range=255)[0]) for pair in both],
    )


def _rows(
    test_set: str, scale: int, scores: Sequence[Mapping[str, Score]], entries: Sequence[Entry]
) -> list[dict[str, Any]]:
    """The lines of the table for one test set and scale: means over photographs and runs."""
    upsamplers = {entry.label: entry.config.network.upsampler for entry in entries}
    rows = []
    for method in scores[0]:
        found = [score[method] for score in scores]
        row: dict[str, Any] = {"test set": test_set, "scale": f"{scale}x", "method": method}
        row |= {"PSNR": float(np.mean([s.psnr for s in found])), "SSIM": float(np.mean([s.ssim for s in found]))}
        for column, table in RESULTS.items():
            known = table.get((upsamplers.get(method, ""), test_set))
            row[column] = known[SCALES.index(scale)] if known and scale in SCALES else ""
        rows.append(row)
    return rows


def _draw_kernels(out: Path, test: tuple[str, int], rgb: np.ndarray, entries: Sequence[Entry]) -> None:
    """Those of the networks of a scale, at a photograph."""
    name, scale = test
    for number, entry in enumerate(entries, 1):
        network = entry.runs[0].network
        if entry.config.network.scale == scale and hasattr(network.blocks[-1].up, "kernels"):
            path = out / f"{name}_{scale}x_kernels_{number}_{entry.config.network.upsampler}.png"
            _draw_kernels_of(path, degraded(rgb, scale), network)


def _draw_kernels_of(path: Path, pair: Pair, network: nnx.Module) -> None:
    """The kernels of the last block, where there is most to see."""
    scale = pair.high.shape[0] // pair.low.shape[0]
    window = busiest_window(pair.high)
    low = pair.low[tuple(slice(side.start // scale, side.stop // scale) for side in window)]
    kernels = jitted(network, SuperResolutionNetwork.kernels)(jnp.asarray(low[None, ..., None] / 255, jnp.float32))
    kernel_figure(path, pair.high[window], np.asarray(kernels)[0, ..., 0, :])


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {method: {"psnr": score.psnr, "ssim": score.ssim} for method, score in scores.items()}


def _footnote(entry: Entry) -> str:
    """What a line of the table is."""
    network = entry.config.network
    count = parameters(entry.runs[0].network)
    folders = ", ".join(folder.name for folder in entry.config.data.train_dirs) or "scikit-image"
    words = [f"{entry.label}, {network.scale}x: {count:,} parameters", f"{network.features} features"]
    words += ["residual"] if network.residual else []
    words += [f"{entry.config.run.steps} steps on {folders}", f"{len(entry.runs)} run(s)"]
    return ", ".join(words)
