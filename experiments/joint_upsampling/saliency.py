"""Saliency maps upsampled under their image, by networks trained for depth (Kim et al., supplement, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from scipy.ndimage import correlate, distance_transform_edt

from experiments.data import HELD_OUT_SEED, RGBD, Scenes, Source, data_dir, saliency
from experiments.engine.report import Comparison, check_out, markdown_table, picture_row, save_results
from experiments.joint_upsampling.classical import FILTERS, METHODS
from experiments.joint_upsampling.evaluation import compare, trained_methods
from experiments.joint_upsampling.paper import SALIENCY
from jaxup.files import InputError

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class SaliencyConfig:
    """What to compare on which maps."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times."""
    source: Literal["scenes", "folder"] = "scenes"
    """Generated scenes, whose objects are what is nearest, or a folder of images and masks, as `data.saliency` reads
    it."""
    data_dir: Path | None = None
    """The folder. None: the environment variable JAXUP_DATA."""
    scale: int = 8
    """Factor by which the maps are reduced."""
    protocol: Literal["bicubic", "grid"] = "bicubic"
    """How: by bicubic interpolation, or every s-th pixel. The paper leaves it open; as the networks were trained."""
    guide: Literal["intensity", "RGB"] = "intensity"
    """Methods see the image's intensity in three equal channels, as in the paper, or its colours."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image to `out`."""
    scenes: int = 16
    """Number of generated scenes."""
    smoke: bool = False
    """Two small scenes and the fast methods: that everything works, not how well."""


def upsample_saliency(config: SaliencyConfig) -> None:
    """Upsample saliency maps by trained networks and the methods without training: weighted F-measure."""
    check_out(config.out, config.pictures)
    methods = (FILTERS if config.smoke else METHODS) | trained_methods(config.run_dir)
    source, scores = _open(config), []
    for index in range(len(source)):
        sample = source[index]
        guide = sample.guide @ _LUMINANCE[:, None] if config.guide == "intensity" else sample.guide
        sample = sample._replace(guide=np.broadcast_to(guide, sample.guide.shape))
        comparison = compare(sample, config.scale, config.protocol, methods, "")
        scores.append({name: _score(sample.name, comparison, map_) for name, map_ in comparison.results.items()})
        if config.pictures and config.out is not None:
            _draw(config.out / f"{sample.name}.png", comparison, scores[-1])
    title = f"{config.scale}x, {config.protocol}, guide {config.guide}"
    text, mean = _table(scores, title)
    print(text)
    if config.out is not None:
        save_results(config.out, {"mean": mean, "images": scores}, text)


def weighted_f_measure(prediction: np.ndarray, truth: np.ndarray) -> float:
    """How well a map of [0, 1] agrees with a mask: errors far from the object count more, blurred borders less.

    With E = |truth - prediction|, F the pixels of the object, B all others, and d(p) the distance of p from F:

        E'(p)  = E(p) in F, and in B the E of the nearest pixel of F
        Ew(p)  = min(E(p), (g * E')(p)) in F,    g a 7 x 7 Gaussian, sigma 5, that sums to 1, zeros outside the image
        Ew(p)  = E(p) (2 - exp(d(p) log(1/2) / 5)) in B
        recall = 1 - mean_F Ew,    precision = |F| recall / (|F| recall + sum_B Ew)
        score  = 2 precision recall / (precision + recall)

    Args:
        prediction: [H, W] from 0 to 1.
        truth: [H, W], bool, true somewhere.

    Returns:
        The score, 0 to 1; 1 where they agree.

    Raises:
        InputError: the mask is empty.

    Example:
        >>> truth = np.zeros((9, 9), bool)
        >>> truth[3:6, 3:6] = True
        >>> weighted_f_measure(truth.astype(float), truth)
        1.0

    Reference:
        Margolin, Zelnik-Manor, Tal, How to Evaluate Foreground Maps, CVPR 2014, with beta = 1.
    """
    if not truth.any():
        raise InputError("truth: expected at least one pixel of the object")
    error = np.abs(truth - prediction.astype(np.float64))
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    spread = correlate(error[tuple(nearest)], _gaussian(7, 5.0), mode="constant")
    inner = np.minimum(error, spread)[truth]
    outer = (error * (2 - np.exp(distance * np.log(0.5) / 5)))[~truth]
    recall = 1 - inner.mean()
    hits = recall * truth.sum()
    if hits <= 0:
        return 0.0
    precision = hits / (hits + outer.sum())
    return float(2 * precision * recall / (precision + recall))


def _gaussian(size: int, sigma: float) -> np.ndarray:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return np.outer(weights, weights) / weights.sum() ** 2


class _Nearest:
    """Generated scenes whose depth is 1 where it is in the upper half of its range, else 0."""

    unit = ""

    def __init__(self, scenes: Scenes):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> RGBD:
        sample = self.scenes[index]
        middle = (sample.depth.min() + sample.depth.max()) / 2
        return sample._replace(depth=(sample.depth > middle).astype(np.float32))


def _open(config: SaliencyConfig) -> Source:
    if config.source == "folder":
        return saliency(data_dir(config.data_dir))
    count, size = (2, 32) if config.smoke else (config.scenes, 128)
    return _Nearest(Scenes(count, size, HELD_OUT_SEED))


def _score(name: str, comparison: Comparison, result: np.ndarray) -> float:
    try:
        return weighted_f_measure(result[..., 0].clip(0, 1), comparison.truth[..., 0] > 0.5)
    except InputError as error:  # cut off, where the image is no multiple of the scale
        raise InputError(f"{name}: {error}") from error


def _draw(path: Path, comparison: Comparison, scores: dict[str, float]) -> None:
    results = {f"{name}, {scores[name]:.4f}": result for name, result in comparison.results.items()}
    picture_row(path, {"image": comparison.guide, "input": comparison.low, **results, "mask": comparison.truth})


def _table(scores: Sequence[dict[str, float]], title: str) -> tuple[str, dict[str, float]]:
    """The table as Markdown, and the means in it."""
    mean = {name: float(np.mean([row[name] for row in scores])) for name in scores[0]}
    paper = {name: f"{value:.4f}" for name, value in SALIENCY.items()}
    rows = [{"method": name, "weighted F": value, "paper": paper.pop(name, "")} for name, value in mean.items()]
    rows += [{"method": name, "weighted F": "", "paper": value} for name, value in paper.items()]
    heading = f"weighted F-measure, mean of {len(scores)} maps, {title} (paper: 5168 of DUT-OMRON, 8x)"
    return f"{heading}\n\n{markdown_table(rows, list(rows[0]))}", mean
