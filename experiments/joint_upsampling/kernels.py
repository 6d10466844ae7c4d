"""The kernels of deformable networks as pictures (Kim et al., supplement, Fig. 4)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.data import RGBD, crop_to_multiple, normalised
from experiments.engine.figures import save_figure, steepest
from experiments.engine.runs import Run, jitted
from jaxup.models import DKN, FDKN
from jaxup.ops import resize

_PIXELS = 4
Kernel = tuple[np.ndarray, np.ndarray]  # weights [n], and positions [n, 2] relative to the pixel, row and column


def kernels_of(run: Run, sample: RGBD, scale: int, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights [H, W, n] and positions [H, W, n, 2], relative to each pixel, in which a network samples the depth."""
    network = run.network
    example = normalised(crop_to_multiple(sample, scale), scale, protocol)
    guide = jnp.asarray(example["guide"])[None]
    options: dict[str, Any] = dict(method="bicubic", cubic_coefficient=network.cubic_coefficient)
    target = resize(jnp.asarray(example["target"])[None], size=guide.shape[1:3], **options)
    alone = isinstance(network, DKN | FDKN) and network.guide_features is None
    found = jitted(network, lambda network, *maps: network.kernels(*maps))(target, *(() if alone else (guide,)))
    weights = np.asarray(found[0])[0]
    count = weights.shape[2]
    size = math.isqrt(count)
    grid = np.stack(np.divmod(np.arange(count), size), axis=1) - (size - 1) / 2
    offsets = 0 if found[1] is None else np.asarray(found[1])[0].reshape(*weights.shape, 2)
    return weights, np.broadcast_to(grid + offsets, (*weights.shape, 2))


def splatted(kernel: Kernel, window_size: int) -> np.ndarray:
    """The weights of one pixel on the pixels of its window [d, d], those between them by bilinear shares."""
    out, radius = np.zeros((window_size, window_size)), window_size // 2
    for weight, position in zip(*kernel, strict=True):
        low = np.floor(position).astype(int)
        for step in np.ndindex(2, 2):
            pixel = low + step
            if np.abs(pixel).max() <= radius:
                out[tuple(pixel + radius)] += weight * np.prod(1 - np.abs(position - pixel))
    return out


def kernels_figure(path: Path, sample: RGBD, scale: int, protocol: str, runs: Sequence[Run]) -> None:
    """Draw the kernels of a few pixels beside windows of the image and of the depth, and save the figure as PNG.

    The pixels are the steepest ones of the true depth that are not close to each other. Of each, a row: the windows
    with the pixel as a red dot, and for every network its weights on the pixels, red above and blue below zero, with a
    circle at each sampling position.
    """
    sample = crop_to_multiple(sample, scale)
    found = {run.label: (kernels_of(run, sample, scale, protocol), run.network.window_size) for run in runs}
    pixels = steepest(sample.depth[..., 0], _PIXELS)
    widest = max(size for _, size in found.values())
    figure = Figure(figsize=(2.0 * (2 + len(found)), 2.1 * len(pixels) + 0.2), layout="constrained")
    axes = figure.subplots(len(pixels), 2 + len(found), squeeze=False)
    example = normalised(sample, scale, protocol)["target"][..., 0].repeat(scale, 0).repeat(scale, 1)
    for line, pixel in zip(axes, pixels, strict=True):
        for axis, image, name in zip(line, (sample.guide, example), ("guide", "low-resolution depth"), strict=False):
            _window(axis, image, pixel, widest // 2, f"{name} at {pixel[1]}, {pixel[0]}")
        for axis, (name, (kernels, size)) in zip(line[2:], found.items(), strict=True):
            weights, positions = (x[pixel] for x in kernels)
            _kernel(axis, (weights, positions), size, f"{name}\n{weights.min():.2f} to {weights.max():.2f}")
    save_figure(figure, path)


def _window(axis: Any, image: np.ndarray, pixel: tuple[int, int], radius: int, title: str) -> None:
    edge = ((radius, radius), (radius, radius), *((0, 0),) * (image.ndim - 2))
    padded = np.pad(image, edge, mode="edge")
    (y, x), side = pixel, 2 * radius + 1
    axis.imshow(padded[y : y + side, x : x + side], cmap="viridis", extent=(-radius - 0.5, radius + 0.5) * 2)
    axis.plot(0, 0, "r.")
    _plain(axis, title)


def _kernel(axis: Any, kernel: Kernel, size: int, title: str) -> None:
    image, positions, radius = splatted(kernel, size), kernel[1], size // 2
    most = max(np.abs(image).max(), 1e-12)
    extent = (-radius - 0.5, radius + 0.5, radius + 0.5, -radius - 0.5)
    axis.imshow(image, cmap="RdBu_r", vmin=-most, vmax=most, extent=extent, interpolation="nearest")
    axis.scatter(positions[:, 1], positions[:, 0], s=14, facecolors="none", edgecolors="k", linewidths=0.6)
    _plain(axis, title)


def _plain(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=7)
    axis.set_xticks([])
    axis.set_yticks([])


def deformable(runs: Sequence[Run]) -> list[Run]:
    """Those whose networks have kernels to show."""
    return [run for run in runs if hasattr(run.network, "kernels")]
