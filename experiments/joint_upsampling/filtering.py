"""Joint filtering at full resolution: noise and texture removed under a guide (Kim et al., supplement, section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.data import HELD_OUT_SEED, Scenes
from experiments.data.images import read_rgb
from experiments.engine.figures import Panel, panel_figure
from experiments.engine.processes import is_first
from experiments.engine.report import beside_paper, leaves_results, markdown_table, publish
from experiments.engine.runs import load_runs
from experiments.joint_upsampling.classical import Method
from experiments.joint_upsampling.evaluation import as_methods, compare_pairs, mean_table
from experiments.joint_upsampling.paper import DENOISING
from experiments.joint_upsampling.training import DataConfig, TrainConfig
from jaxup import ops
from jaxup.files import InputError, write_rgb

DENOISERS: dict[str, Method] = {
    "noisy": lambda target, guide: target,
    "guided filter": lambda target, guide: ops.guided_filter(target, guide, radius=2, eps=1e-4),
    "joint bilateral": lambda target, guide: ops.joint_bilateral_upsample(
        target, guide, scale=1, radius=3, sigma_spatial=1.5, sigma_range=0.03
    ),
}
"""Methods without training; their constants have the lowest RMSE on generated training scenes with noise."""

_NOISE = DataConfig(scales=(1,), scenes=16, protocol="noise")


@dataclass(frozen=True)
class DenoiseConfig:
    """What to compare on which pairs."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run with the protocol noise; may be given several times."""
    data: DataConfig = field(default=_NOISE)
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image to `out`."""


@leaves_results
def denoise(config: DenoiseConfig) -> None:
    """Compare trained networks and filters on depth with noise: RMSE and PSNR."""
    if config.data.protocol != "noise":
        raise InputError(f"protocol: expected noise, got {config.data.protocol}")
    config.data.check("test", _NOISE)
    runs, source = load_runs(TrainConfig, config.run_dir), config.data.open("test")
    pictures = config.out if config.pictures else None
    compared = compare_pairs(source, config.data, DENOISERS | as_methods(runs), pictures)
    table = mean_table([("RMSE", score) for _, _, score in compared])
    for name, row in table.items():
        row["PSNR"] = float(np.mean([_decibels(s.errors[name] / (s.peak or 1.0)) for _, _, s in compared]))
    called = {run.config.network.published: run.label for run in runs}
    paper = {called.get(name, name): f"{value:.2f}" for name, value in DENOISING.items()}
    rows = beside_paper([{"method": name, **row} for name, row in table.items()], {"RMSE": paper})
    text = f"RMSE in {source.unit} and PSNR in dB, mean of {len(source)} pairs (paper: RMSE in cm on NYU Depth v2)"
    publish(config.out, {"unit": source.unit, "mean": table}, f"{text}\n\n{markdown_table(rows)}")


@dataclass(frozen=True)
class FilterConfig:
    """Which image is filtered, under which guide."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run with the protocol noise; may be given several times."""
    target: Path | None = None
    """The image to filter; none: a generated one."""
    guide: Path | None = None
    """An image of the same size; none: the target itself, without the noise that is added."""
    iterations: int = 1
    """How often to filter; the output is the next target, and if there is no other guide, the next guide as well."""
    noise: float = 0.0
    """Variance of Gaussian noise that is added to the target, on a scale of 0 to 1; results are then compared with the
    target by PSNR."""
    out: Path = Path("runs/joint-upsampling-filter")
    """Directory for the pictures, which must not exist yet."""
    size: int = 256
    """Height and width of the generated image."""


@leaves_results
def filter_image(config: FilterConfig) -> None:
    """Remove noise or texture from an image with trained networks and filters, and write the pictures."""
    if config.iterations < 1 or config.noise < 0:
        raise InputError(f"iterations and noise: expected at least 1 and 0, got {config.iterations}, {config.noise}")
    clean, guide = _images(config)
    noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    target = clean + np.float32(config.noise**0.5) * noise
    first = clean if guide is None else guide
    pictures = {"target": target} | ({} if guide is None else {"guide": guide})
    for name, method in (DENOISERS | as_methods(load_runs(TrainConfig, config.run_dir))).items():
        if name != "noisy":
            pictures[name] = filtered(method, target, first, config.iterations, follow=guide is None)
    if is_first():
        _write(config.out, pictures)
    if config.noise:
        rows = [
            {"picture": name, "PSNR": _decibels(float(np.sqrt(np.mean((picture.clip(0, 1) - clean) ** 2))))}
            for name, picture in pictures.items()
            if name != "guide"
        ]
        publish(config.out, {row["picture"]: row["PSNR"] for row in rows}, markdown_table(rows))
    if is_first():
        print(f"pictures: {config.out}")


def filtered(method: Method, target: np.ndarray, guide: np.ndarray, iterations: int, *, follow: bool) -> np.ndarray:
    """Filter every channel by itself, again and again.

    Args:
        method: called with the channels of the target as a batch [C, H, W, 1] and the guide for each, [C, H, W, 3].
        target: [H, W, C] in [0, 1].
        guide: [H, W, 3] in [0, 1].
        iterations: at least 1.
        follow: whether the result guides the next iteration, C being 3 then; else the guide stays.

    Returns:
        [H, W, C].
    """
    for _ in range(iterations):
        guides = np.broadcast_to(guide, (target.shape[2], *guide.shape))
        channels = jnp.asarray(np.moveaxis(target, 2, 0)[..., None])
        target = np.moveaxis(np.asarray(method(channels, jnp.asarray(guides)))[..., 0], 0, 2)
        guide = target if follow else guide
    return target


def _images(config: FilterConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """Target and guide, RGB in [0, 1]."""
    if config.target is None:
        if config.guide is not None:
            raise InputError(f"{config.guide}: a guide needs a target, --target")
        return Scenes(1, config.size, HELD_OUT_SEED)[0].guide, None
    if config.size != FilterConfig.size:
        raise InputError("size: has no effect with a target")
    target, guide = _read(config.target), None if config.guide is None else _read(config.guide)
    if guide is not None and guide.shape != target.shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (target, guide))
        raise InputError(f"{config.guide}: expected the size of {config.target}, they have {sizes} pixels")
    return target, guide


def _read(path: Path) -> np.ndarray:
    return read_rgb(path).astype(np.float32) / np.float32(255)


def _write(out: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Each as PNG, and all in a row."""
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        levels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        write_rgb(out / f"{file_name(name)}.png", levels)
    panel_figure(out / "comparison.png", [[Panel(picture, name) for name, picture in pictures.items()]], side=2.5)


def file_name(name: str) -> str:
    """Letters, digits and dashes of a method's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def _decibels(error: float) -> float:
    """PSNR of a root mean squared error, the peak being 1."""
    return float(-20 * np.log10(max(error, 1e-10)))
