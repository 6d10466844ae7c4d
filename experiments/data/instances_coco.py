"""COCO's objects and panoptic maps, from its folder: annotations/*.json, train2017 and val2017."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.images import listed_file, read_rgb, reading
from experiments.data.instances import Scene, Source, boxes_of
from experiments.data.segmentation import IGNORED
from experiments.data.segmentation_sets import Split
from jaxup import files
from jaxup.files import InputError, require

Entry = Mapping[str, Any]


class _Annotated:
    """What is in a JSON file of COCO, by image; what is wrong with it is an `InputError` that names the file."""

    def __init__(self, path: Path, folder: Path):
        self.path, self.folder = path, folder
        with reading(path):
            stored = json.loads(path.read_bytes())
            self.categories = sorted(stored["categories"], key=lambda category: int(category["id"]))
            self.images = {int(entry["id"]): entry for entry in stored["images"]}
            self.annotations = defaultdict[int, list[Entry]](list)
            for entry in stored["annotations"]:
                self.annotations[int(entry["image_id"])].append(entry)
            if unknown := self.annotations.keys() - self.images.keys():
                raise InputError(f"{path}: has annotations of image {min(unknown)}, which is not there")
            names = [str(category["name"]) for category in self.categories]
            thing = [bool(category.get("isthing", 1)) for category in self.categories]
        self.things = [name for name, is_thing in zip(names, thing, strict=True) if is_thing]
        self.ids = [int(kind["id"]) for kind, is_thing in zip(self.categories, thing, strict=True) if is_thing]
        self.stuff = [name for name, is_thing in zip(names, thing, strict=True) if not is_thing]
        order = sorted(range(len(names)), key=lambda k: not thing[k])
        self.classes = {int(self.categories[k]["id"]): n for n, k in enumerate(order)}
        if not self.things or len(self.stuff) >= IGNORED:
            raise InputError(f"{path}: expected things and fewer than {IGNORED} classes of stuff")
        self.numbers = sorted(self.images)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, number: int) -> tuple[np.ndarray, str]:
        """An image and its name, for messages as well."""
        with reading(self.path):
            name = str(self.images[number]["file_name"])
        return read_rgb(listed_file(self.path, self.folder, name)), Path(name).stem

    def class_of(self, entry: Entry) -> int:
        """Of things from 0 on, and then of stuff."""
        category = int(entry["category_id"])
        if category not in self.classes:
            raise InputError(f"{self.path}: has the category {category}, which is not listed")
        return self.classes[category]


class Instances(_Annotated):
    """COCO's objects, by polygons or run lengths.

    Args:
        path: instances_*.json.
        folder: of the images.
        empty: images without any object, too.

    Raises:
        InputError: the file cannot be read or has no image; when a scene is read, what is wrong with it, or pycocotools
            is not installed.
    """

    def __init__(self, path: Path, folder: Path, empty: bool = True):
        super().__init__(path, folder)
        self.numbers = [n for n in self.numbers if empty or n in self.annotations]
        if not self.numbers:
            raise InputError(f"{path}: lists no images")

    def __getitem__(self, index: int) -> Scene:
        number = self.numbers[index]
        image, name = self.read(number)
        size, found = image.shape[:2], self.annotations.get(number, [])
        with reading(self.path):
            boxes = np.array([_box(entry["bbox"]) for entry in found], np.float32).reshape(-1, 4)
            masks = np.array([mask_of(entry["segmentation"], *size) for entry in found], bool).reshape(-1, *size)
            labels = np.array([self.class_of(entry) for entry in found], np.int32)
            crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in found], bool)
            areas = np.array([float(entry["area"]) for entry in found], np.float32)
        return Scene(image, boxes, labels, masks, crowd, areas, np.full(size, IGNORED, np.uint8), name)


class Panoptic(_Annotated):
    """COCO's panoptic maps: PNG of the numbers R + 256 G + 256^2 B of segments, of which the JSON file tells the class.

    Args:
        path: panoptic_*.json.
        folder: of the images.
        maps: folder of the PNG files.

    Raises:
        InputError: as `Instances`.
    """

    def __init__(self, path: Path, folder: Path, maps: Path):
        super().__init__(path, folder)
        self.maps, self.numbers = maps, [n for n in self.numbers if n in self.annotations]
        if not self.numbers:
            raise InputError(f"{path}: lists no maps")

    def __getitem__(self, index: int) -> Scene:
        number = self.numbers[index]
        image, name = self.read(number)
        with reading(self.path):
            entry = self.annotations[number][0]
            png = listed_file(self.path, self.maps, str(entry["file_name"]))
            segments = [(int(s["id"]), self.class_of(s), bool(s.get("iscrowd", 0))) for s in entry["segments_info"]]
        stored = files.read_rgb(png)
        if stored.dtype != np.uint8 or stored.shape != image.shape:
            raise InputError(f"{png}: expected 8 bits and the size of its image, {image.shape[:2]}, got {stored.shape}")
        ids = stored.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        if different := {n for n, _, _ in segments} ^ set(np.setdiff1d(ids, [0]).tolist()):
            raise InputError(f"{png}: the segment {min(different)} is not in both the map and {self.path.name}")
        stuff, things = np.full(ids.shape, IGNORED, np.uint8), len(self.things)
        for n, kind, _ in segments:
            stuff[ids == n] = len(self.stuff) if kind < things else kind - things
        objects = [segment for segment in segments if segment[1] < things]
        masks = np.array([ids == n for n, _, _ in objects], bool).reshape(-1, *ids.shape)
        labels, crowd = np.array([s[1] for s in objects], np.int32), np.array([s[2] for s in objects], bool)
        return Scene(image, boxes_of(masks), labels, masks, crowd, masks.sum((1, 2), dtype=np.float32), stuff, name)


def mask_of(stored: Any, height: int, width: int) -> np.ndarray:
    """The mask of an annotation, booleans [H, W]: of polygons, or of run lengths, column by column, plain or packed.

    Raises:
        InputError: run lengths of another size, or coordinates that are none; pycocotools is not installed.
    """
    if isinstance(stored, dict):
        if list(stored["size"]) != [height, width]:
            raise InputError(f"segmentation: expected run lengths of the size {[height, width]}, got {stored['size']}")
        return _runs(stored["counts"], height, width)
    coder = require("pycocotools.mask")
    polygons = [np.asarray(polygon, np.float64).ravel() for polygon in stored]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise InputError("segmentation: expected polygons of three points or more")
        # Not beyond one image to each side: pycocotools takes as many steps as a line is long.
        np.clip(polygon, -max(height, width), 2 * max(height, width), out=polygon)
    if not polygons:
        return np.zeros((height, width), bool)
    codes = coder.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return _runs(coder.merge(codes)["counts"].decode(), height, width)


def _runs(counts: Sequence[int] | str, height: int, width: int) -> np.ndarray:
    lengths = _unpacked(counts) if isinstance(counts, str) else [int(n) for n in counts]
    if sum(lengths) != height * width or min(lengths) < 0:
        raise InputError(f"segmentation: expected run lengths of {height * width} pixels in all, got {sum(lengths)}")
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(pixels.reshape(width, height).T)


def _unpacked(code: str) -> list[int]:
    """Packed run lengths: each in parts of 5 bits, from the third one on as the difference from the last but one."""
    lengths, value, shift = list[int](), 0, 0
    for byte in code.encode("ascii"):
        part = byte - 48
        value, shift = value | (part & 31) << shift, shift + 5
        if shift > 60:
            raise InputError("segmentation: a run length of more than 60 bits")
        if not part & 32:
            value -= (1 << shift) if part & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths


def _box(stored: Sequence[float]) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) of COCO's (x, y, width, height)."""
    x, y, width, height = (float(number) for number in stored)
    if not all(map(math.isfinite, (x, y, width, height))):
        raise InputError(f"bbox: expected four numbers, got {stored}")
    return x, y, x + width, y + height


def coco(root: Path, split: Split) -> Source:
    """COCO 2017's objects; images without any are not trained on. Results are on val, as the tests have no labels."""
    base, year = _base(root), "train2017" if split == "train" else "val2017"
    return Instances(base / "annotations" / f"instances_{year}.json", base / year, empty=split != "train")


def coco_panoptic(root: Path, split: Split) -> Source:
    """COCO 2017's panoptic maps, which are beside their JSON files or in the folder itself."""
    base, year = _base(root), "train2017" if split == "train" else "val2017"
    name = f"panoptic_{year}"
    beside = base / "annotations" / name
    maps = beside if beside.is_dir() else base / name
    return Panoptic(base / "annotations" / f"{name}.json", base / year, maps)


def _base(root: Path) -> Path:
    base = next((base for base in (root, root / "coco") if (base / "annotations").is_dir()), None)
    if base is None:
        raise InputError(f"{root}: has neither annotations nor coco/annotations")
    return base
