"""Images segmented into classes, by networks with any upsampler in them (Zhou et al., ReSFU, 2024, section 5).

train fits one network; table trains one with several upsamplers and compares them; evaluate compares trained networks
with the paper's numbers; pictures shows what their upsamplers do; predict segments an image, also with a published
checkpoint; frozen compares upsamplers on the features of a frozen backbone, in minutes on a CPU; memory says what each
takes.
"""

from collections.abc import Callable
from typing import Any

from experiments.segmentation import evaluation, frozen, memory, pictures, predict, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
    "predict": predict.predict,
    "pictures": pictures.pictures,
    "frozen": frozen.frozen,
    "memory": memory.memory,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {
        "camvid": presets.camvid,
        "segformer": presets.segformer,
        "segmenter": presets.segmenter,
        "pspnet": presets.pspnet,
        "maskformer": presets.maskformer,
        "upernet": presets.upernet,
        "segnet": presets.segnet,
        "deeplabv2": presets.deeplabv2,
        "smoke": presets.smoke,
    },
    "table": {
        "camvid": presets.camvid_table,
        "segformer": presets.segformer_table,
        "deeplabv2": presets.deeplabv2_table,
        "deeplabv2-camvid": presets.deeplabv2_camvid_table,
        "smoke": presets.smoke_table,
    },
    "evaluate": {"runs": presets.evaluate_runs, "smoke": presets.evaluate_smoke},
    "predict": {"image": presets.predict_image, "smoke": presets.predict_smoke},
    "pictures": {"runs": presets.pictures_of_runs, "smoke": presets.pictures_smoke},
    "frozen": {"camvid": presets.frozen_camvid, "smoke": presets.frozen_smoke},
    "memory": {"segformer": presets.memory_segformer, "smoke": presets.memory_smoke},
}
