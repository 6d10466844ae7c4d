"""The data sets of segmentation papers, from their folders; see `SETS`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.data.images import read_arrays, reading
from experiments.data.photos import image_files
from experiments.data.segmentation import IGNORED, Files, Labelled, Pair, Source, decoded, labelled, listed, paired
from jaxup.files import InputError

Split = Literal["train", "val", "test"]

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
SUN = [
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor-mat",
    "clothes",
    "ceiling",
    "books",
    "fridge",
    "tv",
    "paper",
    "towel",
    "shower-curtain",
    "box",
    "whiteboard",
    "person",
    "night-stand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
]
CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic-light": 19,
    "traffic-sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}  # and their numbers in label maps
COCO_STUFF = [
    "electronic",
    "appliance",
    "food",
    "furniture",
    "indoor",
    "kitchen",
    "accessory",
    "animal",
    "outdoor",
    "person",
    "sports",
    "vehicle",
    "ceiling",
    "floor",
    "food-stuff",
    "furniture-stuff",
    "rawmaterial",
    "textile",
    "wall",
    "window",
    "building",
    "ground",
    "plant",
    "sky",
    "solid",
    "structural",
    "water",
]
# How many numbers in a row are of one class: of things, which are sorted.
_THINGS = ((9, 1), (11, 8), (8, 6), (7, 10), (6, 8), (10, 10), (5, 8), (2, 10), (3, 10), (0, 6), (1, 6), (4, 8))
# The class of each kind of stuff.
_STUFF = """
17 17 22 20 20 22 15 25 16 13 12 12 17 17 23 15 15 17 15 21 15 25 13 13 13 13 13 22 26 14 14 15 22 21 21 24 20 22 15 17
16 15 22 24 21 17 25 16 21 17 22 16 21 21 25 21 26 21 24 20 17 14 21 26 15 23 20 21 24 15 24 22 25 15 20 17 17 22 14 18
18 18 18 18 18 18 26 26 19 19 24
"""
_CURATED = "Coco164kFull_Stuff_Coarse_7.txt"
_ADE = 150
_SUN_TESTS = 5050


class Archive:
    """CamVid as one `.npz` for each split, which holds image files: names, labels, streams and offsets.

    Image n is the file that is streams[offsets[n] : offsets[n + 1]]; labels are uint8 [N, H, W], 11 for no class.

    Raises:
        InputError: the file is missing, cannot be read, or its arrays do not fit; when an image is read, as `Files`.
    """

    def __init__(self, path: Path):
        names = ("names", "labels", "streams", "offsets")
        self.names, self.labels, self.streams, self.offsets = read_arrays(path, names).values()
        count = self.names.size
        fits = self.names.shape == (count,) and self.labels.ndim == 3 and len(self.labels) == count > 0
        fits &= self.streams.ndim == 1 and self.offsets.shape == (count + 1,)
        fits &= all(a.dtype.kind in "ui" for a in (self.labels, self.streams, self.offsets))
        if fits:
            self.offsets = self.offsets.astype(np.int64)
            ends = np.concatenate([[0], self.offsets, [len(self.streams)]])
            fits = not (np.diff(ends) < 0).any()
        if not fits:
            raise InputError(f"{path}: names, labels, streams and offsets do not fit")
        self.path, self.classes = path, CAMVID

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Labelled:
        index = range(len(self))[index]
        name = " ".join(str(self.names[index]).split())
        origin = f"{self.path}: {name}"
        with reading(self.path):
            try:
                image = decoded(self.path, self.streams[self.offsets[index] : self.offsets[index + 1]].tobytes())
            except Exception as error:
                raise InputError(f"{origin}: cannot be read: {' '.join(str(error).split())}") from error
        labels = self.labels[index].astype(np.int32)
        return labelled(image, labels, name, origin, CAMVID, void=(11, 255))


def camvid(root: Path, split: Split) -> Source:
    """CamVid, 11 classes: camvid_SPLIT.npz, here or in seg, or SegNet's folders SPLIT and SPLITannot.

    Reference:
        Brostow et al., Semantic Object Classes in Video, PRL 2009; Badrinarayanan et al., SegNet, TPAMI 2017.
    """
    for base in (root, root / "seg"):
        if (base / f"camvid_{split}.npz").is_file():
            return Archive(base / f"camvid_{split}.npz")
    base = _base(root, "CamVid", f"{split}annot", f"camvid_{split}.npz")
    return Files(paired(base / split, base / f"{split}annot"), CAMVID, void=(11, 255))


def ade20k(root: Path, split: Split) -> Source:
    """ADE20K's 150 classes of scene parsing: images/training and annotations/training, or validation for val and test.

    Names of the classes come from objectInfo150.txt, where it is there.

    Reference:
        Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017.
    """
    base = _base(root, "ADEChallengeData2016", "annotations")
    part = "training" if split == "train" else "validation"
    return Files(paired(base / "images" / part, base / "annotations" / part), _ade_classes(base), first=1, void=())


def _ade_classes(base: Path) -> list[str]:
    path = base / "objectInfo150.txt"
    if not path.is_file():
        return _numbered(_ADE)
    with reading(path):
        names = [line.split("\t")[-1].split(",")[0].strip() for line in path.read_text().splitlines()[1:] if line]
    if len(names) != _ADE:
        raise InputError(f"{path}: expected {_ADE} classes, got {len(names)}")
    return names


class Prepared:
    """ADE20K from TensorFlow Datasets (`scene_parse150`), prepared as ArrayRecord, which is read without TensorFlow.

    Preparing it needs TensorFlow, once: tfds.builder("scene_parse150", file_format="array_record")
    .download_and_prepare(). Classes are the first channel of its annotations, 0 for none. What version 1.0.0 prepares
    are the masks of the instance task, with its own 100 classes; the 150 of scene parsing are in `ade20k`'s folder.

    Raises:
        InputError: it was not prepared, or cannot be read.
    """

    def __init__(self, root: Path | None, split: Split):
        import tensorflow_datasets as tfds  # here, because it is slow to import

        self.where = f"scene_parse150 in {root or 'the default directory of tensorflow_datasets'}"
        part = "train" if split == "train" else "test"
        try:
            builder = tfds.builder("scene_parse150", data_dir=root, file_format="array_record")
            self.source: Any = builder.as_data_source(part)
            self.count = len(self.source)
        except Exception as error:  # TFDS raises nearly anything where files are missing
            raise self._unreadable(error) from error
        self.classes = _numbered(_ADE)

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self.where}: cannot be read as ArrayRecord: {' '.join(str(error).split())[:200]}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Labelled:
        index = range(self.count)[index]
        try:
            example = self.source[index]
        except Exception as error:
            raise self._unreadable(error) from error
        name = f"ade_{index:05d}"
        stored = example["annotation"][..., 0].astype(np.int32)
        return labelled(example["image"], stored, name, f"{self.where}: {name}", self.classes, first=1, void=())


def sun_rgbd(root: Path, split: Split) -> Source:
    """SUN RGB-D's 37 classes: SUNRGBD-train_images or SUNRGBD-test_images, and sunrgbd_train_test_labels.

    Label maps are numbered through, the first 5050 are those of the tests (val, too).

    Reference:
        Song et al., SUN RGB-D, CVPR 2015, in the form of github.com/ankurhanda/sunrgbd-meta-data.
    """
    base = _base(root, "SUNRGBD", "sunrgbd_train_test_labels")
    part, offset = ("train", _SUN_TESTS) if split == "train" else ("test", 0)
    pairs = []
    for image in image_files(base / f"SUNRGBD-{part}_images"):
        number = image.stem.rpartition("-")[2]
        if not number.isdecimal():
            raise InputError(f"{image}: expected a name as img-000001.jpg")
        labels = base / "sunrgbd_train_test_labels" / f"img-{int(number) + offset:06d}.png"
        pairs.append(Pair(f"{part}_{image.stem}", image, _existing(labels, image)))
    return Files(pairs, SUN, first=1, void=())


def voc(root: Path, split: Split) -> Source:
    """PASCAL VOC 2012, 21 classes: VOCdevkit/VOC2012; for training with SBD's labels where they are.

    These are SegmentationClassAug with ImageSets/Segmentation/trainaug.txt, or the folder SBD (or
    benchmark_RELEASE/dataset) beside it with cls/*.mat, train.txt and val.txt: all of its images that are not among
    VOC's for validation, 10,582 with VOC's own. test is val.

    Reference:
        Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010; Hariharan et al., Semantic Contours
        from Inverse Detectors, ICCV 2011.
    """
    base = _base(root, "VOCdevkit/VOC2012", "SegmentationClass")
    lists, aug = base / "ImageSets" / "Segmentation", base / "SegmentationClassAug"
    held_out = listed(lists / "val.txt")
    own = {name: base / "SegmentationClass" / f"{name}.png" for name in listed(lists / "train.txt")}
    if split != "train":
        chosen = {name: base / "SegmentationClass" / f"{name}.png" for name in held_out}
    elif aug.is_dir():
        chosen = {name: aug / f"{name}.png" for name in listed(lists / "trainaug.txt")}
    else:
        chosen = _sbd(root, base, set(held_out)) | own
    images = base / "JPEGImages"
    pairs = [Pair(name, images / f"{name}.jpg", labels) for name, labels in sorted(chosen.items())]
    for pair in pairs:
        _existing(pair.labels, pair.image)
        _existing(pair.image, pair.labels)
    return Files(pairs, VOC)


def _sbd(root: Path, base: Path, held_out: set[str]) -> dict[str, Path]:
    for folder in (root / "SBD", root / "benchmark_RELEASE" / "dataset", base / "SBD"):
        if folder.is_dir():
            names = [name for part in ("train", "val") for name in listed(folder / f"{part}.txt")]
            return {name: folder / "cls" / f"{name}.mat" for name in names if name not in held_out}
    return {}


def cityscapes(root: Path, split: Split) -> Source:
    """Cityscapes' 19 classes: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY with its *_labelIds.png; test is val.

    Reference:
        Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.
    """
    base = _base(root, "cityscapes", "gtFine")
    part = "train" if split == "train" else "val"
    pairs = []
    for city in _subfolders(base / "leftImg8bit" / part):
        for image in image_files(city):
            name = image.stem.removesuffix("_leftImg8bit")
            labels = base / "gtFine" / part / city.name / f"{name}_gtFine_labelIds.png"
            pairs.append(Pair(name, image, _existing(labels, image)))
    table = np.full(max(CITYSCAPES.values()) + 1, IGNORED)
    table[list(CITYSCAPES.values())] = np.arange(len(CITYSCAPES))
    return Files(pairs, list(CITYSCAPES), table=table)


def _subfolders(path: Path) -> list[Path]:
    found = sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
    if not found:
        raise InputError(f"{path}: expected a folder of cities, each a folder of images")
    return found


def coco_stuff(root: Path, split: Split) -> Source:
    """COCO-Stuff's 27 groups of its 172 classes: images/SPLIT2017 and annotations/SPLIT2017; test is val.

    The maps are those of stuffthingmaps_trainval2017, which may be the folder's name, too. What is trained and tested
    on are the images that curated/SPLIT2017/Coco164kFull_Stuff_Coarse_7.txt lists, where it is there, else all.

    Reference:
        Caesar et al., COCO-Stuff: Thing and Stuff Classes in Context, CVPR 2018, its hierarchy of labels; the images
        are those of Ji et al., Invariant Information Clustering, ICCV 2019, as STEGO (Hamilton et al., ICLR 2022) and
        JAFAR take them.
    """
    part, places = "train2017" if split == "train" else "val2017", (root, root / "cocostuff")
    other = "stuffthingmaps_trainval2017"
    maps = other if any((base / other / part).is_dir() for base in places) else "annotations"
    base = _base(root, "cocostuff", f"{maps}/{part}", f"{other}/{part}")
    images, labels, curated = base / "images" / part, base / maps / part, base / "curated" / part / _CURATED
    names = listed(curated) if curated.is_file() else [image.stem for image in image_files(images)]
    pairs = [Pair(name, images / f"{name}.jpg", labels / f"{name}.png") for name in names]
    for pair in pairs:
        _existing(pair.labels, pair.image)
        _existing(pair.image, pair.labels)
    things = [group for group, count in _THINGS for _ in range(count)]
    return Files(pairs, COCO_STUFF, table=np.array([*things, *map(int, _STUFF.split())]))


def folder(root: Path, split: Split, num_classes: int) -> Source:
    """Any images with label maps of the same names: images/SPLIT and labels/SPLIT, 255 for no class."""
    return Files(paired(root / "images" / split, root / "labels" / split), _numbered(num_classes))


SETS: Mapping[str, Callable[[Path, Split], Source]] = {
    "camvid": camvid,
    "ade20k": ade20k,
    "sun-rgbd": sun_rgbd,
    "voc": voc,
    "cityscapes": cityscapes,
    "coco-stuff": coco_stuff,
}
"""By name; each takes the data directory, or the folder of the set itself."""


def _base(root: Path, name: str, inside: str, otherwise: str = "") -> Path:
    """The folder of a set: `root`, or `name` in it."""
    for base in (root, root / name):
        if (base / inside).is_dir():
            return base
    raise InputError(f"{root}: has neither {inside} nor {name}/{inside}" + (f", nor {otherwise}" if otherwise else ""))


def _existing(path: Path, partner: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file, which belongs to {partner}")
    return path


def _numbered(count: int) -> list[str]:
    return [str(number) for number in range(count)]
