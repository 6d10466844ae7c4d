"""From layers to training batches of mattes: trimaps, crops around unknown pixels, augmentation; restorable to the bit.

In the manner of IndexNet's code, or of A2U's, whose order is the one of the public code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import grain
import numpy as np

from experiments.data.batching import batched
from experiments.data.matting import Layers, LayerSource
from experiments.engine.samples import Named
from jaxup import matting
from jaxup._opencv import resize_cubic, resize_nearest
from jaxup.files import InputError

Example = dict[str, np.ndarray]
Rng = np.random.Generator
_JOINED, _RESIZED = 0.5, 0.25  # how often A2U takes two foregrounds, and brings them to one size
_CROPS = (1.0, 1.5, 2.0)  # of IndexNet, relative to its size
_TURNED_FROM = 1024  # pixels: A2U turns larger images only
_DEGREES, _SHEAR, _ZOOM = 30, 10, (0.8, 1.25)
_HUE = 40 / 360


@dataclass(frozen=True)
class Augmentation:
    """How training examples of mattes are made, each time anew."""

    manner: Literal["indexnet", "a2u"] = "indexnet"
    """IndexNet: windows of one of three sizes, mirrored. A2U: joined, warped and discoloured foregrounds, too."""
    crop: int = 320
    """Height and width of the examples."""
    widest: int | None = None
    """Trimaps are dilated by 1 to this; none: 19 (IndexNet, a radius) or 29 (A2U, the size of an ellipse)."""

    def __post_init__(self) -> None:
        if self.manner not in ("indexnet", "a2u"):
            raise InputError(f"manner: expected indexnet or a2u, got {self.manner!r}")
        for name, value in (("crop", self.crop), ("widest", self.widest)):
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")


def augmented(layers: Layers, other: Callable[[Rng], Layers], how: Augmentation, rng: Rng) -> Example:
    """One example; `other` draws another foreground for A2U to join.

    Returns:
        float32 "image", "foreground" and "background" [c, c, 3], and "alpha" and "trimap" [c, c, 1], in 0 .. 1, with
        128 / 255 where the trimap does not know; "unknown" bool [c, c, 1], which is there.
    """
    return _as_indexnet(layers, how, rng) if how.manner == "indexnet" else _as_a2u(layers, other, how, rng)


def _as_indexnet(layers: Layers, how: Augmentation, rng: Rng) -> Example:
    """Everything is in 8 bits: images were composed before, and stored."""
    foreground, alpha = layers.foreground, layers.alpha
    background = matting.covering_background(layers.background, size=alpha.shape)
    image = matting.compose(foreground, background, alpha).astype(np.uint8)
    parts = [image, foreground, background, alpha]
    if min(alpha.shape) < how.crop:
        factor = 500 / 320 * how.crop / min(alpha.shape)
        height, width = (round(factor * n) for n in alpha.shape)
        parts = [resize_cubic(x, (height, width)) for x in parts]
    trimap = matting.trimap_by_distance(parts[3], radius=int(rng.integers(1, (how.widest or 19) + 1)))
    sizes = [size for share in _CROPS if (size := int(share * how.crop)) <= min(trimap.shape)]
    window = _window(trimap, sizes[rng.integers(len(sizes))], rng)
    parts = [resize_cubic(x[window], (how.crop, how.crop)) for x in parts]
    parts.append(resize_nearest(trimap[window], (how.crop, how.crop)))
    mirrored = slice(None, None, -1 if rng.random() < 0.5 else None)
    return _example(*(x[:, mirrored] for x in parts))


def _as_a2u(layers: Layers, other: Callable[[Rng], Layers], how: Augmentation, rng: Rng) -> Example:
    foreground, alpha = layers.foreground, layers.alpha
    if rng.random() < _JOINED:
        foreground, alpha = joined(foreground, alpha, other(rng))
    if rng.random() < _RESIZED:
        side = 640 * how.crop // 512
        foreground, alpha = (resize_cubic(x, (side, side)) for x in (foreground, alpha))
    foreground, alpha = warped(foreground, alpha, rng)
    if min(alpha.shape) < how.crop:
        height, width = (max(round(1.1 * how.crop * n / min(alpha.shape)), how.crop) for n in alpha.shape)
        foreground, alpha = (resize_cubic(x, (height, width)) for x in (foreground, alpha))
    first, second = (int(n) for n in rng.integers(1, (how.widest or 29) + 1, 2))
    trimap = matting.trimap_by_erosion(alpha, foreground=first, background=second)
    window = _window(trimap, how.crop, rng)
    background = matting.covering_background(layers.background, size=alpha.shape)[window]
    foreground, alpha, trimap = foreground[window], alpha[window], trimap[window]
    foreground = discoloured(foreground, alpha, rng)
    return _example(matting.compose(foreground, background, alpha), foreground, background, alpha, trimap)


def _window(trimap: np.ndarray, size: int, rng: Rng) -> tuple[slice, slice]:
    """A square around an unknown pixel, as far as the image goes; anywhere, where there is none."""
    unknown = np.flatnonzero(trimap == matting.UNKNOWN)
    chosen = unknown[rng.integers(len(unknown))] if len(unknown) else rng.integers(trimap.size)
    corner = [
        int(np.clip(p - size // 2, 0, n - size))
        for p, n in zip(np.unravel_index(chosen, trimap.shape), trimap.shape, strict=True)
    ]
    return slice(corner[0], corner[0] + size), slice(corner[1], corner[1] + size)


def joined(foreground: np.ndarray, alpha: np.ndarray, behind: Layers) -> tuple[np.ndarray, np.ndarray]:
    """Two foregrounds as one, the second brought to the size of the first and behind it.

    1 - a = (1 - a_1) (1 - a_2); colours are F_1 over F_2. As the code has it, the second counts only where the two are
    not opaque everywhere.
    """
    second, alpha2 = (resize_cubic(x, alpha.shape) for x in (behind.foreground, behind.alpha))
    both = 255 - (255 - alpha.astype(np.float32)) * (255 - alpha2.astype(np.float32)) / 255
    if not (both < 255).any():
        return foreground, alpha
    return np.rint(matting.compose(foreground, second, alpha)).astype(np.uint8), np.rint(both).astype(np.uint8)


def warped(foreground: np.ndarray, alpha: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A random affine map about the middle, nearest pixels, nothing outside: zoomed along each axis, sheared, mirrored
    either way, and where the image is large turned."""
    height, width = alpha.shape
    turn = np.deg2rad(rng.uniform(-_DEGREES, _DEGREES) if max(height, width) >= _TURNED_FROM else 0.0)
    shear, zoom = np.tan(np.deg2rad(rng.uniform(-_SHEAR, _SHEAR))), rng.uniform(*_ZOOM, 2)
    mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = rotation @ np.array([[1, 0], [shear, 1]]) @ np.diag(mirror / zoom)
    y, x = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    rows, columns = (
        np.rint(a * y + b * x + (n - 1) / 2).astype(int) for (a, b), n in zip(inverse, (height, width), strict=True)
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    at = rows.clip(0, height - 1), columns.clip(0, width - 1)
    return np.where(inside[..., None], foreground[at], 0).astype(np.uint8), np.where(inside, alpha[at], 0)


def discoloured(foreground: np.ndarray, alpha: np.ndarray, rng: Rng) -> np.ndarray:
    """Change hue by up to 40 degrees, and saturation and value by up to a tenth of what their mean lacks of 1.1."""
    from skimage import color  # here, because it is slow to import

    amounts = rng.uniform(-1, 1, 3)
    if not alpha.any():
        return foreground
    hsv = color.rgb2hsv(foreground)
    hsv[..., 0] = (hsv[..., 0] + _HUE * amounts[0]) % 1
    for channel, amount in ((1, amounts[1]), (2, amounts[2])):
        changed = np.abs(hsv[..., channel] + amount * (1.1 - hsv[..., channel][alpha > 0].mean()) / 10)
        hsv[..., channel] = np.where(changed > 1, 2 - changed, changed)
    return np.rint(255 * color.hsv2rgb(hsv)).astype(np.uint8)


def _example(
    image: np.ndarray, foreground: np.ndarray, background: np.ndarray, alpha: np.ndarray, trimap: np.ndarray
) -> Example:
    colours = {"image": image, "foreground": foreground, "background": background}
    maps = {"alpha": alpha[..., None], "trimap": trimap[..., None]}
    scaled = {name: x.astype(np.float32) / np.float32(255) for name, x in (colours | maps).items()}
    return scaled | {"unknown": trimap[..., None] == matting.UNKNOWN}


def training_batches(
    source: LayerSource, how: Augmentation, *, batch_size: int, seed: int
) -> grain.IterDataset[Example]:
    """Endless batches of the examples of `augmented`, stacked to [B, c, c, ...], shuffled anew each epoch.

    What example number i looks like depends on the source, the arguments and i alone, so that the iterator's state is a
    counter: `set_state` of what `get_state` returned continues with the same bits, in whatever process.

    Raises:
        ValueError: a batch size below 1; InputError (from the iterator): a file that cannot be used.
    """

    read = Named(source)

    def other(rng: Rng) -> Layers:
        return read[int(rng.integers(len(read)))]

    def example(layers: Any, rng: Rng) -> Example:
        return augmented(layers, other, how, rng)

    examples = grain.MapDataset.source(read).seed(seed).shuffle().repeat().random_map(example)
    return batched(examples, batch_size)
