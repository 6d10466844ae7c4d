"""Images with their objects, each with a mask, and with stuff: what a source of them is.

COCO's folders are in `instances_coco`, generated scenes in `instances_shapes`, what is done to images for training in
`instances_batches`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from experiments.data import sources
from jaxup.metrics import Segment


class Scene(NamedTuple):
    """An image, its objects and its stuff.

    Attributes:
        image: uint8 [H, W, 3].
        boxes: float32 [N, 4], (x1, y1, x2, y2) in pixels.
        labels: int32 [N], classes of things.
        masks: booleans [N, H, W].
        crowd: booleans [N], which are groups that were not told apart.
        areas: float32 [N], by which measures tell small objects from large ones.
        stuff: uint8 [H, W], classes of stuff, their number for things, and `IGNORED`.
        name: what tables and file names call it.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    stuff: np.ndarray
    name: str


class Source(Protocol):
    """A sequence of scenes."""

    @property
    def things(self) -> Sequence[str]:
        """Names of the classes of objects, of which labels are the indices."""

    @property
    def stuff(self) -> Sequence[str]:
        """Names of the classes of stuff; none where there are objects alone."""

    @property
    def ids(self) -> Sequence[int]:
        """The numbers by which files call the classes of objects; none where there are no files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Scene: ...


class First(sources.First[Scene]):
    """The first `count` scenes of a source."""

    def __init__(self, source: Source, count: int):
        super().__init__(source, count)
        self.things, self.stuff, self.ids = source.things, source.stuff, source.ids


class Cached(sources.Cached[Scene]):
    """Keeps the scenes of a source in memory after their first use."""

    def __init__(self, source: Source):
        super().__init__(source)
        self.things, self.stuff, self.ids = source.things, source.stuff, source.ids


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The smallest boxes around masks, booleans [N, H, W] -> float32 [N, 4]; zeros for one that is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for axis in (0, 1):  # columns, rows
        there = np.asarray(masks.any(axis=1 + axis))
        some = there.any(axis=1)
        boxes[:, axis] = np.where(some, there.argmax(axis=1), 0)
        boxes[:, 2 + axis] = np.where(some, there.shape[1] - there[:, ::-1].argmax(axis=1), 0)
    return boxes


def segments_of(scene: Scene, things: int, stuff: int) -> tuple[np.ndarray, list[Segment]]:
    """The map of segments of a scene, int32 [H, W], and what its numbers mean: things come before stuff.

    Object n is number n + 1; the categories of stuff follow those of things. An object of which nothing is left where
    masks overlap is no segment.
    """
    segments = np.zeros(scene.stuff.shape, np.int32)
    for number, mask in enumerate(scene.masks, 1):
        segments[mask] = number
    left, count = segments == 0, len(scene.labels)
    of_stuff = left & (scene.stuff < stuff)
    segments[of_stuff] = count + 1 + scene.stuff[of_stuff].astype(np.int32)
    present = np.setdiff1d(segments, [0]).tolist()
    found = [
        Segment(n, int(scene.labels[n - 1]), bool(scene.crowd[n - 1]))
        if n <= count
        else Segment(n, things + n - count - 1)
        for n in present
    ]
    return segments, found
