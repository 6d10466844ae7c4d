"""The super-resolution experiment: its data, and its commands as their users run them."""

import functools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from experiments.__main__ import main
from experiments.data.photos import grid_patches, resized, to_luma
from experiments.data.super_resolution import (
    Patches,
    degraded,
    read_folder,
    training_batches,
    training_photos,
    validation_batches,
)
from experiments.super_resolution import evaluation
from experiments.super_resolution.networks import NetworkConfig
from experiments.super_resolution.pictures import most_different
from jaxup.files import InputError
from tests.modules import call

RNG = np.random.default_rng(0)


def photograph(height, width, seed=0):
    """Smooth, so that what lies between pixels can be recovered."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return resized(coarse, (height, width))


def save(folder, **photographs):
    folder.mkdir(parents=True)
    for name, pixels in photographs.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def patches(photographs, **options):
    return Patches(photographs, **{"scale": 2, "size": 8, "stride": 4, **options})


def test_degraded():
    """The luminance of the 8-bit image and of its reduction; a grey one is not converted."""
    rgb = photograph(21, 26)
    low, high = degraded(rgb, 4)
    np.testing.assert_array_equal(high, to_luma(rgb[:20, :24]))
    np.testing.assert_array_equal(low, to_luma(resized(rgb[:20, :24], (5, 6))))
    low, high = degraded(rgb[..., 0], 4)
    np.testing.assert_array_equal(high, rgb[:20, :24, 0])
    assert low.shape == (5, 6)


def test_all_patches_of_all_sizes_and_turns():
    source = patches({"a": photograph(21, 30), "b": photograph(24, 17, 1)}, factors=(1, 0.6))
    expected = []
    for rgb in (photograph(21, 30), photograph(24, 17, 1)):
        for factor in (1, 0.6):
            height, width = (round(factor * n) for n in rgb.shape[:2])
            low, high = (np.rint(image) for image in degraded(resized(rgb, (height, width)), 2))
            for pair in zip(grid_patches(low, 4, 2), grid_patches(high, 8, 4), strict=False):
                expected += [tuple(np.rot90(patch, turn) for patch in pair) for turn in range(4)]
    assert len(source) == len(expected)
    for found, (low, high) in zip(source, expected, strict=True):
        assert found["low"].dtype == found["high"].dtype == np.float32
        np.testing.assert_allclose(255 * found["low"][..., 0], low, atol=1e-4)
        np.testing.assert_allclose(255 * found["high"][..., 0], high, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 4])
def test_both_resolutions_show_the_same(scale):
    """Reducing the high-resolution patch gives the low-resolution one, but at the border and for rounding."""
    source = patches({"a": photograph(64, 56)}, scale=scale, size=8 * scale, stride=4 * scale, factors=(1, 0.7))
    for example in source:
        reduced = resized(example["high"][..., 0], (8, 8))
        np.testing.assert_allclose(reduced[2:-2, 2:-2], example["low"][2:-2, 2:-2, 0], atol=1.6 / 255)


def test_sizes_below_a_patch_are_left_out_and_smaller_photographs_refused():
    square = photograph(10, 10)
    assert len(patches({"a": square})) == 4 * 3  # of 10, 9 and 8 pixels; 7 and 6 are too few
    assert len(patches({"a": photograph(12, 8)}, factors=(1,), turns=1)) == 2
    with pytest.raises(InputError, match="a: 7 x 10 pixels are fewer than the patch of 8"):
        patches({"a": square[:, :7]})
    with pytest.raises(InputError, match="patch: expected a multiple of the scale 2, got 7"):
        patches({"a": square}, size=7)
    with pytest.raises(InputError, match="stride: expected a multiple of the scale 2, got 0"):
        patches({"a": square}, stride=0)


def test_batches_go_on_where_they_stopped():
    source = patches({"a": photograph(20, 20)})
    whole, other = (iter(training_batches(source, 3, seed)) for seed in (5, 6))
    batches = [next(whole) for _ in range(6)]
    assert batches[0]["low"].shape == (3, 4, 4, 1) and batches[0]["high"].shape == (3, 8, 8, 1)
    assert not np.array_equal(batches[0]["low"], next(other)["low"])
    first = iter(training_batches(source, 3, 5))
    next(first)
    second = iter(training_batches(source, 3, 5))
    second.set_state(first.get_state())
    for batch in batches[1:]:
        np.testing.assert_array_equal(next(second)["high"], batch["high"])


def test_validation_batches_have_one_size():
    source = patches({"a": photograph(20, 20)}, factors=(1,), turns=1)
    assert len(source) == 16
    found = validation_batches(source, 3, 8)
    assert [batch["low"].shape for batch in found] == [(3, 4, 4, 1)] * 2
    np.testing.assert_array_equal(found[0]["high"][0], source[0]["high"])
    np.testing.assert_array_equal(found[-1]["high"][-1], source[15]["high"])
    assert [len(batch["low"]) for batch in validation_batches(source, 20, 100)] == [16]


def test_photographs_for_validation(tmp_path):
    folders = [save(tmp_path / name, a=photograph(9, 9), b=photograph(9, 9, 1)) for name in "pq"]
    learned, held_out = training_photos(folders, [])
    assert [len(learned), len(held_out)] == [3, 1]
    learned, held_out = training_photos(folders[:1], folders[1:])
    assert [len(learned), len(held_out)] == [2, 2]
    learned, held_out = training_photos([], [])
    assert held_out and not learned.keys() & held_out.keys()
    with pytest.raises(InputError, match="train_dirs: expected at least 2 photographs"):
        training_photos([save(tmp_path / "one", a=photograph(9, 9))], [])


def test_grey_files_stay_grey(tmp_path):
    grey = photograph(9, 9)[..., 0]
    found = read_folder(save(tmp_path / "p", colour=photograph(9, 9), grey=grey))
    np.testing.assert_array_equal(found["grey"], grey)
    assert found["colour"].shape == (9, 9, 3)


def train(run_dir, *options):
    return main(["super-resolution", "train", "--smoke", "--run-dir", str(run_dir), *map(str, options)])


def evaluate(*options):
    return main(["super-resolution", "evaluate", *map(str, options)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Named as a test set of the paper, with photographs of two sizes."""
    photographs = {name: photograph(30 + i // 2, 44 - i // 2, i) for i, name in enumerate("abc")}
    return save(tmp_path_factory.mktemp("photographs") / "Set5", **photographs)


@pytest.fixture(scope="module")
def run_of(folder, tmp_path_factory):
    """The directory of a run by its name, which is trained the first time."""
    path = tmp_path_factory.mktemp("runs")

    @functools.cache
    def trained(name):
        options = {"a": (), "b": ("--seed", 1), "c": ("--upsampler", "deconvolution")}
        assert train(path / name, "--train-dirs", folder, *options[name]) == 0
        return path / name

    return trained


@pytest.fixture(scope="module")
def runs(run_of):
    """Attention with two seeds, and deconvolution."""
    directories = [run_of(name) for name in "abc"]
    return directories[0].parent


@pytest.mark.slow
def test_evaluate_runs_beside_the_paper(runs, folder, tmp_path, capsys):
    out, words = tmp_path / "out", [word for name in "abc" for word in ("--run-dir", runs / name)]
    assert evaluate(*words, "--test-dirs", folder, "--out", out, "--pictures") == 0
    said = capsys.readouterr().out
    assert "attention, 2x" in said and "2 run(s)" in said and "residual" in said
    lines = [line.split("|")[1:-1] for line in said.splitlines() if line.startswith("| Set5")]
    cells = {line[2].strip(): [cell.strip() for cell in line[3:]] for line in lines}
    assert cells["attention"][2:] == ["36.88", "36.84"] and cells["deconvolution"][2:] == ["36.86", "36.86"]
    assert cells["bicubic"][2:] == ["", ""]
    names = {path.name for path in out.iterdir()}
    pictures = {f"Set5_{name}.png" for name in ("a_2x", "b_2x", "c_2x", "2x_kernels_1_attention")}
    assert names == {"results.json", "table.md", *pictures}
    results = json.loads((out / "results.json").read_text())
    values = np.array([image["attention"]["psnr"] for image in results["images"]])
    assert values.shape == (3, 2) and (values[:, 0] != values[:, 1]).all()
    mean = {row["method"]: row["PSNR"] for row in results["mean"]}
    assert mean["attention"] == pytest.approx(values.mean())
    assert evaluate("--test-dirs", folder, "--out", out) == 2


def test_evaluate_agrees_with_scikit_image(folder, capsys):
    assert evaluate("--test-dirs", folder, "--scales", 4) == 0
    found = [float(cell) for cell in capsys.readouterr().out.splitlines()[-1].split("|")[4:6]]
    scores = []
    for rgb in read_folder(folder).values():
        low, high = degraded(rgb, 4)
        up = np.clip(resized(low.astype(np.float32), high.shape), 0, 255)[4:-4, 4:-4].astype(float)
        truth = high[4:-4, 4:-4]
        options = dict(data_range=255, gaussian_weights=True, use_sample_covariance=False)
        scores.append([peak_signal_noise_ratio(truth, up, data_range=255), structural_similarity(truth, up, **options)])
    np.testing.assert_allclose(found, np.mean(scores, axis=0), rtol=1e-3)


@pytest.mark.thorough
def test_without_any_download(tmp_path, capsys):
    assert train(tmp_path / "run", "--scale", 4, "--upsampler", "bilinear", "--preset", "paper") == 0
    assert evaluate("--run-dir", tmp_path / "run", "--smoke") == 0
    assert "| scikit-image | 4x    | bilinear " in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.thorough
def test_runs_of_one_upsampler_are_told_apart_by_directory(runs, tmp_path):
    """Configurations that differ in more than the seed, here in the learning rate of a copied run, are not averaged."""
    other = shutil.copytree(runs / "c", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["learning_rate"] *= 2
    (other / "config.json").write_text(json.dumps(config))
    labels = [entry.label for entry in evaluation.trained([runs / "a", runs / "b", runs / "c", other])]
    assert labels == ["attention", "deconvolution (c)", "deconvolution (other)"]


def test_pictures_show_where_results_differ():
    truth = np.zeros((100, 120))
    first, second = truth.copy(), truth.copy()
    second[90, 110] = 9
    rows, columns = most_different([truth + 50, first, second], truth)
    assert rows.start <= 90 < rows.stop and columns.start <= 110 < columns.stop
    assert most_different([second[:30]], truth[:30])[0] == slice(0, 30)


@pytest.mark.thorough
def test_bad_folders(folder, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = save(tmp_path / "broken", a=photograph(40, 40), b=photograph(40, 40))
    (broken / "b.png").write_bytes((broken / "b.png").read_bytes()[:200])
    tiny = save(tmp_path / "tiny", a=photograph(40, 40), b=photograph(40, 12))
    for where, message in [
        (tmp_path / "none", "none: no such folder"),
        (empty, "empty: no images"),
        (broken, "b.png: cannot be read"),
        (tiny, "b: 12 x 40 pixels"),  # 16 are a patch of the smoke size, and 15 enough for SSIM
    ]:
        assert train(tmp_path / "run", "--train-dirs", where) == 2
        assert message in capsys.readouterr().err
        assert evaluate("--test-dirs", where, "--scales", 2) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert evaluate("--run-dir", tmp_path / "nothing") == 2
    assert evaluate("--test-dirs", folder, "--pictures") == 2
    assert train(tmp_path / "run", "--upsampler", "sapa") == 2


@pytest.mark.parametrize(
    "words, message",
    [
        ("train --upsampler bilinear --kernel-size 3", "kernel_size: has no effect on bilinear, only on attention and"),
        ("train --upsampler deconvolution --scaled", "scaled: has no effect on deconvolution, only on attention"),
        ("train --upsampler sapa", "upsampler: expected one of"),
        ("evaluate --run-dir {run} --scales 4", "scales: expected those of the runs, [2], among them, got [4]"),
        ("evaluate --scales 0", "scales: expected an integer >= 1, got 0"),
        ("evaluate --images 0", "images: expected at least 1, got 0"),
        ("evaluate --crop 20 --scales 2 8", "camera: 20 x 20 pixels, expected at least 27 for 8x"),
    ],
)
@pytest.mark.first(2)
def test_what_has_no_effect_is_refused(words, message, run_of, tmp_path, capsys):
    """In one line, before any work."""
    words = words.format(run=run_of("c")).split() if "{run}" in words else words.split()
    words += ["--run-dir", str(tmp_path / "new")] if words[0] == "train" else []
    capsys.readouterr()  # what the training said
    assert main(["super-resolution", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "new").exists()


@pytest.mark.thorough
def test_scaled_attention():
    scaled, plain = NetworkConfig(features=8, scale=4, scaled=True), NetworkConfig(features=8, scale=4)
    networks = [nnx.eval_shape(lambda config=config: config.build(0)) for config in (scaled, plain)]
    assert [block.up.scaled for network in networks for block in network.blocks] == [True, True, False, False]
    x = np.random.default_rng(0).random((1, 4, 4, 1), np.float32)
    assert not np.array_equal(*(call(replace(config, scale=2).build(0), x) for config in (scaled, plain)))
    assert (scaled.label, plain.label) == ("attention, scaled", "attention")


@pytest.mark.thorough
def test_photographs_may_move(folder, tmp_path):
    """A run goes on with the same photographs in another place."""
    for place in ("first", "second"):
        shutil.copytree(folder, tmp_path / place)
    options = ("--upsampler", "bilinear", "--features", 4)  # which compiles quickly
    assert train(tmp_path / "run", "--train-dirs", tmp_path / "first", *options) == 0
    assert train(tmp_path / "run", "--train-dirs", tmp_path / "second", *options, "--steps", 6) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
