"""Noise removed from images, with and without downsampling stages in the network (Lu et al., TPAMI 2020, section 6.2).

train fits one network; table trains several one after the other and compares them; evaluate compares trained networks
with the paper's numbers.
"""

from collections.abc import Callable
from typing import Any

from experiments.denoising import evaluation, presets, table, training

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "table": table.table,
    "evaluate": evaluation.evaluate,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {"short": presets.short, "paper": presets.paper, "smoke": presets.smoke},
    "table": {"short": presets.short_table, "paper": presets.paper_table, "smoke": presets.smoke_table},
    "evaluate": {"photos": presets.evaluate_photos, "smoke": presets.evaluate_smoke},
}
