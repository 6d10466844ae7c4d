"""Images with a class for each pixel: what a source of them is, and pairs of files as one.

The sets that papers use are in `segmentation_sets`, generated images in `segmentation_shapes`, what is done to images
for training in `segmentation_batches`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from experiments.data import images, sources
from experiments.data.images import reading
from experiments.data.photos import image_files
from jaxup._matlab import numbers_of, read_mat
from jaxup.files import InputError

IGNORED = 255
"""The label of pixels that count neither in the loss nor in scores."""


class Labelled(NamedTuple):
    """An image and its labels.

    Attributes:
        image: uint8 [H, W, 3].
        labels: uint8 [H, W], classes from 0 on, or `IGNORED`.
        name: what tables and file names call it.
    """

    image: np.ndarray
    labels: np.ndarray
    name: str


class Source(Protocol):
    """A sequence of labelled images."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, of which labels are the indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Labelled: ...


class Pair(NamedTuple):
    """The files of one image."""

    name: str
    image: Path
    labels: Path


class Files:
    """Images and label maps from pairs of files, which are decoded when they are asked for.

    Args:
        pairs: the files. Label maps are grey images or palettes, whose numbers count, or `.mat` files of SBD.
        classes: their names.
        first: the number of class 0 in the label maps; the numbers below it stand for no class.
        void: further numbers of no class.
        table: the class of each number of the label maps, from 0 on, in the place of `first`; `IGNORED` for none.

    Raises:
        InputError: there are no pairs; when a pair is read, a file that is missing or cannot be read, different sizes,
            or a label that is none of these numbers.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: Sequence[str],
        first: int = 0,
        void: Sequence[int] = (255,),
        table: np.ndarray | None = None,
    ):
        if not pairs:
            raise InputError("pairs: expected at least one image with its labels")
        if not 1 <= len(classes) < IGNORED:
            raise InputError(f"classes: expected 1 to {IGNORED - 1}, got {len(classes)}")
        self.pairs, self.classes, self.first, self.void, self.table = pairs, classes, first, void, table

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Labelled:
        name, image, labels = self.pairs[index]
        stored = read_labels(labels)
        if self.table is not None:
            stored = _looked_up(stored, self.table, labels)
        return labelled(images.read_rgb(image), stored, name, labels, self.classes, self.first, self.void)


def _looked_up(stored: np.ndarray, table: np.ndarray, origin: object) -> np.ndarray:
    known = (stored >= 0) & (stored < len(table))
    if not (known | (stored == IGNORED)).all():
        wrong = stored[~(known | (stored == IGNORED))].flat[0]
        raise InputError(
            f"{origin}: holds the label {wrong}, expected 0 to {len(table) - 1}, or {IGNORED} for no class"
        )
    return np.where(known, table[np.where(known, stored, 0)], IGNORED)


def labelled(
    image: np.ndarray,
    stored: np.ndarray,
    name: str,
    origin: object,
    classes: Sequence[str],
    first: int = 0,
    void: Sequence[int] = (255,),
) -> Labelled:
    """Check a pair and give it the labels that are used here; see `Files`. Errors name `origin`."""
    if image.shape[:2] != stored.shape:
        raise InputError(
            f"{origin}: labels of {stored.shape[1]} x {stored.shape[0]} pixels for an image of "
            f"{image.shape[1]} x {image.shape[0]}"
        )
    classed = (stored >= first) & (stored < first + len(classes))
    none = ~classed & ((stored >= 0) & (stored < first) | np.isin(stored, void))
    if not (classed | none).all():
        wrong = stored[~(classed | none)].flat[0]
        others = sorted({*range(first), *void})
        raise InputError(
            f"{origin}: holds the label {wrong}, expected {first} to {first + len(classes) - 1}"
            + (f", or {', '.join(map(str, others))} for no class" if others else "")
        )
    return Labelled(image, np.where(none, IGNORED, stored - first).astype(np.uint8), name)


def read_labels(path: Path) -> np.ndarray:
    """Read a label map: the numbers of a grey image or the indices of a palette, or of SBD's `.mat` its GTcls.

    Returns:
        int32 [H, W].

    Raises:
        InputError: the file is missing, cannot be read, or is of colours.
    """
    with reading(path):
        if path.suffix.lower() == ".mat":
            return _from_mat(path)
        with images.open_image(path) as image:
            if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
                raise InputError(f"{path}: expected one number a pixel, a grey image or a palette, got {image.mode}")
            return np.asarray(image).astype(np.int32)


def _from_mat(path: Path) -> np.ndarray:
    (stored,) = read_mat(path, "GTcls")
    labels = numbers_of(stored["Segmentation"])
    if labels.dtype.kind not in "ui":
        raise InputError(f"{path}: expected integers, got {labels.dtype}")
    return labels.astype(np.int32)


def paired(image_folder: Path, label_folder: Path, suffix: str = "") -> list[Pair]:
    """The images of a folder by name, each with the label map NAME + suffix of another folder.

    Raises:
        InputError: a folder is missing or has no images, two files have one name, or one is without its partner.
    """
    pictures = _by_stem(image_files(image_folder))
    maps = _by_stem(image_files(label_folder))
    for name, file in pictures.items():
        if name + suffix not in maps:
            raise InputError(f"{file}: has no label map {name}{suffix} in {label_folder}")
    for name, file in maps.items():
        if not name.endswith(suffix) or name.removesuffix(suffix) not in pictures:
            raise InputError(f"{file}: has no image in {image_folder}")
    return [Pair(name, file, maps[name + suffix]) for name, file in pictures.items()]


def listed(path: Path) -> list[str]:
    """The lines of a file of names, which lead nowhere else."""
    with reading(path):
        names = path.read_text().split()
        for name in names:
            images.listed_file(path, path.parent, name)
    if not names:
        raise InputError(f"{path}: lists no images")
    return names


def decoded(path: Path, data: bytes) -> np.ndarray:
    """An image file inside of a file, uint8 [H, W, 3]."""
    with images.open_image(path, data) as image:
        return np.asarray(image.convert("RGB"))


class First(sources.First[Labelled]):
    """The first `count` images of a source."""

    def __init__(self, source: Source, count: int):
        super().__init__(source, count)
        self.classes = source.classes


class Cached(sources.Cached[Labelled]):
    """Keeps the images of a source in memory after their first use."""

    def __init__(self, source: Source):
        super().__init__(source)
        self.classes = source.classes


def _by_stem(files: Sequence[Path]) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise InputError(f"{file}: {found[file.stem].name} is there too, which one is meant?")
        found[file.stem] = file
    return found
