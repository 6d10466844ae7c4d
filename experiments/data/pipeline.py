"""From a source of pairs to training batches, deterministic and restorable to the bit."""

import math
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from experiments.data.batching import batched
from experiments.data.degrade import NOISE_VARIANCE, check_protocol, crop_to_multiple, low_resolution
from experiments.data.rgbd import RGBD, Source
from experiments.engine.samples import Named
from jaxup._checks import check_divides, check_int
from jaxup.files import InputError

Example = dict[str, np.ndarray]


def normalised(sample: RGBD, scale: int, protocol: str = "grid", seed: int | Sequence[int] = 0) -> Example:
    """Degrade a pair and bring both resolutions of its depth to the unit the network sees.

    With t the low-resolution depth, offset = min t and range = max t - min t (1 where t is constant to
    rounding), everything that is known when the method is used: target = (t - offset) / range, depth = (d -
    offset) / range. The high-resolution depth may therefore leave [0, 1]. A prediction p means p * range +
    offset. With the protocol "noise", t is the depth without noise, and target = (t - offset) / range + n with n from
    N(0, NOISE_VARIANCE).

    Args:
        sample: A pair of H x W pixels.
        scale: Integer factor s that divides H and W.
        protocol: See `low_resolution`.
        seed: Of the noise.

    Returns:
        float32 arrays "target" [H/s, W/s, 1], "guide" [H, W, 3], "depth" [H, W, 1], "valid" [H, W, 1] of
        zeros and ones, "offset" and "range" [1, 1, 1].
    """
    target = low_resolution(sample.depth, scale, protocol)
    low, high = target.min(keepdims=True), target.max(keepdims=True)
    constant = high - low <= 1e-6 * np.maximum(np.abs(low), np.abs(high))
    span = np.where(constant, np.float32(1), high - low)
    target = (target - low) / span
    if protocol == "noise":
        noise = np.random.default_rng(seed).standard_normal(target.shape, np.float32)
        target = target + np.float32(NOISE_VARIANCE**0.5) * noise
    return {
        "target": target,
        "guide": sample.guide,
        "depth": (sample.depth - low) / span,
        "valid": sample.valid.astype(np.float32),
        "offset": low,
        "range": span,
    }


def random_crop(sample: RGBD, crop: int, rng: np.random.Generator) -> RGBD:
    """Cut a window of `crop` x `crop` pixels at a random place and mirror it half of the time."""
    height, width = sample.depth.shape[:2]
    if min(height, width) < crop:
        raise InputError(f"{sample.name}: {width} x {height} pixels are fewer than the crop of {crop} x {crop}")
    y, x = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
    window = sample.cut(slice(y, y + crop), slice(x, x + crop))
    return window if rng.random() < 0.5 else window.cut(slice(None), slice(None, None, -1))


def training_batches(
    source: Source,
    *,
    scales: Sequence[int],
    crop: int | None,
    batch_size: int,
    protocol: str = "grid",
    seed: int = 0,
) -> grain.IterDataset[Example]:
    """Endless training batches: shuffled anew each epoch, cropped, mirrored, degraded, normalised.

    All examples of a batch have one scale; batch number i has `scales[i % len(scales)]`. What example number
    i looks like depends on `source`, the arguments and i alone, so the iterator's state is a counter:
    `set_state` of what `get_state` returned continues with the same bits, in whatever process.

    Args:
        source: Pairs of at least `crop` x `crop` pixels.
        scales: Integer factors, each a divisor of `crop`.
        crop: Side of the high-resolution window in pixels. None: whole images, not mirrored, cut to the next multiple
            of the scales; with more than one example in a batch they need one size.
        batch_size: Examples in a batch. An epoch need not be a whole number of batches.
        protocol: See `low_resolution`.
        seed: From 0 to 2**32 - 1; decides order, windows, mirroring and noise.

    Returns:
        A dataset of the dictionaries of `normalised`, stacked to [B, ...].

    Raises:
        ValueError: an argument out of its range; InputError (from the iterator): a pair that cannot be used.
    """
    check_protocol(protocol, scales)
    for scale in scales:
        check_int("scales", scale)
        if crop is not None:
            check_divides("scales", scale, "crop", check_int("crop", crop))
    if not scales or not len(source):
        raise ValueError(f"scales and source: expected at least one each, got {scales} and {len(source)} pairs")

    def degrade(index: int, sample: RGBD) -> Example:
        return normalised(sample, scales[index // batch_size % len(scales)], protocol, (seed, index))

    def cut(sample: Any, rng: np.random.Generator) -> RGBD:
        return crop_to_multiple(sample, math.lcm(*scales)) if crop is None else random_crop(sample, crop, rng)

    examples = (
        grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat().random_map(cut).map_with_index(degrade)
    )
    return batched(examples, batch_size)
