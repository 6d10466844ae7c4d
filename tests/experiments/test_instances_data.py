"""Sources of images with objects, their faults, and what training makes of them."""

import json
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from experiments.data.instances import Cached, First, Scene, boxes_of, segments_of
from experiments.data.instances_batches import Augmentation, augmented, fitted, training_batches
from experiments.data.instances_coco import coco, coco_panoptic, mask_of
from experiments.data.instances_shapes import Scenes
from experiments.data.segmentation import IGNORED
from jaxup.files import InputError
from jaxup.metrics import Segment

RNG = np.random.default_rng(4)
CATEGORIES = [
    {"id": 7, "name": "tree", "isthing": 0},
    {"id": 90, "name": "cat", "isthing": 1},
    {"id": 3, "name": "dog", "isthing": 1},
]


def packed(mask):
    """Run lengths, column by column from a run of zeros on."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    return ([0] if flat[0] else []) + np.diff([0, *ends, flat.size]).tolist()


def image(path, height=6, width=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def written(root, annotations, name="instances_val2017", images=None, categories=CATEGORIES[1:]):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    images = images or [{"id": 5, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    stored = {"images": images, "categories": categories, "annotations": annotations}
    (root / "annotations" / f"{name}.json").write_text(json.dumps(stored))


def annotation(segmentation, image_id=5, category_id=90, **others):
    entry = {"image_id": image_id, "category_id": category_id, "segmentation": segmentation}
    return entry | {"bbox": [1.5, 2, 3, 2.5], "area": 4.5, "iscrowd": 0} | others


def test_coco(tmp_path):
    """Polygons, run lengths of a crowd, an image without objects; categories by their numbers, images by theirs."""
    pytest.importorskip("pycocotools")
    crowd = RNG.random((6, 8)) < 0.5
    polygon = annotation([[1, 1, 5, 1, 5, 4, 1, 4], [6, 0, 8, 0, 8, 2, 6, 2]])
    runs = {"size": [6, 8], "counts": packed(crowd)}
    written(tmp_path / "coco", [polygon, annotation(runs, category_id=3, iscrowd=1, area=9)])
    pixels = {name: image(tmp_path / "coco" / "val2017" / f"{name}.png") for name in "ab"}
    for root in (tmp_path, tmp_path / "coco"):
        source = coco(root, "test")
        assert source.things == ["dog", "cat"] and source.stuff == [] and len(source) == 2
    without, scene = source[0], source[1]
    assert without.name == "b" and without.masks.shape == (0, 6, 8) and without.boxes.shape == (0, 4)
    np.testing.assert_array_equal(scene.image, pixels["a"])
    wanted = np.zeros((2, 6, 8), bool)
    wanted[0, 1:4, 1:5] = wanted[0, :2, 6:] = True
    wanted[1] = crowd
    np.testing.assert_array_equal(scene.masks, wanted)
    assert scene.boxes.tolist() == [[1.5, 2, 4.5, 4.5]] * 2 and scene.areas.tolist() == [4.5, 9]
    assert scene.labels.tolist() == [1, 0] and scene.crowd.tolist() == [False, True] and (scene.stuff == IGNORED).all()
    written(tmp_path / "coco", [polygon], "instances_train2017")
    image(tmp_path / "coco" / "train2017" / "a.png")
    assert len(coco(tmp_path, "train")) == 1  # an image without objects is not trained on


def test_packed_run_lengths():
    coder = pytest.importorskip("pycocotools.mask")
    for density in (0, 0.01, 0.5, 1):
        mask = RNG.random((37, 53)) < density
        code = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(mask_of({"size": [37, 53], "counts": code}, 37, 53), mask)


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [6, 7], "counts": [42]}, r"expected run lengths of the size \[6, 8\], got \[6, 7\]"),
        ({"size": [6, 8], "counts": [40]}, "expected run lengths of 48 pixels in all, got 40"),
        ({"size": [6, 8], "counts": [10**12, 48 - 10**12]}, "expected run lengths of 48 pixels"),
        ({"size": [6, 8], "counts": []}, "expected run lengths of 48 pixels"),
        ({"size": [6, 8], "counts": "o" * 99}, "more than 60 bits"),
        ([[1, 2, 3, 4]], "expected polygons of three points or more"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected polygons of three points or more"),
        ([["a"] * 6], "cannot be read"),
        (7, "cannot be read"),
    ],
    ids=range(9),
)
def test_faulty_masks(segmentation, message, tmp_path):
    pytest.importorskip("pycocotools")
    written(tmp_path, [annotation(segmentation)])
    image(tmp_path / "val2017" / "a.png")
    with pytest.raises(InputError, match=message):
        coco(tmp_path, "val")[1]


def test_far_polygons_are_cut():
    pytest.importorskip("pycocotools")
    assert mask_of([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]], 6, 8).all()
    assert not mask_of([], 6, 8).any()


def test_faulty_folders(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="has neither annotations nor coco/annotations"):
        coco(tmp_path, "val")
    for images, message in (
        ([{"id": 5, "file_name": "../a.png"}], r"lists '../a.png', which is not in .*val2017"),
        ([{"id": 5, "file_name": "/etc/passwd"}], "which is not in"),
        ([{"id": 5, "file_name": "c.png"}], "c.png: no such file"),
        ([{"id": 5}], "instances_val2017.json: cannot be read: 'file_name'"),
    ):
        written(tmp_path, [], images=images)
        with pytest.raises(InputError, match=message):
            coco(tmp_path, "val")[0]
    written(tmp_path, [annotation([], image_id=9)])
    with pytest.raises(InputError, match="has annotations of image 9, which is not there"):
        coco(tmp_path, "val")
    image(tmp_path / "val2017" / "a.png")
    for fault, message in (
        ({"category_id": 1}, "has the category 1, which is not listed"),
        ({"bbox": [1, 2, 3]}, "cannot be read"),
        ({"bbox": [1, 2, 3, float("inf")]}, "bbox: expected four numbers"),
    ):
        written(tmp_path, [annotation({"size": [6, 8], "counts": [48]}) | fault])
        with pytest.raises(InputError, match=message):
            coco(tmp_path, "val")[1]
    written(tmp_path, [annotation([[1, 1, 5, 1, 5, 4]])])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(InputError, match=r"this needs pycocotools: pip install \"jaxup\[detection\]\""):
        coco(tmp_path, "val")[1]
    (tmp_path / "annotations" / "instances_val2017.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        coco(tmp_path, "val")


def panoptic(root, ids, segments, file_name="a.png"):
    info = [{"id": n, "category_id": k, "iscrowd": c} for n, k, c in segments]
    found = [{"image_id": 5, "file_name": file_name, "segments_info": info}]
    written(root, found, "panoptic_val2017", categories=CATEGORIES)
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(exist_ok=True)
    image(root / "val2017" / "a.png")
    Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)).save(
        folder / "a.png"
    )


def test_coco_panoptic(tmp_path):
    """Numbers of three bytes; things before stuff, void, a crowd; and back to segments."""
    ids = np.zeros((6, 8), np.int64)
    ids[:3], ids[3:, :4], ids[4, 5], ids[5, 6:] = 70_000, 1_000, 3, 16_777_215
    panoptic(tmp_path, ids, [(70_000, 7, 0), (1_000, 90, 0), (3, 3, 0), (16_777_215, 90, 1)])
    source = coco_panoptic(tmp_path, "val")
    assert source.things == ["dog", "cat"] and source.stuff == ["tree"] and len(source) == 1
    scene = source[0]
    assert scene.labels.tolist() == [1, 0, 1] and scene.crowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(scene.masks, [ids == n for n in (1_000, 3, 16_777_215)])
    assert scene.boxes.tolist() == [[0, 3, 4, 6], [5, 4, 6, 5], [6, 5, 8, 6]] and scene.areas.tolist() == [12, 1, 2]
    np.testing.assert_array_equal(scene.stuff, np.where(ids == 70_000, 0, np.where(ids == 0, IGNORED, 1)))
    segments, found = segments_of(scene, 2, 1)
    assert found == [Segment(1, 1), Segment(2, 0), Segment(3, 1, True), Segment(4, 2)]
    for n, number in ((70_000, 4), (1_000, 1), (3, 2), (16_777_215, 3), (0, 0)):
        assert (segments[ids == n] == number).all()


def test_faulty_panoptic_maps(tmp_path):
    ids = np.full((6, 8), 9)
    for segments, options, message in (
        ([(8, 90, 0)], {}, "the segment 8 is not in both the map and panoptic_val2017.json"),
        ([(9, 90, 0), (8, 7, 0)], {}, "the segment 8 is not in both"),
        ([], {}, "the segment 9 is not in both"),
        ([(9, 90, 0)], {"file_name": "../../b.png"}, "which is not in"),
        ([(9, 1, 0)], {}, "has the category 1"),
    ):
        panoptic(tmp_path, ids, segments, **options)
        with pytest.raises(InputError, match=message):
            coco_panoptic(tmp_path, "val")[0]
    panoptic(tmp_path, ids[1:], [(9, 90, 0)])
    with pytest.raises(InputError, match=r"expected 8 bits and the size of its image, \(6, 8\)"):
        coco_panoptic(tmp_path, "val")[0]


def test_generated_scenes():
    """Always the same; every pixel is an object, stuff or ignored, and small remains are no objects."""
    source = Scenes(8, (40, 56), seed=3)
    scenes = [source[n] for n in range(8)]
    again = Scenes(8, (40, 56), seed=3)[7]
    for one, other in zip(again, scenes[7], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(Scenes(8, (40, 56), seed=4)[7].image, again.image)
    for scene in scenes:
        covered = scene.masks.sum(0)
        assert covered.max() <= 1 and scene.areas.min() >= 4
        np.testing.assert_array_equal(covered == 1, scene.stuff == len(source.stuff))
        assert set(np.unique(scene.stuff)) <= {0, 1, 2, 3, IGNORED}
        np.testing.assert_array_equal(boxes_of(scene.masks), scene.boxes)
    assert any(scene.crowd.any() for scene in scenes) and not all(scene.crowd.any() for scene in scenes)
    assert len({int(label) for scene in scenes for label in scene.labels}) > 4
    for wrapped in (First(source, 2), Cached(source)):
        assert wrapped[-1].name == source[len(wrapped) - 1].name and wrapped.things == source.things
    with pytest.raises(InputError, match="images: expected 1 to 8, as many as there are, got 9"):
        First(source, 9)


def scene(*boxes, size=(40, 60), crowd=()):
    """Rectangles (x1, y1, x2, y2, label)."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2, _) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    labels = np.array([box[4] for box in boxes], np.int32)
    stuff = np.where(masks.any(0), 3, 0).astype(np.uint8)
    flags = np.isin(np.arange(len(boxes)), crowd)
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    return Scene(pixels, boxes_of(masks), labels, masks, flags, masks.sum((1, 2), dtype=np.float32), stuff, "s")


class Coin:
    """Always the same side."""

    def __init__(self, side):
        self.random = lambda: side


def test_augmented():
    """Boxes, masks and stuff stay together: enlarged, mirrored, and padded to one size."""
    given = scene((4, 2, 20, 10, 5), (30, 20, 31, 21, 1), crowd=(1,))
    how = Augmentation(80, 100, (64, 128), objects=4)
    assert how.shape(40, 60) == (64, 96)  # not 80, nor 100 of the longer side: it has to fit
    for mirrored in (False, True):
        example = augmented(given, how, Coin(0.0 if mirrored else 1.0))
        assert example["limits"].tolist() == [64, 96] and example["labels"].tolist() == [5, 1, -1, -1]
        assert example["crowd"].tolist() == [False, True, False, False]
        wanted = np.float32([[6.4, 3.2, 32, 16], [48, 32, 49.6, 33.6]])
        if mirrored:
            wanted[:, [0, 2]] = 96 - wanted[:, [2, 0]]
        np.testing.assert_allclose(example["boxes"], [*wanted, [0] * 4, [0] * 4], rtol=1e-5)
        near = boxes_of(example["masks"])
        assert np.abs(near[:2] - wanted).max() <= 1 and not near[2:].any()
        np.testing.assert_array_equal(example["semantic"][:, 96:], IGNORED)
        assert not example["image"][:, 96:].any() and example["image"].shape == (64, 128, 3)
        assert (example["semantic"][example["masks"][0]] == 3).mean() > 0.9
    plain = fitted(given.image, Augmentation(None, 1000, (64, 64)))
    np.testing.assert_array_equal(plain[0][:40, :60], given.image)


def test_more_objects_than_places():
    """A warning names the image; the largest are kept in their order, and crowds only where there is a place."""
    given = scene((0, 0, 2, 2, 1), (5, 5, 25, 25, 2), (30, 0, 40, 10, 3), (0, 30, 60, 40, 4), crowd=(3,))
    how = Augmentation(None, padded=(64, 64), objects=2, flip=False)
    with pytest.warns(UserWarning, match="^s: has 4 objects, and the 2 largest are kept"):
        example = augmented(given, how, Coin(1.0))
    assert example["labels"].tolist() == [2, 3] and example["masks"].sum((1, 2)).tolist() == [400, 100]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = augmented(scene(), how, Coin(1.0))
    assert nothing["labels"].tolist() == [-1, -1] and nothing["masks"].shape == (2, 64, 64)
    assert nothing["boxes"].dtype == np.float32 and not nothing["boxes"].any()


def test_batches_go_on_to_the_bit():
    how = Augmentation(None, padded=(32, 64), objects=12)
    batches = training_batches(Scenes(3, (32, 48)), how, batch_size=2, seed=1)
    iterator = iter(batches)
    first = next(iterator)
    assert first["masks"].shape == (2, 12, 32, 64) and first["labels"].dtype == np.int32
    state, second = iterator.get_state(), next(iterator)
    other = iter(training_batches(Scenes(3, (32, 48)), how, batch_size=2, seed=1))
    other.set_state(state)
    for name, values in next(other).items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"short_side": 0}, "short_side: expected at least 1, got 0"),
        ({"objects": 0}, "objects: expected at least 1"),
        ({"padded": (64, 80)}, r"padded: expected multiples of 32, got \(64, 80\)"),
    ],
    ids=("short_side", "objects", "padded"),
)
def test_faulty_augmentation(options, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**options)
