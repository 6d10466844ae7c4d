"""Single photographs enlarged two, four or eight times (Kundu et al., section IV-B).

train fits one network; evaluate compares trained networks with bicubic interpolation by PSNR and SSIM of the luminance
on folders of photographs, beside the paper's numbers. Both have a default without any download.
"""

from collections.abc import Callable
from typing import Any

from experiments.super_resolution import evaluation, presets, training

COMMANDS: dict[str, Callable[..., Any]] = {"train": training.train, "evaluate": evaluation.evaluate}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {"short": presets.short, "paper": presets.paper, "smoke": presets.smoke},
    "evaluate": {"photos": presets.evaluate_photos, "smoke": presets.evaluate_smoke},
}
