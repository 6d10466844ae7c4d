"""Objects with their masks, and panoptic maps, with any upsampler in the feature pyramid (ReSFU, 2024, Table XII).

train fits Mask R-CNN or Panoptic FPN; table trains one with several upsamplers and compares them; evaluate measures AP
and panoptic quality of trained networks, or of published ones on COCO, beside the paper's; pictures shows what they
find; memory tells what a training step takes. AP needs pycocotools: pip install "jaxup[detection]".
"""

from collections.abc import Callable
from typing import Any

from experiments.instances import evaluation, memory, pictures, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
    "pictures": pictures.pictures,
    "memory": memory.memory,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {"shapes": presets.shapes, "coco-1x": presets.coco_1x, "smoke": presets.smoke},
    "table": {"shapes": presets.shapes_table, "coco-1x": presets.coco_1x_table, "smoke": presets.smoke_table},
    "evaluate": {"runs": presets.evaluate_runs, "smoke": presets.evaluate_smoke},
    "pictures": {"runs": presets.pictures_of_runs, "smoke": presets.pictures_smoke},
    "memory": {"mask-rcnn": presets.memory, "panoptic-fpn": presets.panoptic_memory, "smoke": presets.memory_smoke},
}
