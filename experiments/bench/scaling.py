"""Data-parallel training on paper: what each network's step computes and moves, and how many devices that feeds."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flax import nnx

from experiments import (
    denoising,
    joint_upsampling,
    matting,
    monocular_depth,
    reconstruction,
    segmentation,
    super_resolution,
)
from experiments.engine.report import markdown_table
from experiments.engine.runs import costs
from jaxup.files import InputError

_ADE20K = 150  # classes


class _Case(NamedTuple):
    """A network as it is trained: how it is built, and the shapes of one example."""

    build: Callable[[], nnx.Module]
    shapes: Sequence[tuple[int, ...]]
    batch: int


def _cases() -> dict[str, _Case]:
    """The presets of the papers."""
    found = {}
    joint, enlarging = joint_upsampling.presets.nyu(), super_resolution.presets.paper()
    crop, scale = joint.crop or 256, max(joint.data.scales)
    shapes = (crop // scale, crop // scale, 1), (crop, crop, 3)
    found["joint upsampling, " + joint.label] = _Case(joint.build, shapes, joint.batch_size)
    low = enlarging.data.patch // enlarging.network.scale
    found["super-resolution, " + enlarging.label] = _Case(enlarging.build, [(low, low, 1)], enlarging.batch_size)
    noisy, rebuilt = denoising.presets.paper(), reconstruction.presets.paper()
    patch = noisy.data.patch
    found["denoising, " + noisy.label] = _Case(noisy.build, [(patch, patch, 1)], noisy.batch_size)
    found["reconstruction, " + rebuilt.label] = _Case(rebuilt.build, [(32, 32, 1)], rebuilt.batch_size)
    for name in ("segformer", "segmenter", "pspnet", "maskformer", "upernet"):
        config = getattr(segmentation.presets, name)()
        build = _without_data(config.network)
        found["segmentation, " + config.label] = _Case(build, [(*config.augmentation.crop, 3)], config.batch_size)
    for config in (matting.presets.indexnet(), matting.presets.a2u()):
        crop = config.augmentation.crop
        found["matting, " + config.label] = _Case(config.build, [(crop, crop, 4)], config.batch_size)
    for config, size in ((monocular_depth.presets.fastdepth(), (224, 224)), (monocular_depth.presets.hu(), (228, 304))):
        found["monocular depth, " + config.label] = _Case(config.build, [(*size, 3)], config.batch_size)
    return found


def _without_data(network: Any) -> Callable[[], nnx.Module]:
    return lambda: network.build(_ADE20K, 0)


def scaling(*, link: float = 25.0, rate: float = 50.0, only: tuple[str, ...] = ()) -> None:
    """Estimate at how many devices the all-reduce of gradients takes longer than the computation.

    A step of the paper's batch, split over N devices: each computes 3 forward passes of its share, and sends and
    receives 2 (N - 1) / N times the bytes of the float32 parameters in a ring. The all-reduce dominates from

        N - 1 = 3 F B link / (8 P rate)

    devices on, with F operations per example, B examples and P parameters; the two are not taken to overlap.

    Args:
        link: GB/s that a device sends; 25 is a port of 200 Gbit/s.
        rate: TFLOP/s that a device reaches, not its peak.
        only: words, one of which is in the network's name; none: all networks.
    """
    if link <= 0 or rate <= 0:
        raise InputError(f"link and rate: expected numbers above 0, got {link} and {rate}")
    cases = {name: case for name, case in _cases().items() if not only or any(word in name for word in only)}
    rows = [row(name, case, link, rate) for name, case in cases.items()]
    print(f"{link:g} GB/s per device, {rate:g} TFLOP/s\n\n{markdown_table(rows, digits=3)}")


def row(name: str, case: _Case, link: float, rate: float) -> dict[str, Any]:
    """One network's line of the table; a batch feeds at most as many devices as it has examples."""
    parameters, multiply_adds = costs(case.build, *((1, *shape) for shape in case.shapes))
    operations = 3 * 2 * multiply_adds * case.batch
    devices = dominated(parameters, operations, link, rate)
    return {
        "network": name,
        "batch": case.batch,
        "parameters (M)": parameters / 1e6,
        "TFLOP per step": operations / 1e12,
        "MB moved per device": 8 * parameters / 1e6,
        "all-reduce dominates from": f"{devices}" if devices <= case.batch else f"{devices} (> batch)",
    }


def dominated(parameters: int, operations: float, link: float, rate: float) -> int:
    """The least number of devices, of two and more, with which moving 8 P (N - 1) / N bytes takes the longer time.

    Example:
        >>> dominated(parameters=1_000_000, operations=1e12, link=8.0, rate=10.0)  # 0.1 s / N and 1 ms (N - 1) / N
        101
    """
    return max(2, 1 + math.ceil(operations / (rate * 1e12) * (link * 1e9) / (8 * parameters)))
