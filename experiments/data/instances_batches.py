"""From scenes to training batches of one size: resized, mirrored and padded, as many objects in each."""

import warnings
from dataclasses import dataclass

import grain
import numpy as np
from PIL import Image

from experiments.data.batching import batched
from experiments.data.instances import Scene, Source
from experiments.data.segmentation import IGNORED
from experiments.engine.samples import Named
from jaxup.files import InputError

Example = dict[str, np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """What is done to images, in training each time anew."""

    short_side: int | None = 800
    """Images are brought to this size of their shorter side; none: they keep their own."""
    long_side: int = 1333
    """Their longer side has at most this size."""
    padded: tuple[int, int] = (1344, 1344)
    """Height and width of what the network sees, multiples of 32: images are made smaller until they fit, and the rest
    is black. All have one size, so that one program is compiled."""
    objects: int = 100
    """Places for objects of an image; of more the largest are kept, with a warning."""
    flip: bool = True
    """Mirror every other image in training."""

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "objects"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")
        if min(self.padded) < 32 or any(n % 32 for n in self.padded):
            raise InputError(f"padded: expected multiples of 32, got {self.padded}")

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The size to which such an image is brought."""
        factor = 1.0 if self.short_side is None else self.short_side / min(height, width)
        factor = min(factor, self.long_side / max(height, width), self.padded[0] / height, self.padded[1] / width)
        return max(1, round(factor * height)), max(1, round(factor * width))


def fitted(image: np.ndarray, how: Augmentation) -> tuple[np.ndarray, tuple[int, int]]:
    """An image as a network sees it, uint8 [h, w, 3], and the height and width of what is no padding."""
    shape = how.shape(*image.shape[:2])
    return _padded(_resized(image, shape, Image.Resampling.BILINEAR), how.padded), shape


def augmented(scene: Scene, how: Augmentation, rng: np.random.Generator) -> Example:
    """One example of size (h, w) with T places for objects, in the form that `MaskRCNN.losses` takes.

    "image" uint8 [h, w, 3], "limits" float32 [2]; "boxes" float32 [T, 4], "labels" int32 [T] with -1 behind the last,
    "masks" booleans [T, h, w], "crowd" booleans [T]; "semantic" uint8 [h, w].
    """
    image, shape = fitted(scene.image, how)
    size, kept = scene.image.shape[:2], chosen(scene, how.objects)
    stuff = _resized(scene.stuff, shape, Image.Resampling.NEAREST)
    drawn = (_resized(scene.masks[n].astype(np.uint8) * 255, shape, Image.Resampling.BILINEAR) for n in kept)
    masks = np.zeros((how.objects, *how.padded), bool)
    for number, mask in enumerate(drawn):
        masks[number, : shape[0], : shape[1]] = mask >= 128
    ratio = np.array([n / m for n, m in zip(shape, size, strict=True)][::-1] * 2, np.float32)
    boxes = (scene.boxes[kept] * ratio).clip(0, np.array(shape[::-1] * 2, np.float32))
    semantic = _padded(stuff, how.padded, IGNORED)
    if how.flip and rng.random() < 0.5:
        part = slice(shape[1])
        for x in (image, semantic, *masks):
            x[:, part] = x[:, part][:, ::-1].copy()
        boxes[:, [0, 2]] = shape[1] - boxes[:, [2, 0]]
    empty = how.objects - len(kept)
    return {
        "image": image,
        "limits": np.array(shape, np.float32),
        "boxes": np.pad(boxes, ((0, empty), (0, 0))),
        "labels": np.pad(scene.labels[kept], (0, empty), constant_values=-1),
        "masks": masks,
        "crowd": np.pad(scene.crowd[kept], (0, empty)),
        "semantic": semantic,
    }


def chosen(scene: Scene, count: int) -> np.ndarray:
    """The numbers of the objects for which there is a place: of more than that the largest, crowds last."""
    if len(scene.labels) <= count:
        return np.arange(len(scene.labels))
    text = f"{scene.name}: has {len(scene.labels)} objects, and the {count} largest are kept, as many as `objects`"
    warnings.warn(text, stacklevel=2)
    return np.sort(np.lexsort((-scene.areas, scene.crowd))[:count])


def _resized(x: np.ndarray, shape: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(x).resize(shape[::-1], method))


def _padded(x: np.ndarray, size: tuple[int, int], value: int = 0) -> np.ndarray:
    whole = np.full((*size, *x.shape[2:]), value, x.dtype)
    whole[: x.shape[0], : x.shape[1]] = x
    return whole


def training_batches(source: Source, how: Augmentation, *, batch_size: int, seed: int) -> grain.IterDataset[Example]:
    """Endless batches of the arrays of `augmented`, shuffled anew each epoch; see `segmentation_batches`.

    Raises:
        ValueError: a batch size below 1; InputError (from the iterator): a scene that cannot be used.
    """
    scenes = grain.MapDataset.source(Named(source)).seed(seed).shuffle().repeat()
    examples = scenes.random_map(lambda scene, rng: augmented(scene, how, rng))
    return batched(examples, batch_size, ahead=2)
