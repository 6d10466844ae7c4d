"""Linear probes of segmentation and depth on frozen features at full resolution, by any upsampler (JAFAR, 2025).

train fits one probe; table fits one for each of several upsamplers and compares them; evaluate measures trained probes
beside the published numbers; pictures shows features as colours, and what probes find; fit-upsampler trains UPLiFT, NAF
or AnyUp on any photographs.
"""

from collections.abc import Callable
from typing import Any

from experiments.probe import evaluation, fitting, pictures, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
    "pictures": pictures.pictures,
    "fit-upsampler": fitting.fit_upsampler,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {
        "shapes": presets.shapes,
        "jafar": presets.jafar,
        "anyup": presets.anyup,
        "naf": presets.naf,
        "smoke": presets.smoke,
    },
    "table": {"shapes": presets.shapes_table, "jafar": presets.jafar_table, "smoke": presets.smoke_table},
    "evaluate": {"runs": presets.evaluate_runs, "smoke": presets.evaluate_smoke},
    "pictures": {"runs": presets.pictures_of_runs, "smoke": presets.pictures_smoke},
    "fit-upsampler": {
        "short": presets.fit_short,
        "uplift": presets.fit_uplift,
        "naf": presets.fit_naf,
        "anyup": presets.fit_anyup,
        "smoke": presets.fit_smoke,
    },
}
