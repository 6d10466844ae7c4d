"""Comparison of trained super-resolution networks with bicubic interpolation and the paper: tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.data.photos import embedded, resized
from experiments.data.super_resolution import Pair, Photos, degraded, read_folder
from experiments.engine.checkpoint import load_model
from experiments.engine.config import RunConfig, load_config
from experiments.engine.report import busiest_window, check_out, kernel_figure, markdown_table, save_results
from experiments.super_resolution.paper import RESULTS, SCALES
from experiments.super_resolution.pictures import Picture, draw
from experiments.super_resolution.training import TrainConfig
from jaxup.files import InputError
from jaxup.metrics import psnr, ssim

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
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per photograph and scale to `out`: the region where the methods differ most."""
    smoke: bool = False
    """Seconds, to show that everything works: the middle of one photograph of each folder."""


class Entry(NamedTuple):
    """Runs of one configuration."""

    label: str
    config: TrainConfig
    run_dirs: tuple[Path, ...]
    networks: tuple[nnx.Module, ...]


class Score(NamedTuple):
    """What a method makes of one photograph; PSNR and SSIM of each run, the image of the first."""

    psnr: list[float]
    ssim: list[float]
    image: np.ndarray


def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks with bicubic interpolation by PSNR and SSIM, beside the paper's; pictures on request."""
    check_out(config.out, config.pictures)
    entries = trained(config.run_dir)
    scales = config.scales or tuple(sorted({e.config.network.scale for e in entries})) or SCALES
    sets: dict[str, Photos] = {folder.name: read_folder(folder) for folder in config.test_dirs}
    sets = sets or {"scikit-image": embedded("test")}
    rows, images = [], []
    for name, photographs in ((name, _cut(p) if config.smoke else p) for name, p in sets.items()):
        for scale in scales:
            scores = {image: compare(image, rgb, scale, entries) for image, rgb in photographs.items()}
            rows += _rows(name, scale, list(scores.values()), entries)
            images += [{"test set": name, "image": k, "scale": scale, **_plain(score)} for k, score in scores.items()]
            if config.pictures and config.out is not None:
                for image, rgb in photographs.items():
                    path = config.out / f"{name}_{image}_{scale}x.png"
                    draw(path, _picture(image, scale, degraded(rgb, scale), scores[image]))
                _draw_kernels(
                    config.out, f"{name}_{scale}x", degraded(next(iter(photographs.values())), scale), entries
                )
    text = "\n".join([markdown_table(rows, list(rows[0])), "", *map(_footnote, entries)]).rstrip()
    print(text)
    if config.out is not None:
        save_results(config.out, {"mean": rows, "images": images, "runs": list(map(_footnote, entries))}, text)


def trained(run_dirs: Sequence[Path]) -> list[Entry]:
    """The networks of training runs by configuration, labelled by upsampler, where that is not enough by directory."""
    groups: dict[TrainConfig, list[tuple[Path, nnx.Module]]] = {}
    for run_dir in run_dirs:
        config = load_config(TrainConfig, run_dir)
        network = load_model(run_dir, config.network.build(config.run.seed), best=True)
        seedless = replace(config, run=RunConfig(Path(), steps=config.run.steps))
        groups.setdefault(seedless, []).append((run_dir, network))
    names = [(config.network.upsampler, config.network.scale) for config in groups]
    entries = []
    for config, members in groups.items():
        label, scale = config.network.upsampler, config.network.scale
        directories, networks = zip(*members, strict=True)
        label = label if names.count((label, scale)) == 1 else f"{label} ({directories[0]})"
        entries.append(Entry(label, config, directories, networks))
    return entries


@partial(jax.jit, static_argnums=0)
def _run(graph: nnx.GraphDef, state: nnx.State, x: jax.Array) -> jax.Array:
    return nnx.merge(graph, state)(x)  # runs of one configuration share the compiled function


def compare(name: str, rgb: np.ndarray, scale: int, entries: Sequence[Entry]) -> dict[str, Score]:
    """Lower the resolution of a photograph, and enlarge it by bicubic interpolation and by the runs of that scale.

    Values are clipped to 0 .. 255, and the outermost `scale` pixels do not count.
    """
    least = 2 * scale + _LEAST
    if min(n - n % scale for n in rgb.shape[:2]) < least:
        raise InputError(f"{name}: {rgb.shape[1]} x {rgb.shape[0]} pixels, expected at least {least} for {scale}x")
    low, high = degraded(rgb, scale)
    x = jnp.asarray(low[None, ..., None] / 255, jnp.float32)
    results = {"bicubic": [resized(low.astype(np.float32), high.shape)]}
    for entry in entries:
        if entry.config.network.scale == scale:
            results[entry.label] = [255 * np.asarray(_run(*nnx.split(n), x))[0, ..., 0] for n in entry.networks]
    return {method: _score(images, high, scale) for method, images in results.items()}


def _score(images: Sequence[np.ndarray], truth: np.ndarray, border: int) -> Score:
    def inner(image: np.ndarray) -> jax.Array:
        return jnp.asarray(image[None, border:-border, border:-border, None], jnp.float32)

    images = [np.clip(image, 0, 255) for image in images]
    both = [(inner(image), inner(truth)) for image in images]
    return Score(
        [float(psnr(*pair, data_range=255)[0]) for pair in both],
        [float(ssim(*pair, data_range=255)[0]) for pair in both],
        images[0],
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


def _draw_kernels(out: Path, name: str, pair: Pair, entries: Sequence[Entry]) -> None:
    """The kernels of the last block of every entry that has the scale of the pair, and kernels."""
    scale = pair.high.shape[0] // pair.low.shape[0]
    window = busiest_window(pair.high)
    low = pair.low[tuple(slice(side.start // scale, side.stop // scale) for side in window)]
    x = jnp.asarray(low[None, ..., None] / 255, jnp.float32)
    for number, entry in enumerate(entries, 1):
        network: Any = entry.networks[0]
        if entry.config.network.scale == scale and hasattr(network.blocks[-1].up, "kernels"):
            path = out / f"{name}_kernels_{number}_{entry.config.network.upsampler}.png"
            kernel_figure(path, pair.high[window], np.asarray(_kernels(*nnx.split(network), x))[0, ..., 0, :])


@partial(jax.jit, static_argnums=0)
def _kernels(graph: nnx.GraphDef, state: nnx.State, x: jax.Array) -> jax.Array:
    network: Any = nnx.merge(graph, state)
    *blocks, last = network.blocks
    y = network.embed(x)
    for block in blocks:
        y = block(y)
    return last.up.kernels(last.refine(y))


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {method: {"psnr": score.psnr, "ssim": score.ssim} for method, score in scores.items()}


def _footnote(entry: Entry) -> str:
    """What a line of the table is."""
    network = entry.config.network
    count = sum(p.size for p in jax.tree.leaves(nnx.state(entry.networks[0], nnx.Param)))
    folders = ", ".join(folder.name for folder in entry.config.data.train_dirs) or "scikit-image"
    words = [f"{entry.label}, {network.scale}x: {count:,} parameters", f"{network.features} features"]
    words += ["residual"] if network.residual else []
    words += [f"{entry.config.run.steps} steps on {folders}", f"{len(entry.run_dirs)} run(s)"]
    return ", ".join(words)


def _cut(photographs: Photos) -> Photos:
    name, rgb = next(iter(photographs.items()))
    top, left = (max(n - 96, 0) // 2 for n in rgb.shape[:2])
    return {name: rgb[top : top + 96, left : left + 96]}


def _picture(image: str, scale: int, pair: Pair, scores: Mapping[str, Score]) -> Picture:
    titles = {method: f"{method}, {score.psnr[0]:.2f} dB" for method, score in scores.items()}
    return Picture(f"{image}, {scale}x", pair.high, {titles[m]: score.image for m, score in scores.items()})
