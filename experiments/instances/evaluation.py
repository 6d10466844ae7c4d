"""Trained networks on test images: AP of boxes and masks, and panoptic quality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from PIL import Image

from experiments.data.instances import First, Source, segments_of
from experiments.data.instances_batches import Augmentation, fitted
from experiments.engine.config import RunConfig
from experiments.engine.processes import for_each, summed
from experiments.engine.report import Output, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs, parameters, step_costs
from experiments.instances.data import DataConfig
from experiments.instances.drawing import comparison
from experiments.instances.networks import NetworkConfig, detect
from experiments.instances.paper import paper_cells
from experiments.instances.published import CheckpointConfig
from experiments.instances.training import TrainConfig
from jaxup import metrics
from jaxup.files import require
from jaxup.metrics import Segment
from jaxup.models.segmentation import instance_masks, merge_panoptic

Row = dict[str, Any]
_CANVAS = 128  # masks are pasted onto sizes that are multiples, so that few programs are compiled
_SHOWN = 6
_pasted = jax.jit(instance_masks, static_argnames=("size", "whole_pixels"))
_merged = jax.jit(merge_panoptic, static_argnames=("num_classes", "least_area"))


class Found(NamedTuple):
    """What a network finds in an image, at the size of the image."""

    objects: dict[str, np.ndarray]
    """"boxes" [N, 4], "scores" [N], "labels" [N], "masks" [N, H, W], by falling score."""
    segments: np.ndarray | None
    """The panoptic map, int32 [H, W]."""
    listed: list[Segment]
    """What the numbers in it mean."""


Method = Callable[[np.ndarray], Found]


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested on its own data; may be given several times. None:
    a tiny network as it is before training, on generated scenes; or"""
    published: CheckpointConfig = field(default=CheckpointConfig())
    data_dir: Path | None = None
    """Folder of the data. None: that of the runs, or the environment variable JAXUP_DATA."""
    images: int | None = None
    """Test on the first ones only; none: on all."""
    least_area: int | None = None
    """Stuff of fewer pixels is left out of panoptic maps. None: 4096, and 64 in generated scenes, which are small."""
    output: Output = field(default=Output())


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Measure AP and panoptic quality of trained networks, beside the paper's; pictures on request."""
    require("pycocotools.cocoeval")
    runs = [*load_runs(TrainConfig, config.run_dir), *config.published.open(config.data_dir)]
    publish(config.output.out, *compare(runs or [untrained()], config, config.output.folder))


def untrained() -> Run:
    """A tiny network with its initial weights."""
    network = NetworkConfig("panoptic_fpn", "tiny", width=8, anchor_scale=2.0, proposals=30)
    augmentation = Augmentation(None, padded=(64, 64), objects=20)
    data = DataConfig(images=1, size=(48, 64))
    config = TrainConfig(RunConfig(Path()), network, data, augmentation=augmentation)
    model = config.build()
    model.eval()
    return Run(f"{config.label}, untrained", config, model)


def compare(
    runs: Sequence[Run], config: EvaluateConfig, pictures: Path | None, step: bool = False
) -> tuple[list[Row], str]:
    """Results by network, with time and memory of a step of training where asked for, and the table as text."""
    rows, methods = [], {}
    for run in runs:
        source = test_scenes(run.config, config.data_dir, config.images)
        methods[run.label] = method(run, source, config.least_area)
        row: Row = {"network": run.label, **scores(methods[run.label], source)}
        row |= {"params (M)": parameters(run.network) / 1e6}
        row |= step_costs(run) if step else {}
        rows.append(row | paper_cells(run.config.network))
    if pictures is not None:
        comparison(pictures, methods, [source[n] for n in range(min(_SHOWN, len(source)))], source)
    columns = [key for key in max(rows, key=len) if key != "box" and any(row.get(key, "") != "" for row in rows)]
    return rows, f"{markdown_table(rows, columns)}\n\nPer cent; AP of masks, but for box AP."


def test_scenes(config: TrainConfig, data_dir: Path | None, images: int | None = None) -> Source:
    """Those of a run's data, in this folder or its own; only the first ones."""
    given = config.data if data_dir is None else replace(config.data, data_dir=data_dir)
    source = given.open("test")
    return source if images is None else First(source, min(images, len(source)))


def method(run: Run, source: Source, least_area: int | None = None) -> Method:
    """A network as a function of images of any size."""
    function, how = jitted(run.network, detect), run.config.augmentation
    whole_pixels = getattr(getattr(run.network, "network", None), "whole_pixels", False)
    least = least_area if least_area is not None else 64 if run.config.data.source == "shapes" else 4096

    def find(image: np.ndarray) -> Found:
        seen, shape = fitted(image, how)
        found = jax.tree.map(lambda x: np.asarray(x[0]), function(seen[None], np.array([shape], np.float32)))
        size = image.shape[:2]
        canvas = tuple(-(-n // _CANVAS) * _CANVAS for n in size)
        ratio = np.array([m / n for n, m in zip(shape, size, strict=True)][::-1] * 2, np.float32)
        found["boxes"] = found["boxes"] * ratio
        masks = np.array(_pasted(found["masks"], found["boxes"], size=canvas, whole_pixels=whole_pixels))
        masks[:, size[0] :], masks[:, :, size[1] :] = False, False
        there = found["labels"] >= 0
        objects = {name: found[name][there] for name in ("boxes", "scores", "labels")}
        objects["masks"] = masks[there][:, : size[0], : size[1]]
        if "semantic" not in found:
            return Found(objects, None, [])
        logits = np.zeros((*canvas, len(source.stuff) + 1), np.float32)
        logits[..., -1] = 1  # there are things, and so no stuff, beyond the image
        logits[: size[0], : size[1]] = enlarged(
            found["semantic"], [n / m for n, m in zip(shape, how.padded, strict=True)], size
        )
        given = (x[None] for x in (masks, found["scores"], found["labels"], logits))
        segments, categories = _merged(*given, num_classes=len(source.things), least_area=least)
        whole = np.asarray(segments)[0, : size[0], : size[1]]
        numbers = np.setdiff1d(whole, [0]).tolist()
        return Found(objects, whole, [Segment(n, int(categories[0, n - 1])) for n in numbers])

    return find


def enlarged(logits: np.ndarray, share: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """The upper left part of a map [h, w, K], so much of its height and width, at this size: [H, W, K]."""
    bottom, right = (part * n for part, n in zip(share, logits.shape[:2], strict=True))
    channels = (Image.fromarray(logits[..., k].astype(np.float32)) for k in range(logits.shape[2]))
    bilinear = Image.Resampling.BILINEAR
    resized = [np.asarray(c.resize(size[::-1], bilinear, box=(0, 0, right, bottom))) for c in channels]
    return np.stack(resized, axis=-1)


def scores(find: Method, source: Source) -> Row:
    """Per cent: AP of masks, "box" with those of boxes, and where there is a panoptic map PQ, PQth, PQst, SQ and RQ."""
    things, stuff = len(source.things), len(source.stuff)
    counts = np.zeros((things + stuff, 4))
    panoptic: list[int] = []

    def one(index: int) -> list[Row]:
        scene = source[index]
        found = find(scene.image)
        if found.segments is not None:
            truth, wanted = segments_of(scene, things, stuff)
            pair: Row = dict(segments=found.listed, truth_segments=wanted, categories=range(things + stuff))
            counts[...] += metrics.panoptic_counts(found.segments, truth, **pair)
            panoptic.append(index)
        columns = ("boxes", "labels", "masks", "crowd", "areas")
        return [_stored(found.objects), _stored({name: getattr(scene, name) for name in columns})]

    pairs = for_each(len(source), one)
    found, truth = ([pair[k] for pair in pairs] for k in (0, 1))
    by_mask, by_box = (metrics.average_precision(found=found, truth=truth, masks=masks) for masks in (True, False))
    row: Row = _per_cent(by_mask) | {"box AP": _per_cent(by_box)["AP"], "box": _per_cent(by_box)}
    (total,) = summed(lambda: [counts])
    if not panoptic:
        return row
    quality = metrics.panoptic_quality(total)
    groups = {"": quality, "th": quality[:things], "st": quality[things:]}
    means = {part: np.nanmean(x, axis=0) if np.isfinite(x).any() else np.full(3, np.nan) for part, x in groups.items()}
    named = {"PQ": means[""][0], "PQth": means["th"][0], "PQst": means["st"][0], "SQ": means[""][1], "RQ": means[""][2]}
    return row | _per_cent(named)


def _stored(objects: dict[str, Any]) -> Row:
    """As JSON can hold it."""
    return {k: metrics.encode_masks(x) if k == "masks" else x.tolist() for k, x in objects.items()}


def _per_cent(values: dict[str, float]) -> Row:
    """Empty where there is no value."""
    return {name: "" if np.isnan(value) else 100 * float(value) for name, value in values.items()}
