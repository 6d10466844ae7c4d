"""From labelled images to training batches: scaled, cropped, mirrored and discoloured, restorable to the bit."""

from dataclasses import dataclass

import grain
import numpy as np
from PIL import Image

from experiments.data.batching import batched
from experiments.data.segmentation import IGNORED, Labelled, Source
from experiments.engine.samples import Named
from jaxup.files import InputError

Example = dict[str, np.ndarray]
_TRIES = 10  # crops that are drawn where one class has nearly all of it, as mmsegmentation does
_ATTENTION = 0.75  # the most of a crop that a class may have
_RESAMPLING = Image.Resampling


@dataclass(frozen=True)
class Augmentation:
    """What is done to images for training, each time anew."""

    crop: tuple[int, int] = (512, 512)
    """Height and width of the examples; what an image lacks is black, and ignored."""
    short_side: int | None = None
    """Images are first brought to this size of their shorter side; none: they keep their own."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Then they are enlarged by a factor from here to there."""
    flip: bool = True
    """Mirror every other one."""
    jitter: bool = True
    """Change brightness and contrast by up to 1/8 and 1/2, saturation by up to 1/2, hue by up to 36 degrees."""

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise InputError(f"crop: expected a height and a width of at least 1, got {self.crop}")
        if self.short_side is not None and self.short_side < 1:
            raise InputError(f"short_side: expected at least 1, got {self.short_side}")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise InputError(f"scales: expected two numbers above 0, ascending, got {self.scales}")


def augmented(sample: Labelled, how: Augmentation, rng: np.random.Generator) -> Example:
    """One example: "image" uint8 [h, w, 3] and "labels" uint8 [h, w] of the size of the crop."""
    height, width = sample.labels.shape
    factor = rng.uniform(*how.scales) * ((how.short_side or min(height, width)) / min(height, width))
    size = max(1, round(factor * height)), max(1, round(factor * width))
    for _ in range(_TRIES):
        corner = [int(rng.integers(max(n - c, 0) + 1)) for n, c in zip(size, how.crop, strict=True)]
        window = _window(sample.labels, size, how.crop, corner, _RESAMPLING.NEAREST)
        counts = np.bincount(window[window != IGNORED].ravel(), minlength=1)
        if counts.max() <= _ATTENTION * counts.sum():
            break
    image = _window(sample.image, size, how.crop, corner, _RESAMPLING.BILINEAR)
    if how.flip and rng.random() < 0.5:
        image, window = image[:, ::-1], window[:, ::-1]
    if how.jitter:
        image = discoloured(image, rng)
    return {"image": _filled(image, how.crop, 0), "labels": _filled(window, how.crop, IGNORED)}


def _window(
    x: np.ndarray, size: tuple[int, int], crop: tuple[int, int], corner: list[int], method: Image.Resampling
) -> np.ndarray:
    """What a crop sees of an array that is resized to `size`; no more than that is computed."""
    end = [min(c + n, total) for c, n, total in zip(corner, crop, size, strict=True)]
    ratio = [n / total for n, total in zip(x.shape[:2], size, strict=True)]
    top, left, bottom, right = (v * r for v, r in zip((*corner, *end), (*ratio, *ratio), strict=True))
    shape = end[1] - corner[1], end[0] - corner[0]
    return np.asarray(Image.fromarray(x).resize(shape, method, box=(left, top, right, bottom)))


def _filled(x: np.ndarray, crop: tuple[int, int], value: int) -> np.ndarray:
    margins = [(0, n - m) for n, m in zip(crop, x.shape[:2], strict=True)]
    return np.ascontiguousarray(np.pad(x, margins + [(0, 0)] * (x.ndim - 2), constant_values=value))


def discoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photometric distortion of uint8 [H, W, 3], each part of it every other time, in the order of SSD."""
    amounts = rng.uniform(-1, 1, 4)
    brightness, contrast, saturation, hue = amounts * (rng.random(4) < 0.5)
    contrast_first = rng.random() < 0.5
    image = image.astype(np.float32) + np.float32(32 * brightness)
    if contrast_first:
        image = image * np.float32(1 + contrast / 2)
    image = _rounded(image)
    if saturation or hue:
        hsv = np.array(Image.fromarray(image).convert("HSV"))
        hsv[..., 0] += np.uint8(round(hue * 36 * 256 / 360) % 256)  # turns round by itself
        hsv[..., 1] = _rounded(hsv[..., 1] * np.float32(1 + saturation / 2))
        image = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return image if contrast_first else _rounded(image * np.float32(1 + contrast / 2))


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.rint(x).clip(0, 255).astype(np.uint8)


def training_batches(source: Source, how: Augmentation, *, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches "image" uint8 [B, h, w, 3] and "labels" uint8 [B, h, w], shuffled anew each epoch.

    What example number i looks like depends on the source, the arguments and i alone, so that the iterator's state is a
    counter: `set_state` of what `get_state` returned continues with the same bits, in whatever process.

    Raises:
        ValueError: a batch size below 1; InputError (from the iterator): an image that cannot be used.
    """
    examples = grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat()
    augmented_ones = examples.random_map(lambda sample, rng: augmented(sample, how, rng))
    return batched(augmented_ones, batch_size)
