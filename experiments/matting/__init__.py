"""Alpha mattes of images with trimaps (Lu et al., Index Networks, TPAMI 2020, section 6.1; Dai et al., A2U, CVPR 2021).

train fits one network; table trains several one after the other and compares them; evaluate compares trained networks
with the papers' numbers; pictures shows mattes side by side, and index maps, random beside learned.
"""

from collections.abc import Callable
from typing import Any

from experiments.matting import evaluation, pictures, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
    "pictures": pictures.pictures,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {
        "short": presets.short,
        "indexnet": presets.indexnet,
        "a2u": presets.a2u,
        "smoke": presets.smoke,
    },
    "table": {
        "short": presets.short_table,
        "indexnet": presets.indexnet_table,
        "a2u": presets.a2u_table,
        "smoke": presets.smoke_table,
    },
    "evaluate": {"runs": presets.evaluate_generated, "smoke": presets.evaluate_smoke},
    "pictures": {"runs": presets.pictures_of_runs, "smoke": presets.pictures_smoke},
}
