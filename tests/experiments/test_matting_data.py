"""Matting data: generated mattes, sets in their folders, augmentation, batches that continue where they stopped."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments.data import matting_batches, matting_sets
from experiments.data.mattes import KINDS
from experiments.data.matting import (
    HELD_OUT_SEED,
    Composed,
    Examined,
    Foreground,
    Generated,
    Layers,
    read_matte,
)
from experiments.data.matting_batches import Augmentation, augmented, joined, training_batches, warped
from experiments.data.sources import Cached
from jaxup import matting
from jaxup.files import InputError
from tests import goldens

RNG = np.random.default_rng(8)
COLOURS = ("image", "foreground", "background")


def picture(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def disc(height=20, width=24, soft=6.0):
    """A matte that is opaque in the middle, and fades."""
    y, x = np.arange(height)[:, None] - height / 2, np.arange(width) - width / 2
    return np.rint(255 * np.clip((0.4 * min(height, width) - np.hypot(y, x)) / soft, 0, 1)).astype(np.uint8)


class Discs:
    """Layers of three sizes, quick to make."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        size = ((40, 52), (25, 30), (64, 33))[range(3)[index]]
        rng = np.random.default_rng(index)
        colours, background = (rng.integers(0, 256, (*n, 3), np.uint8) for n in (size, (30, 20)))
        return Layers(colours, disc(*size), background, f"disc{index}")


@pytest.mark.parametrize("kind", KINDS)
def test_generated_mattes(kind):
    """In range, of that size, the same each time; partial in many pixels, and with a background that is one."""
    alpha, colours = KINDS[kind](np.random.default_rng(3), 48, 64)
    assert alpha.shape == (48, 64) and colours.shape == (48, 64, 3)
    assert alpha.min() >= 0 and alpha.max() <= 1 + 1e-6 and colours.min() >= 0 and colours.max() <= 1 + 1e-6
    assert ((alpha > 0.02) & (alpha < 0.98)).mean() > 0.1
    assert (alpha == 0).any() and alpha.max() >= {"hair": 1, "smoke": 0.5, "lace": 0.8}[kind]
    assert len(np.unique(np.rint(255 * alpha))) > (15 if kind == "lace" else 40)
    again = KINDS[kind](np.random.default_rng(3), 48, 64)
    np.testing.assert_array_equal(alpha, again[0])
    np.testing.assert_array_equal(colours, again[1])


def test_generated_layers():
    source = Generated(4, size=(32, 40), seed=5)
    first = source[1]
    source[0]
    for a, b in zip(first, Generated(9, size=(32, 40), seed=5)[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.background.shape == (32, 40, 3) and source[3].name == "hair_5_0003"
    assert not np.array_equal(source[0].alpha, Generated(1, (32, 40), 6)[0].alpha)
    held_out = Generated(1, 32, HELD_OUT_SEED).photographs
    assert not any(np.array_equal(a, b) for a in held_out for b in source.photographs)
    with pytest.raises(IndexError):
        source[4]
    with pytest.raises(InputError, match="kinds: expected hair, smoke, lace, got 'fog'"):
        Generated(1, kinds=["fog"])


def test_tested_layers_are_composed_and_have_trimaps():
    layers = Cached(Discs())
    for i, (image, trimap, alpha, name) in enumerate(Examined(layers, widest=4)):
        foreground, matte, background, _ = layers[i]
        covering = matting.covering_background(background, size=alpha.shape)
        a = np.float32(matte[..., None]) / np.float32(255)
        np.testing.assert_array_equal(image, (a * foreground + (1 - a) * covering).astype(np.uint8))
        np.testing.assert_array_equal(alpha[trimap != 128], trimap[trimap != 128])
        assert name == f"disc{i}" and set(np.unique(trimap)) == {0, 128, 255}
        np.testing.assert_array_equal(trimap, Examined(layers, widest=4)[i].trimap)


def adobe_folder(root, part="Training", per=2, kind="Adobe-licensed images"):
    base, lower = root / "Combined_Dataset" / f"{part}_set", part.lower()
    names, stored = ["a b.jpg", "c.png"], {}
    for name in names:
        stored[name] = save(base / kind / "fg" / name.replace("jpg", "png"), picture(20, 24, 3))
        (base / kind / "fg" / name.replace("jpg", "png")).rename(base / kind / "fg" / name)
        save(base / kind / "alpha" / name.replace("jpg", "png"), disc())
        for turn in range(per):
            trimap = matting.trimap_by_distance(disc(), radius=turn)
            save(base / kind / "trimaps" / f"{name.split('.')[0]}_{turn}.png", trimap)
    backgrounds = [f"bg{i}.png" for i in range(2 * per)]
    for name in backgrounds:
        save(root / ("train2014" if part == "Training" else "VOCdevkit/VOC2012/JPEGImages") / name, picture(30, 21, 3))
    (base / f"{lower}_fg_names.txt").write_text("\n".join(names) + "\n")
    (base / f"{lower}_bg_names.txt").write_text("\n".join(backgrounds))
    return base


def test_adobe(tmp_path):
    adobe_folder(tmp_path)
    source = matting_sets.TRAINING["adobe"](tmp_path)
    assert len(source) == 4 and [layers.name for layers in source] == ["a b_0", "a b_1", "c_0", "c_1"]
    for i, layers in enumerate(source):
        stored = Image.open(tmp_path / "train2014" / f"bg{i}.png")
        np.testing.assert_array_equal(layers.background, np.asarray(stored))
        np.testing.assert_array_equal(layers.alpha, disc())
    adobe_folder(tmp_path, "Test")
    test = matting_sets.TESTS["adobe"](tmp_path / "Combined_Dataset" / "..")
    for i, example in enumerate(test):
        np.testing.assert_array_equal(example.trimap, matting.trimap_by_distance(disc(), radius=i % 2))
        background = np.asarray(Image.open(tmp_path / "VOCdevkit/VOC2012/JPEGImages" / f"bg{i}.png"))
        black = example.alpha == 0  # enlarged to cover, never reduced
        covering = matting.covering_background(background, size=(20, 24), reduce=False)
        np.testing.assert_array_equal(example.image[black], covering[black])


def test_what_is_wrong_with_adobes_folders(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: has no Training_set")):
        matting_sets.adobe_training(tmp_path)
    base = adobe_folder(tmp_path)
    lists = base / "training_bg_names.txt"
    names = lists.read_text()
    lists.write_text("bg0.png\nbg1.png\nbg2.png")
    with pytest.raises(InputError, match=r"training_bg_names.txt: expected as many .* 2 foregrounds, got 3"):
        matting_sets.adobe_training(tmp_path)
    lists.write_text(names.replace("bg0", "missing"))
    with pytest.raises(InputError, match=r"missing.png is in none of bg/train, train2014"):
        matting_sets.adobe_training(tmp_path)
    lists.unlink()
    with pytest.raises(InputError, match=r"training_bg_names.txt: no such file"):
        matting_sets.adobe_training(tmp_path)
    lists.write_text(names)
    (tmp_path / "train2014" / "bg3.png").write_bytes(b"no image")
    source = matting_sets.adobe_training(tmp_path)
    with pytest.raises(InputError, match=r"bg3.png: cannot be read"):
        source[3]
    alpha = base / "Adobe-licensed images" / "alpha"
    save(alpha / "c.png", disc(20, 23))
    with pytest.raises(InputError, match=r"c.png: an alpha of 23 x 20 pixels for a foreground of 24 x 20"):
        source[2]
    (alpha / "c.png").unlink()
    with pytest.raises(InputError, match=r"c.png: has no partner c in .*alpha"):
        matting_sets.adobe_training(tmp_path)
    (base / "training_fg_names.txt").write_text("d.png\n")
    with pytest.raises(InputError, match=r"no d.png in a folder fg"):
        matting_sets.adobe_training(tmp_path)


def test_alphamatting_in_both_layouts(tmp_path):
    web, named = tmp_path / "web", tmp_path / "named"
    for folder, paths in (
        (web, ("input_training_lowres/GT01", "trimap_training_lowres/Trimap2/GT01", "gt_training_lowres/GT01")),
        (named / "matting" / "alphamatting", ("GT01_image", "GT01_trimap", "GT01_alpha")),
    ):
        stored = [
            save(folder / f"{p}.png", a) for p, a in zip(paths, (picture(20, 24, 3), disc(), disc()), strict=True)
        ]
        source = matting_sets.alphamatting(web, "Trimap2") if folder == web else matting_sets.alphamatting(named)
        (image, trimap, alpha, name), *_ = source
        assert name == "GT01" and len(source) == 1
        for found, want in ((image, stored[0]), (alpha, stored[2]), (trimap, matting.clean_trimap(stored[1]))):
            np.testing.assert_array_equal(found, want)
    with pytest.raises(InputError, match=r"GT01.png: has no partner GT01 in .*Trimap1"):
        matting_sets.alphamatting(web)
    save(named / "matting" / "alphamatting" / "GT01_trimap.png", disc(21, 24))
    with pytest.raises(InputError, match=r"GT01_trimap.png: a trimap of 24 x 21 pixels for an image of 24 x 20"):
        matting_sets.alphamatting(named)[0]
    with pytest.raises(InputError, match="has neither input_training_lowres nor images <id>_image"):
        matting_sets.alphamatting(tmp_path)


def test_the_data_at_hand():
    (image, trimap, alpha, name), *_ = matting_sets.alphamatting(goldens.shared("data"))
    assert (name, image.shape) == ("GT01", (497, 800, 3))
    np.testing.assert_array_equal(alpha[trimap != 128], trimap[trimap != 128])


def test_folders(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "fg" / "x.png", picture(20, 24, 3))
        save(tmp_path / part / "alpha" / "x.png", disc())
    for i in range(3):
        save(tmp_path / "bg" / f"{i}.png", picture(9, 8, 3))
    source = matting_sets.folder_training(tmp_path)
    assert len(source) == 100
    assert len({layers.background.tobytes() for layers in map(source.__getitem__, range(20))}) == 3
    np.testing.assert_array_equal(source[7].background, matting_sets.folder_training(tmp_path)[7].background)
    assert len(matting_sets.folder_test(tmp_path)) == 1
    for kind, pixels in (("image", picture(20, 24, 3)), ("trimap", disc()), ("alpha", disc())):
        save(tmp_path / "test" / kind / "y.png", pixels)
    assert matting_sets.folder_test(tmp_path)[0].name == "y"
    save(tmp_path / "colour.png", picture(4, 4, 3))
    with pytest.raises(InputError, match=r"colour.png: expected a grey image, got one of colours"):
        read_matte(tmp_path / "colour.png")
    deep = np.array([[0, 32896, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_matte(tmp_path / "deep.png"), [[0, 128, 255]])
    with pytest.raises(InputError, match="foregrounds and backgrounds: expected at least one each, got 0 and 0"):
        Composed([], [], 1)
    with pytest.raises(InputError, match="backgrounds: expected 2 for each of 1 foregrounds, got 1"):
        Composed([Foreground("x", tmp_path, tmp_path)], [tmp_path], 2, listed=True)


@pytest.mark.parametrize("manner", ["indexnet", "a2u"])
def test_examples_compose(manner):
    """Images are what their layers compose (but for rounding and cubic resizing), and known pixels are pure."""
    source, how = Discs(), Augmentation(manner, crop=24, widest=5)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        example = augmented(source[seed % 3], lambda rng: source[int(rng.integers(3))], how, rng)
        assert {name: x.shape[2] for name, x in example.items()} == dict.fromkeys(COLOURS, 3) | dict.fromkeys(
            ("alpha", "trimap", "unknown"), 1
        )
        assert all(x.shape[:2] == (24, 24) for x in example.values()) and example["unknown"].any()
        alpha, trimap = example["alpha"], example["trimap"]
        np.testing.assert_array_equal(example["unknown"], (trimap > 0) & (trimap < 1))
        image = alpha * example["foreground"] + (1 - alpha) * example["background"]
        if manner == "a2u":
            np.testing.assert_allclose(example["image"], image, atol=1e-6)
            np.testing.assert_array_equal(alpha[~example["unknown"]], trimap[~example["unknown"]])
        else:
            assert np.abs(example["image"] - image).mean() < 0.05
            assert np.abs(alpha - trimap)[~example["unknown"]].mean() < 0.05
        assert all(x.min() >= 0 and x.max() <= 1 for name, x in example.items() if name != "unknown")


def test_windows_lie_around_unknown_pixels():
    trimap = np.zeros((40, 50), np.uint8)
    trimap[31, 8] = 128
    rows, columns = matting_batches._window(trimap, 11, np.random.default_rng(0))
    assert (rows, columns) == (slice(26, 37), slice(3, 14))
    for size in (40, 39):
        rows, columns = matting_batches._window(trimap, size, np.random.default_rng(0))
        assert trimap[rows, columns].shape == (size, size) and (trimap[rows, columns] == 128).any()
    rows, columns = matting_batches._window(np.zeros_like(trimap), 7, np.random.default_rng(0))
    assert trimap[rows, columns].shape == (7, 7)


def test_joined_and_warped_foregrounds():
    front, back = Discs()[0], Discs()[2]
    colours, alpha = joined(front.foreground, front.alpha, back)
    assert alpha.shape == front.alpha.shape and (alpha >= front.alpha).all() and (alpha > front.alpha).any()
    opaque = front.alpha == 255
    np.testing.assert_array_equal(colours[opaque], front.foreground[opaque])
    whole = front._replace(alpha=np.full_like(front.alpha, 255))
    same = joined(front.foreground, front.alpha, whole)  # opaque everywhere: the first alone
    np.testing.assert_array_equal(same[1], front.alpha)
    identity = SimpleNamespace(uniform=lambda a, b, n=None: np.ones(n) if n else 0.0, random=lambda n: np.ones(n))
    np.testing.assert_array_equal(warped(front.foreground, front.alpha, identity)[0], front.foreground)
    mirror = SimpleNamespace(uniform=identity.uniform, random=lambda n: np.array([1.0, 0.0]))
    np.testing.assert_array_equal(warped(front.foreground, front.alpha, mirror)[0], front.foreground[:, ::-1])
    for seed in range(4):
        moved = warped(front.foreground, front.alpha, np.random.default_rng(seed))
        assert moved[0].shape == front.foreground.shape and moved[0].dtype == moved[1].dtype == np.uint8
        assert 0.5 < np.float64(moved[1]).sum() / np.float64(front.alpha).sum() < 1.8


@pytest.mark.parametrize("manner", ["indexnet", "a2u"])
def test_batches_continue_where_they_stopped(manner):
    how = Augmentation(manner, crop=16, widest=3)
    batches = iter(training_batches(Discs(), how, batch_size=2, seed=4))
    next(batches)
    state = batches.get_state()
    want = [next(batches) for _ in range(2)]
    again = iter(training_batches(Discs(), how, batch_size=2, seed=4))
    again.set_state(state)
    for batch in want:
        found = next(again)
        assert found["image"].shape == (2, 16, 16, 3) and found["unknown"].dtype == bool
        for name, x in batch.items():
            np.testing.assert_array_equal(found[name], x)
    other = next(iter(training_batches(Discs(), how, batch_size=2, seed=5)))
    assert not np.array_equal(other["image"], want[0]["image"])


def test_bad_options():
    with pytest.raises(InputError, match="manner: expected indexnet or a2u, got 'gca'"):
        Augmentation("gca")
    with pytest.raises(InputError, match="crop: expected at least 1, got 0"):
        Augmentation(crop=0)
    with pytest.raises(ValueError, match="batch_size"):
        training_batches(Discs(), Augmentation(), batch_size=0, seed=0)
    with pytest.raises(InputError, match="trimaps: expected 3, one for each image, got 0"):
        Examined(Discs(), [])
