"""Numbers of linear probes in JAFAR's README: DINOv2 ViT-S/14, images of 448 x 448, the rate in waves of 40 steps.

The tables of AnyUp, UPLiFT, NAF and LoftUp are of other schedules, so that numbers of one paper do not compare with
those of another; they were not at hand.
"""

from collections.abc import Mapping

from experiments.probe.networks import Encoder
from experiments.probe.training import TrainConfig

# COCO-Stuff 27, VOC, ADE20K, Cityscapes: mIoU in per cent; depth: d1 in per cent, RMSE in metres.
_ROWS = """
bilinear 59.03 80.70 39.23 59.37 59.92 0.66
featup   60.10 81.08 38.82 56.06 61.69 0.64
lift     58.18 78.06 38.73 58.75 57.04 0.70
jafar    60.78 84.44 40.49 61.47 62.18 0.62
"""
COLUMNS = ("coco-stuff", "voc", "ade20k", "cityscapes", "d1", "rmse")
RESULTS: Mapping[str, Mapping[str, str]] = {
    name: dict(zip(COLUMNS, cells, strict=True)) for name, *cells in map(str.split, _ROWS.strip().splitlines())
}
"""By upsampler, by data set or measure of depth, as printed."""


def published(config: TrainConfig, encoder: Encoder) -> dict[str, dict[str, str]]:
    """By our column, by method: what was published of these data, if this is the encoder."""
    if (encoder.channels, encoder.patch_size) != (384, 14):
        return {}
    if config.data.source == "depth-folder":
        return {name: {method: row[name] for method, row in RESULTS.items()} for name in ("d1", "rmse")}
    column = config.data.source.removesuffix("-tfds")
    return {"mIoU": {method: row[column] for method, row in RESULTS.items()}} if column in COLUMNS else {}
