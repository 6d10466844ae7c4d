"""Sources of labelled images, their faults, and what training makes of them."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from experiments.data.segmentation import IGNORED, Cached, First, Labelled, read_labels
from experiments.data.segmentation_batches import Augmentation, augmented, discoloured, training_batches
from experiments.data.segmentation_sets import (
    CAMVID,
    COCO_STUFF,
    Prepared,
    ade20k,
    camvid,
    cityscapes,
    coco_stuff,
    folder,
    sun_rgbd,
    voc,
)
from experiments.data.segmentation_shapes import Shapes
from jaxup.files import InputError

RNG = np.random.default_rng(2)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, **options).save(path)
    return path


def picture(height=6, width=8):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def labels(values, height=6, width=8):
    """All of these values, in turn."""
    return np.resize(np.array(values, np.uint8), (height, width))


def archive(path, count=2, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    images, streams = [picture() for _ in range(count)], []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "WEBP", lossless=True)
        streams.append(np.frombuffer(data.getvalue(), np.uint8))
    arrays = {
        "names": np.array([f"frame_{i}" for i in range(count)]),
        "labels": np.stack([labels([i, 10, 11]) for i in range(count)]),
        "streams": np.concatenate(streams),
        "offsets": np.cumsum([0, *map(len, streams)]),
    }
    np.savez(path, **(arrays | changes))
    return images


def test_camvid_archive(tmp_path):
    images = archive(tmp_path / "seg" / "camvid_train.npz")
    for root in (tmp_path, tmp_path / "seg"):
        source = camvid(root, "train")
        assert len(source) == 2 and source.classes == CAMVID and len(CAMVID) == 11
        np.testing.assert_array_equal(source[1].image, images[1])
        np.testing.assert_array_equal(source[1].labels, labels([1, 10, IGNORED]))
        assert source[-1].name == "frame_1"
        with pytest.raises(IndexError):
            source[2]


def test_camvid_archive_faults(tmp_path):
    path = tmp_path / "camvid_val.npz"
    archive(path, labels=np.full((2, 6, 8), 12, np.uint8))
    with pytest.raises(InputError, match=r"camvid_val.npz: frame_0: holds the label 12, expected 0 to 10, or 11, 255"):
        camvid(tmp_path, "val")[0]
    archive(path, labels=np.zeros((2, 6, 7), np.uint8))
    with pytest.raises(InputError, match=r"frame_0: labels of 7 x 6 pixels for an image of 8 x 6"):
        camvid(tmp_path, "val")[0]
    archive(path, streams=np.zeros(10_000, np.uint8))
    with pytest.raises(InputError, match=r"camvid_val.npz: frame_0: cannot be read"):
        camvid(tmp_path, "val")[0]
    archive(path, offsets=np.arange(2))
    with pytest.raises(InputError, match=r"camvid_val.npz: names, labels, streams and offsets do not fit"):
        camvid(tmp_path, "val")
    np.savez(path, names=np.zeros(3))
    with pytest.raises(InputError, match=r"camvid_val.npz: cannot be read: .*labels"):
        camvid(tmp_path, "val")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"camvid_val.npz: cannot be read"):
        camvid(tmp_path, "val")


def test_camvid_folder(tmp_path):
    image = picture()
    write(tmp_path / "CamVid" / "test" / "a.png", image)
    write(tmp_path / "CamVid" / "testannot" / "a.png", labels([0, 10, 11]))
    for root in (tmp_path, tmp_path / "CamVid"):
        np.testing.assert_array_equal(camvid(root, "test")[0].labels, labels([0, 10, IGNORED]))
    with pytest.raises(InputError, match=r"has neither trainannot nor CamVid/trainannot, nor camvid_train.npz"):
        camvid(tmp_path, "train")


def test_ade20k(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    for part in ("training", "validation"):
        write(base / "images" / part / "ADE_1.jpg", picture())
        write(base / "annotations" / part / "ADE_1.png", labels([0, 1, 150]))
    for split in ("train", "val", "test"):
        source = ade20k(tmp_path, split)
        assert len(source.classes) == 150
        np.testing.assert_array_equal(source[0].labels, labels([IGNORED, 0, 149]))
    rows = [f"{i}\t0.1\t1\t1\tclass {i}, other words" for i in range(1, 151)]
    (base / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    assert ade20k(base, "train").classes[149] == "class 150"
    write(base / "annotations" / "training" / "ADE_1.png", labels([151]))
    with pytest.raises(InputError, match=r"training/ADE_1.png: holds the label 151, expected 1 to 150, or 0 for no"):
        ade20k(base, "train")[0]


def test_cityscapes(tmp_path):
    base = tmp_path / "cityscapes"
    for part, city in (("train", "aachen"), ("val", "ulm")):
        write(base / "leftImg8bit" / part / city / f"{city}_0_1_leftImg8bit.png", picture())
        write(base / "gtFine" / part / city / f"{city}_0_1_gtFine_labelIds.png", labels([0, 7, 8, 9, 31, 33, 255]))
    for root, split in ((tmp_path, "train"), (base, "val"), (base, "test")):
        source = cityscapes(root, split)
        assert len(source) == 1 and len(source.classes) == 19 and source.classes[16] == "train"
        expected = labels([IGNORED, 0, 1, IGNORED, 16, 18, IGNORED])
        np.testing.assert_array_equal(source[0].labels, expected)
    broken = write(base / "gtFine" / "val" / "ulm" / "ulm_0_1_gtFine_labelIds.png", labels([34]))
    with pytest.raises(InputError, match=r"labelIds.png: holds the label 34, expected 0 to 33, or 255 for no class"):
        cityscapes(base, "val")[0]
    broken.unlink()
    with pytest.raises(InputError, match=r"ulm_0_1_gtFine_labelIds.png: no such file, which belongs to .*leftImg8bit"):
        cityscapes(base, "val")
    (base / "leftImg8bit" / "train").rename(base / "leftImg8bit" / "trained")
    with pytest.raises(InputError, match=r"leftImg8bit/train: expected a folder of cities"):
        cityscapes(base, "train")
    with pytest.raises(InputError, match=r"has neither gtFine nor cityscapes/gtFine"):
        cityscapes(tmp_path / "none", "val")


@pytest.mark.parametrize("maps", ["annotations", "stuffthingmaps_trainval2017"])
def test_coco_stuff(tmp_path, maps):
    """Numbers by the hierarchy of the labels: person, bicycle, cat, toothbrush, banner, grass, river, wood."""
    base, found = tmp_path / "cocostuff", {0: 9, 1: 11, 16: 7, 89: 4, 91: 17, 123: 22, 147: 26, 181: 24}
    for part in ("train2017", "val2017"):
        for name in ("a", "b"):
            write(base / "images" / part / f"{name}.jpg", picture())
            write(base / maps / part / f"{name}.png", labels([*found, 255]))
    listing = base / "curated" / "val2017" / "Coco164kFull_Stuff_Coarse_7.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("b\n")
    source = coco_stuff(tmp_path, "test")
    assert len(coco_stuff(base, "train")) == 2 and len(source) == 1 and source[0].name == "b"
    assert len(source.classes) == 27 and source.classes[22] == "plant"
    np.testing.assert_array_equal(source[0].labels, labels([*found.values(), IGNORED]))
    listing.write_text("c\n")
    with pytest.raises(InputError, match=r"c.png: no such file, which belongs to .*c.jpg"):
        coco_stuff(tmp_path, "val")
    listing.write_text("../b\n")
    with pytest.raises(InputError, match=r"\.\./b"):
        coco_stuff(tmp_path, "val")
    with pytest.raises(InputError, match=r"neither annotations/val2017 nor cocostuff/annotations/val2017, nor stuffth"):
        coco_stuff(tmp_path / "none", "val")


def test_all_numbers_of_coco_stuff_have_a_group(tmp_path):
    write(tmp_path / "annotations" / "val2017" / "a.png", np.arange(182, dtype=np.uint8).reshape(2, 91))
    write(tmp_path / "images" / "val2017" / "a.jpg", picture(2, 91))
    counts = np.bincount(coco_stuff(tmp_path, "val")[0].labels.ravel(), minlength=27)
    assert dict(zip(COCO_STUFF, counts.tolist(), strict=True)) == {
        **dict(electronic=6, appliance=6, food=10, furniture=10, indoor=8, kitchen=8, accessory=8, animal=10),
        **dict(outdoor=6, person=1, sports=10, vehicle=8, ceiling=2, floor=6, rawmaterial=4, textile=11, wall=7),
        **{"food-stuff": 4, "furniture-stuff": 11, "window": 2, "building": 6, "ground": 11, "plant": 9},
        **dict(sky=2, solid=6, structural=5, water=5),
    }


@pytest.mark.thorough
def test_ade20k_of_tfds(tmp_path):
    """A data set as TFDS itself would have prepared it; classes are the first channel."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from array_record.python.array_record_module import ArrayRecordWriter

    with pytest.raises(InputError, match=r"scene_parse150 in .*: cannot be read as ArrayRecord"):
        Prepared(tmp_path, "train")
    builder = tfds.builder("scene_parse150", data_dir=tmp_path, file_format="array_record")
    features, place = builder.info.features, builder.data_dir
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    os.makedirs(place)
    writer = ArrayRecordWriter(os.path.join(place, "scene_parse150-train.array_record-00000-of-00001"), "group_size:1")
    image, classes = np.zeros((6, 8, 3), np.uint8), labels([0, 1, 100])
    masks = np.stack([classes, 3 * classes, 0 * classes], -1)
    files = {}
    for name, array, kind in (("image", image, "JPEG"), ("annotation", masks, "PNG")):
        data = io.BytesIO()
        Image.fromarray(array).save(data, kind)
        files[name] = data.getvalue()
    writer.write(serializer.serialize_example(files))
    writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=place, dataset_name="scene_parse150", split="train", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(name="train", shard_lengths=[1], num_bytes=1, filename_template=template)
    builder.info.set_splits(tfds.core.splits.SplitDict([split]))
    builder.info.write_to_directory(place)
    source = Prepared(tmp_path, "train")
    assert len(source) == 1 and len(source.classes) == 150
    np.testing.assert_array_equal(source[0].labels, labels([IGNORED, 0, 99]))
    np.testing.assert_array_equal(source[0].image, image)


def test_sun_rgbd(tmp_path):
    """Numbers of label maps go through both parts; the tests come first."""
    maps = tmp_path / "SUNRGBD" / "sunrgbd_train_test_labels"
    write(tmp_path / "SUNRGBD" / "SUNRGBD-train_images" / "img-000001.jpg", picture())
    write(tmp_path / "SUNRGBD" / "SUNRGBD-test_images" / "img-000001.jpg", picture())
    write(maps / "img-005051.png", labels([0, 1]))
    write(maps / "img-000001.png", labels([37]))
    train, test = sun_rgbd(tmp_path, "train"), sun_rgbd(tmp_path / "SUNRGBD", "test")
    assert len(train.classes) == 37
    np.testing.assert_array_equal(train[0].labels, labels([IGNORED, 0]))
    np.testing.assert_array_equal(test[0].labels, labels([36]))
    write(tmp_path / "SUNRGBD" / "SUNRGBD-test_images" / "img-000002.jpg", picture())
    with pytest.raises(
        InputError, match=r"img-000002.png: no such file, which belongs to .*test_images/img-000002.jpg"
    ):
        sun_rgbd(tmp_path, "test")


def pascal(root, names):
    base = root / "VOCdevkit" / "VOC2012"
    for name in names:
        write(base / "JPEGImages" / f"{name}.jpg", picture())
    for name in ("a", "b"):
        indexed = Image.fromarray(labels([0, 20, 255]), "P")
        indexed.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
        (base / "SegmentationClass").mkdir(exist_ok=True)
        indexed.save(base / "SegmentationClass" / f"{name}.png")
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    for part, name in (("train", "a"), ("val", "b")):
        (base / "ImageSets" / "Segmentation" / f"{part}.txt").write_text(f"{name}\n")
    return base


def test_voc_with_sbd(tmp_path):
    pascal(tmp_path, "abcd")
    assert [pair.name for pair in voc(tmp_path, "train").pairs] == ["a"]
    (tmp_path / "SBD" / "cls").mkdir(parents=True)
    (tmp_path / "SBD" / "train.txt").write_text("a\nc\n")
    (tmp_path / "SBD" / "val.txt").write_text("b\nd\n")
    for name in "abcd":
        savemat(tmp_path / "SBD" / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": labels([3, 15])}})
    train, val = voc(tmp_path, "train"), voc(tmp_path, "val")
    assert [pair.name for pair in train.pairs] == ["a", "c", "d"], "b is for validation"
    np.testing.assert_array_equal(train[0].labels, labels([0, 20, 255]))  # its own labels come first
    np.testing.assert_array_equal(train[1].labels, labels([3, 15]))
    assert [pair.name for pair in val.pairs] == ["b"] and len(val.classes) == 21
    (tmp_path / "SBD" / "cls" / "d.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"cls/d.mat: cannot be read"):
        train[2]
    (tmp_path / "SBD" / "cls" / "d.mat").unlink()
    with pytest.raises(InputError, match=r"cls/d.mat: no such file, which belongs to .*JPEGImages/d.jpg"):
        voc(tmp_path, "train")


def test_voc_augmented(tmp_path):
    base = pascal(tmp_path, "abc")
    write(base / "SegmentationClassAug" / "c.png", labels([7]))
    (base / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("c\n")
    np.testing.assert_array_equal(voc(base, "train")[0].labels, labels([7]))


def test_any_folder_and_its_faults(tmp_path):
    images, maps = tmp_path / "images" / "train", tmp_path / "labels" / "train"
    write(images / "a.png", picture())
    write(maps / "a.png", labels([0, 2, 255]))
    np.testing.assert_array_equal(folder(tmp_path, "train", 3)[0].labels, labels([0, 2, 255]))
    with pytest.raises(
        InputError, match=r"labels/train/a.png: holds the label 2, expected 0 to 1, or 255 for no class"
    ):
        folder(tmp_path, "train", 2)[0]
    write(maps / "a.png", labels([0], 6, 9))
    with pytest.raises(InputError, match=r"labels/train/a.png: labels of 9 x 6 pixels for an image of 8 x 6"):
        folder(tmp_path, "train", 3)[0]
    write(maps / "a.png", picture())
    with pytest.raises(InputError, match=r"labels/train/a.png: expected one number a pixel.*got RGB"):
        folder(tmp_path, "train", 3)[0]
    write(maps / "a.png", labels([0]))
    (maps / "a.png").write_bytes((maps / "a.png").read_bytes()[:44])
    with pytest.raises(InputError, match=r"labels/train/a.png: cannot be read"):
        folder(tmp_path, "train", 3)[0]
    write(maps / "b.png", labels([0]))
    with pytest.raises(InputError, match=r"labels/train/b.png: has no image in .*images/train"):
        folder(tmp_path, "train", 3)
    (maps / "b.png").unlink()
    write(images / "c.png", picture())
    with pytest.raises(InputError, match=r"images/train/c.png: has no label map c in .*labels/train"):
        folder(tmp_path, "train", 3)
    write(images / "c.jpg", picture())
    with pytest.raises(InputError, match=r"images/train/c.png: c.jpg is there too"):
        folder(tmp_path, "train", 3)
    with pytest.raises(InputError, match=r"images/val: no such folder"):
        folder(tmp_path, "val", 3)
    with pytest.raises(InputError, match="classes: expected 1 to 254, got 255"):
        folder_of_one(tmp_path / "one", 255)


def folder_of_one(root, num_classes):
    write(root / "images" / "train" / "a.png", picture())
    write(root / "labels" / "train" / "a.png", labels([0]))
    return folder(root, "train", num_classes)


def test_labels_of_16_bits(tmp_path):
    stored = labels([0, 1]).astype(np.uint16) * 300
    np.testing.assert_array_equal(read_labels(write(tmp_path / "a.png", stored)), stored)


def test_first_and_cached():
    source = Cached(First(Shapes(5, 16), 2))
    assert len(source) == 2 and source.classes == Shapes.classes
    assert source[1] is source[-1]
    with pytest.raises(InputError, match="images: expected 1 to 5, as many as there are, got 6"):
        First(Shapes(5, 16), 6)


def test_shapes():
    source = Shapes(40, (32, 48), seed=3)
    drawn = [source[i] for i in range(40)]
    assert drawn[0].image.shape == (32, 48, 3) and drawn[0].image.dtype == drawn[0].labels.dtype == np.uint8
    assert set(np.unique([x.labels for x in drawn])) == {*range(len(source.classes)), IGNORED}
    np.testing.assert_array_equal(drawn[7].image, Shapes(8, (32, 48), seed=3)[7].image)
    assert (drawn[7].image != Shapes(8, (32, 48), seed=4)[7].image).any()
    # Where the label changes, so does the picture.
    steps = np.concatenate([np.abs(np.diff(x.image.astype(int), axis=1)).mean(-1).ravel() for x in drawn])
    edges = np.concatenate([(np.diff(x.labels.astype(int), axis=1) != 0).ravel() for x in drawn])
    assert steps[edges].mean() > 1.5 * steps[~edges].mean()


def sample(height=20, width=30):
    """The red channel says which row a pixel is from, green which column, blue which class."""
    row, column = np.mgrid[:height, :width]
    classes = ((row // 4 + column // 5) % 3).astype(np.uint8)
    image = np.stack([8 * row, 8 * column, 100 * classes], -1).astype(np.uint8)
    return Labelled(image, classes, "grid")


def test_crops_are_windows_of_image_and_labels():
    plain = Augmentation(crop=(8, 10), scales=(1, 1), jitter=False)
    seen = set()
    for seed in range(12):
        example = augmented(sample(), plain, np.random.default_rng(seed))
        assert example["image"].shape == (8, 10, 3) and example["labels"].shape == (8, 10)
        np.testing.assert_array_equal(example["image"][..., 2], 100 * example["labels"])
        assert set(np.diff(example["image"][..., 0].astype(int), axis=0).ravel()) == {8}
        steps = set(np.diff(example["image"][..., 1].astype(int), axis=1).ravel())
        assert steps in ({8}, {-8}), "mirrored or not"
        seen.add((example["image"][0, 0, 0], *steps))
    assert len({step for _, step in seen}) == 2 and len(seen) > 6


def test_scaling():
    for scale in (0.5, 2.0):
        how = Augmentation(crop=(8, 10), scales=(scale, scale), jitter=False, flip=False)
        example = augmented(sample(), how, np.random.default_rng(0))
        step = np.diff(example["image"][2:-2, :, 0].astype(int), axis=0).mean()
        assert step == pytest.approx(8 / scale, rel=0.1)
    to_side = Augmentation(crop=(40, 60), short_side=40, scales=(1, 1), jitter=False, flip=False)
    np.testing.assert_array_equal(
        augmented(sample(), to_side, np.random.default_rng(0))["labels"], sample().labels.repeat(2, 0).repeat(2, 1)
    )


def test_small_images_are_filled():
    how = Augmentation(crop=(24, 32), scales=(1, 1), jitter=True, flip=False)
    example = augmented(sample(), how, np.random.default_rng(0))
    assert (example["labels"][20:] == IGNORED).all() and (example["labels"][:, 30:] == IGNORED).all()
    assert not example["image"][20:].any() and not example["image"][:, 30:].any()
    np.testing.assert_array_equal(example["labels"][:20, :30], sample().labels)


def test_crops_of_one_class_are_drawn_again():
    """As long as the one with more than one class is found within ten tries."""
    image, classes = np.zeros((10, 40, 3), np.uint8), np.zeros((10, 40), np.uint8)
    classes[:, 20:] = 1
    how = Augmentation(crop=(10, 20), scales=(1, 1), jitter=False)
    shares = [
        augmented(Labelled(image, classes, ""), how, np.random.default_rng(i))["labels"].mean() for i in range(20)
    ]
    assert np.mean([0.25 <= share <= 0.75 for share in shares]) > 0.9
    ignored = Labelled(image, np.full_like(classes, IGNORED), "")
    assert (augmented(ignored, how, np.random.default_rng(0))["labels"] == IGNORED).all()


def test_discoloured():
    image = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    results = {tuple(discoloured(image, np.random.default_rng(seed))[0, 0].tolist()) for seed in range(40)}
    assert (200, 100, 50) in results and len(results) > 20
    assert all(np.ptp(discoloured(image, np.random.default_rng(seed)), axis=(0, 1)).max() == 0 for seed in range(5))
    grey = np.full((2, 2, 3), 90, np.uint8)
    for seed in range(20):
        changed = discoloured(grey, np.random.default_rng(seed))
        assert np.ptp(changed[0, 0]) <= 1, "grey has no hue"
        assert changed.min() >= (90 - 32) / 2 - 1 and changed.max() <= (90 + 32) * 1.5 + 1


def test_batches_continue_with_the_same_bits():
    how = Augmentation(crop=(12, 16))
    batches = training_batches(Shapes(3, 24), how, batch_size=2, seed=5)
    first = iter(batches)
    examples = [next(first) for _ in range(2)]
    assert examples[0]["image"].shape == (2, 12, 16, 3) and examples[0]["labels"].dtype == np.uint8
    state = first.get_state()
    third = next(first)
    again = iter(batches)
    again.set_state(state)
    for name, array in next(again).items():
        np.testing.assert_array_equal(array, third[name])
    other = next(iter(training_batches(Shapes(3, 24), how, batch_size=2, seed=6)))
    assert (other["image"] != examples[0]["image"]).any()


def test_options_out_of_range():
    with pytest.raises(InputError, match="crop: expected"):
        Augmentation(crop=(0, 3))
    with pytest.raises(InputError, match="scales: expected two numbers above 0, ascending"):
        Augmentation(scales=(2, 1))
    with pytest.raises(InputError, match="short_side: expected"):
        Augmentation(short_side=0)
