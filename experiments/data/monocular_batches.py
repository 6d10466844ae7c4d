"""From frames to examples of monocular depth, in the protocols of FastDepth and of Hu et al., restorable to the bit.

Both are given for frames of 640 x 480; other frames are brought to that height first in the same step, and examples of
another size see the same part of the frame.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import grain
import numpy as np
from PIL import Image
from scipy import ndimage

from experiments.data.batching import batched
from experiments.data.monocular import Frame, Source
from experiments.engine.samples import Named
from jaxup._colours import LUMA
from jaxup.files import InputError

Example = dict[str, np.ndarray]
Rng = np.random.Generator
Size = tuple[int, int]
_SHORT, _CROP = 250, (228, 304)  # FastDepth's height before its crop, and the crop
_HU_SIZE = (240, 320)
_DEGREES, _JITTER, _LIGHTING = 5.0, 0.4, 0.1
_COMPONENTS = np.array(  # principal components of the colours of ImageNet, times their deviations
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
) * np.array([0.2175, 0.0188, 0.0045])
_GREY = np.array(LUMA, np.float32)


@dataclass(frozen=True)
class Protocol:
    """How frames are brought to the size that networks see, and augmented for training."""

    manner: Literal["fastdepth", "hu"] = "fastdepth"
    """FastDepth: 250 x 333, its middle 228 x 304, squeezed to 224 x 224, by nearest pixels. Hu: 240 x 320, colours
    bilinearly, its middle 228 x 304; depth for training half of that."""
    height: int | None = None
    """Of the images; none: 224 (FastDepth), 228 (Hu)."""
    zoom: float = 1.5
    """FastDepth enlarges images for training by 1 to this, and divides their depth by it; 1.5 as published."""

    def __post_init__(self) -> None:
        if self.manner not in ("fastdepth", "hu"):
            raise InputError(f"manner: expected fastdepth or hu, got {self.manner!r}")
        if self.height is not None and self.height < 8:
            raise InputError(f"height: expected at least 8, got {self.height}")
        if not 1 <= self.zoom < math.inf:
            raise InputError(f"zoom: expected a number from 1 on, got {self.zoom}")


def examined(frame: Frame, how: Protocol) -> Example:
    """One example to test on.

    Returns:
        "image" float32 [h, w, 3] in 0 .. 1, "depth" float32 [h, w, 1] in metres and "valid" bool [h, w, 1], where it
        was measured.
    """
    if how.manner == "fastdepth":
        return _example(*_fastdepth(frame, how.height or 224))
    image, depth = _hu(frame, how.height or 228)
    return _example(image, depth)


def augmented(frame: Frame, how: Protocol, rng: Rng) -> Example:
    """One example to train on; with Hu's protocol depth has half of the size.

    FastDepth enlarges by up to `zoom`, which brings everything so much nearer, Hu changes the lighting along principal
    colours; both turn by up to 5 degrees, mirror, and change brightness, contrast and saturation by up to 0.4. Holes of
    the depth are not interpolated: it is turned by nearest pixels.
    """
    angle, mirrored = rng.uniform(-_DEGREES, _DEGREES), rng.random() < 0.5
    zoom = rng.uniform(1.0, how.zoom) if how.manner == "fastdepth" else 1.0
    if how.manner == "fastdepth":
        image, depth = _fastdepth(frame, how.height or 224, zoom, angle)
    else:
        turned = frame._replace(image=_turned(frame.image, angle, 2), depth=_turned(frame.depth, angle, 0))
        image, depth = _hu(turned, how.height or 228)
        depth = _nearest(depth, (max(1, depth.shape[0] // 2), max(1, depth.shape[1] // 2)))
    if mirrored:
        image, depth = image[:, ::-1], depth[:, ::-1]
    example = _example(image, depth)
    colours = jittered(example["image"], rng)
    if how.manner == "hu":
        colours = colours + (_COMPONENTS @ rng.normal(0, _LIGHTING, 3)).astype(np.float32)
    return example | {"image": colours.clip(0, 1)}


def _fastdepth(frame: Frame, height: int, zoom: float = 1.0, angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pixels throughout; sizes are truncated."""
    share = height / 224
    image, depth = frame.image, frame.depth
    first = _scaled(depth.shape, share * _SHORT / depth.shape[0])
    image, depth = _nearest(image, first), _nearest(depth, first)
    if angle:
        image, depth = _turned(image, angle, 0), _turned(depth, angle, 0)
    if zoom != 1:
        larger = _scaled(first, zoom)
        image, depth = _nearest(image, larger), _nearest(depth, larger) / np.float32(zoom)
    window = _middle(depth.shape, (round(share * _CROP[0]), round(share * _CROP[1])))
    return _nearest(image[window], (height, height)), _nearest(depth[window], (height, height))


def _hu(frame: Frame, height: int) -> tuple[np.ndarray, np.ndarray]:
    share = height / _CROP[0]
    size = round(share * _HU_SIZE[0]), round(share * _HU_SIZE[1])
    if frame.depth.shape[1] * 3 != frame.depth.shape[0] * 4:  # other shapes than NYU's keep theirs
        size = size[0], max(1, round(size[0] * frame.depth.shape[1] / frame.depth.shape[0]))
    colours = np.asarray(Image.fromarray(frame.image).resize(size[::-1], Image.Resampling.BILINEAR))
    window = _middle(size, (height, round(share * _CROP[1])))
    return colours[window], _nearest(frame.depth, size)[window]


def _scaled(size: tuple[int, ...], factor: float) -> Size:
    height, width = (max(1, int(n * factor + 1e-9)) for n in size)
    return height, width


def _nearest(x: np.ndarray, size: Size) -> np.ndarray:
    """The pixel whose middle is nearest, as Pillow."""
    rows, columns = ((2 * np.arange(m) + 1) * n // (2 * m) for n, m in zip(x.shape[:2], size, strict=True))
    picked: np.ndarray = x[rows[:, None], columns]
    return picked


def _middle(size: tuple[int, ...], crop: Size) -> tuple[slice, slice]:
    """A window of at most the size of the crop; halves are rounded to even."""
    spans = []
    for n, m in zip(size, crop, strict=True):
        first = max(round((n - m) / 2), 0)
        spans.append(slice(first, first + min(n, m)))
    return spans[0], spans[1]


def _turned(x: np.ndarray, degrees: float, order: int) -> np.ndarray:
    """About the middle, in its own size; black, and not measured, outside."""
    turned: np.ndarray = ndimage.rotate(x, degrees, axes=(1, 0), reshape=False, order=order, prefilter=order > 1)
    return turned


def jittered(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Brightness, contrast and saturation by factors from 0.6 to 1.4, in any order; float32 [H, W, 3] in 0 .. 1."""
    factors = rng.uniform(1 - _JITTER, 1 + _JITTER, 3).astype(np.float32)
    for kind in rng.permutation(3):
        grey = image @ _GREY
        towards = (np.float32(0), grey.mean(), grey[..., None])[kind]
        image = (towards + factors[kind] * (image - towards)).clip(0, 1)
    return image


def _example(image: np.ndarray, depth: np.ndarray) -> Example:
    metres = np.ascontiguousarray(depth[..., None])
    return {"image": image.astype(np.float32) / np.float32(255), "depth": metres, "valid": metres > 0}


def training_batches(source: Source, how: Protocol, *, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches of the examples of `augmented`, stacked, shuffled anew each epoch; frames need one shape.

    What example number i looks like depends on the source, the arguments and i alone, so that the iterator's state is a
    counter: `set_state` of what `get_state` returned continues with the same bits, in whatever process.

    Raises:
        ValueError: a batch size below 1; InputError (also from the iterator): a file that cannot be used, or a frame of
            another shape.
    """
    wanted = examined(source[0], how)["image"].shape[:2]

    def example(frame: Any, rng: Rng) -> Example:
        made = augmented(frame, how, rng)
        found = made["image"].shape[:2]
        if found != wanted:
            raise InputError(f"{frame.name}: expected the shape {wanted} that other frames have, got {found}")
        return made

    examples = grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat().random_map(example)
    return batched(examples, batch_size)
