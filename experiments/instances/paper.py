"""ReSFU's Table XII: networks with ResNet-50 on COCO, trained with the 1x schedule."""

from typing import Any

from experiments.instances.networks import NetworkConfig

# Upsampler, of Mask R-CNN AP, AP50, AP75, APs, APm, APl of masks; of Panoptic FPN PQ, PQth, PQst, SQ, RQ.
_ROWS = """
nearest       34.7 55.8 37.2 16.1 37.3 50.8  40.2 47.8 28.9 77.8 49.3
bilinear      34.4 55.4 36.7 15.6 36.9 51.2  40.1 47.5 28.9 77.8 49.1
deconvolution 34.5 55.5 36.8 16.4 37.0 49.5  39.6 47.0 28.4 77.1 48.5
pixel_shuffle 34.8 56.0 37.3 16.3 37.5 50.4  40.0 47.4 28.8 77.1 49.1
carafe        35.4 56.7 37.6 16.9 38.1 51.3  40.8 47.7 30.4 78.2 50.0
indexnet      34.7 55.9 37.1 16.0 37.0 51.1  40.2 47.6 28.9 77.1 49.3
fade          35.1 56.7 37.2 16.7 37.5 51.4  40.9 48.0 30.3 78.1 50.1
sapa          35.1 56.5 37.4 16.7 37.6 50.6  40.6 47.7 29.8 78.0 49.6
dysample      35.5 56.8 37.8 17.0 37.9 51.9  41.1 48.1 30.5 78.2 50.2
resfu         36.1 57.4 38.4 16.8 38.8 52.5  41.5 48.4 31.1 78.4 50.7
"""
COLUMNS = {
    "mask_rcnn": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "panoptic_fpn": ("PQ", "PQth", "PQst", "SQ", "RQ"),
}
_NUMBERS = {name: tuple(map(float, cells)) for name, *cells in map(str.split, _ROWS.strip().splitlines())}
RESULTS = {
    "mask_rcnn": {name: numbers[:6] for name, numbers in _NUMBERS.items()},
    "panoptic_fpn": {name: numbers[6:] for name, numbers in _NUMBERS.items()},
}
"""By network, by upsampler: `COLUMNS` in per cent."""
PAPER = tuple(_NUMBERS)
"""The upsamplers, in the order of the table."""


def paper_cells(config: NetworkConfig) -> dict[str, Any]:
    """The columns of the paper, empty where it has no such row."""
    found = RESULTS[config.model].get(config.upsampler or "nearest") if config.backbone == "resnet50" else None
    columns = COLUMNS[config.model]
    return {f"paper {name}": f"{found[n]:.1f}" if found else "" for n, name in enumerate(columns)}
