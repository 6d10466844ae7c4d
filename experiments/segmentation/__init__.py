"""Images segmented into classes, by networks with any upsampler in them (Zhou et al., ReSFU, 2024, section 5).

frozen compares upsamplers on the features of a frozen backbone, in minutes on a CPU.
"""

from collections.abc import Callable
from typing import Any

from experiments.segmentation import frozen, presets

COMMANDS: dict[str, Callable[..., Any]] = {"frozen": frozen.frozen}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "frozen": {"camvid": presets.frozen_camvid, "smoke": presets.frozen_smoke},
}
