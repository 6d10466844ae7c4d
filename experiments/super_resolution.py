"""Single photographs enlarged two, four or eight times (Kundu et al., section IV-B).

train fits one network; evaluate compares trained networks with bicubic interpolation by PSNR and SSIM of the luminance
on folders of photographs, beside the paper's numbers. Both have a default without any download.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.sr.evaluation import evaluate
from experiments.sr.training import DataConfig, NetworkConfig, TrainConfig, train


def short() -> TrainConfig:
    """A narrower network with a residual on 24 x 24 patches, minutes on two CPU cores."""
    return TrainConfig(
        RunConfig(Path("runs/super-resolution-short"), steps=2000, save_every=500),
        NetworkConfig(features=64, residual=True),
        DataConfig(patch=48, stride=24),
        validate_every=200,
        patience=1,
    )


def paper() -> TrainConfig:
    """The paper's network and schedule."""
    return TrainConfig(RunConfig(Path("runs/super-resolution"), steps=200_000, log_every=500, save_every=2000))


COMMANDS: dict[str, Callable[..., Any]] = {"train": train, "evaluate": evaluate}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {"train": {"short": short, "paper": paper}}
