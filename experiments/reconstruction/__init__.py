"""Images reconstructed from small maps: what upsampling brings back (Lu et al., Index Networks, section 5.3, Table 3).

train fits one network for each way of downsampling and upsampling and prints the table; evaluate compares trained
networks again, on other images or with pictures.
"""

from collections.abc import Callable
from typing import Any

from experiments.reconstruction import evaluation, presets

COMMANDS: dict[str, Callable[..., Any]] = {"train": evaluation.train, "evaluate": evaluation.evaluate}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {"short": presets.short, "paper": presets.paper, "smoke": presets.smoke},
    "evaluate": {"trained": presets.evaluate_trained, "smoke": presets.evaluate_smoke},
}
