"""Saliency maps upsampled under their image, by networks trained for depth (Kim et al., supplement, section 3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.data import HELD_OUT_SEED, RGBD, Scenes, Source, data_dir, saliency
from experiments.engine.figures import Comparison, Panel, panel_figure
from experiments.engine.processes import for_each
from experiments.engine.report import beside_paper, leaves_results, markdown_table, publish
from experiments.engine.runs import load_runs
from experiments.joint_upsampling.classical import FILTERS, METHODS
from experiments.joint_upsampling.evaluation import as_methods, compare
from experiments.joint_upsampling.paper import SALIENCY
from experiments.joint_upsampling.training import TrainConfig
from jaxup._checks import check_int
from jaxup._colours import LUMA
from jaxup.files import InputError
from jaxup.metrics import weighted_f_measure

_LUMINANCE = np.array(LUMA, np.float32)


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
    protocol: Literal["bicubic", "grid", "djf"] = "bicubic"
    """How: by bicubic interpolation, every s-th pixel, or the last pixel of each block. The paper leaves it open; as
    the networks were trained."""
    guide: Literal["intensity", "RGB"] = "intensity"
    """Methods see the image's intensity in three equal channels, as in the paper, or its colours."""
    solvers: bool = True
    """Compare FGI and FBS, too, which compile for seconds at every new size of an image."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image to `out`."""
    scenes: int = 16
    """Number of generated scenes."""
    scene_size: int = 128
    """Their height and width in pixels."""


@leaves_results
def upsample_saliency(config: SaliencyConfig) -> None:
    """Upsample saliency maps by trained networks and the methods without training: weighted F-measure."""
    _check(config)
    runs = load_runs(TrainConfig, config.run_dir)
    for run in runs:
        run.config.network.check([config.scale])
    methods = (METHODS if config.solvers else FILTERS) | as_methods(runs)
    source, drawn = _open(config), config.pictures and config.out is not None

    def scores_of(index: int) -> dict[str, float]:
        sample = source[index]
        guide = sample.guide @ _LUMINANCE[:, None] if config.guide == "intensity" else sample.guide
        sample = sample._replace(guide=np.broadcast_to(guide, sample.guide.shape))
        comparison = compare(sample, config.scale, config.protocol, methods, "")
        found = {name: _score(sample.name, comparison, map_) for name, map_ in comparison.results.items()}
        if config.pictures and config.out is not None:
            _draw(config.out / f"{sample.name}.png", comparison, found)
        return found

    scores = for_each(len(source), scores_of, alone=drawn)
    mean = {name: float(np.mean([row[name] for row in scores])) for name in scores[0]}
    names = {run.label: run.config.network.published for run in runs}
    publish(config.out, {"mean": mean, "images": scores}, _text(config, mean, len(scores), names))


def _check(config: SaliencyConfig) -> None:
    check_int("scale", config.scale)
    for name in ("data_dir",) if config.source == "scenes" else ("scenes", "scene_size"):
        if getattr(config, name) != getattr(SaliencyConfig, name):
            raise InputError(f"{name}: has no effect with the source {config.source}")


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
    return _Nearest(Scenes(config.scenes, config.scene_size, HELD_OUT_SEED))


def _score(name: str, comparison: Comparison, result: np.ndarray) -> float:
    truth = comparison.truth[..., 0] > 0.5
    if not truth.any():  # cut off, where the image is no multiple of the scale
        raise InputError(f"{name}: no pixel of the object in a multiple of the scale")
    return weighted_f_measure(result[..., 0].clip(0, 1), truth)


def _draw(path: Path, comparison: Comparison, scores: dict[str, float]) -> None:
    results = {f"{name}, {scores[name]:.4f}": result for name, result in comparison.results.items()}
    pictures = {"image": comparison.guide, "input": comparison.low, **results, "mask": comparison.truth}
    panel_figure(path, [[Panel(image, title) for title, image in pictures.items()]])


def _text(config: SaliencyConfig, mean: dict[str, float], count: int, names: dict[str, str]) -> str:
    """The table as Markdown."""
    called = {paper: name for name, paper in names.items() if paper}
    paper = {called.get(name, name): f"{value:.4f}" for name, value in SALIENCY.items()}
    rows = beside_paper([{"method": name, "weighted F": value} for name, value in mean.items()], {"weighted F": paper})
    title = f"{config.scale}x, {config.protocol}, guide {config.guide}"
    heading = f"weighted F-measure, mean of {count} maps, {title} (paper: 5168 of DUT-OMRON, 8x)"
    return f"{heading}\n\n{markdown_table(rows)}"
