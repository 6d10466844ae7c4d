"""Depth in metres from one image, by FastDepth and Hu et al., with any way of upsampling (Lu et al., TPAMI 2020, 6.4).

train fits one network; table trains several one after the other and compares them; evaluate compares trained networks
with the paper's numbers; pictures draws the depth that they find.
"""

from collections.abc import Callable
from typing import Any

from experiments.monocular_depth import evaluation, pictures, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
    "pictures": pictures.pictures,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {"short": presets.short, "fastdepth": presets.fastdepth, "hu": presets.hu, "smoke": presets.smoke},
    "table": {
        "short": presets.short_table,
        "fastdepth": presets.fastdepth_table,
        "hu": presets.hu_table,
        "smoke": presets.smoke_table,
    },
    "evaluate": {"runs": presets.evaluate_runs, "smoke": presets.evaluate_smoke},
    "pictures": {"runs": presets.pictures_of_runs, "smoke": presets.pictures_smoke},
}
