"""Removal of noise and texture from the command line, as its users run it."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.joint_upsampling import PRESETS
from experiments.joint_upsampling.filtering import DENOISERS, file_name, filtered

RNG = np.random.default_rng(5)
TINY = """
    --preset fdkn-denoise-short --widths 4 4 --scenes 4 --scene-size 32 --crop 16 --batch-size 4 --drops 1
    --log-every 1
"""


def run(command, *options):
    return main(["joint-upsampling", command, *map(str, options)])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "tiny"
    assert run("train", "--run-dir", path, *TINY.split(), "--steps", 2) == 0
    return path


@pytest.fixture
def images(tmp_path):
    """A step of brightness with noise, the same without, and one of another size."""
    clean = np.full((24, 32, 3), 60, np.uint8)
    clean[:, 13:] = (190, 140, 100)
    noisy = np.clip(clean + RNG.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    for name, image in {"clean": clean, "noisy": noisy, "small": clean[:20]}.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return tmp_path


def read(path):
    return np.asarray(Image.open(path)).astype(np.float64)


@pytest.mark.slow  # filter, with the same networks, by default
def test_denoising_is_compared(run_dir, tmp_path, capsys):
    options = ["--scenes", 2, "--scene-size", 32, "--run-dir", run_dir, "--out", tmp_path / "out", "--pictures"]
    assert run("denoise", *options) == 0
    out = capsys.readouterr().out
    assert "| FDKN w/o residual " in out and "12.53" in out
    mean = json.loads((tmp_path / "out" / "results.json").read_text())["mean"]
    assert list(mean) == [*DENOISERS, "FDKN w/o residual"]
    assert mean["noisy"]["PSNR"] == pytest.approx(-10 * np.log10(0.005), abs=0.3)
    assert mean["joint bilateral"]["RMSE"] < mean["noisy"]["RMSE"]
    assert mean["joint bilateral"]["PSNR"] > mean["noisy"]["PSNR"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.slow
def test_noise_is_removed_under_a_guide(run_dir, images, capsys):
    options = ["--target", images / "noisy.png", "--guide", images / "clean.png", "--noise", 0]
    assert run("filter", *options, "--run-dir", run_dir, "--out", images / "out") == 0
    names = {"target", "guide", "guided-filter", "joint-bilateral", "FDKN-w-o-residual", "comparison"}
    assert {path.name for path in (images / "out").iterdir()} == {f"{name}.png" for name in names}
    clean = read(images / "clean.png")
    np.testing.assert_array_equal(read(images / "out" / "target.png"), read(images / "noisy.png"))
    before = np.abs(read(images / "noisy.png") - clean).mean()
    assert np.abs(read(images / "out" / "guided-filter.png") - clean).mean() < 0.6 * before


@pytest.mark.thorough
def test_noise_that_is_added_is_measured(images, capsys):
    assert run("filter", "--target", images / "clean.png", "--out", images / "out", "--noise", 0.005) == 0
    results = json.loads((images / "out" / "results.json").read_text())
    assert list(results) == ["target", "guided filter", "joint bilateral"]
    assert results["target"] == pytest.approx(-10 * np.log10(0.005), abs=0.5)
    assert results["joint bilateral"] > results["target"] + 3
    assert "| joint bilateral " in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["noise", "texture"])
@pytest.mark.first(1)
def test_smoke_needs_no_data(preset, tmp_path):
    assert run("filter", "--preset", preset, "--smoke", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "comparison.png").exists()


def test_channels_are_filtered_one_by_one_again_and_again():
    """With a guide of its own it stays; else every result is the next guide."""
    target, guide, seen = RNG.random((4, 5, 3), np.float32), RNG.random((4, 5, 3), np.float32), []

    def halve(channels, guides):
        assert channels.shape == (3, 4, 5, 1) and guides.shape == (3, 4, 5, 3)
        seen.append(np.asarray(guides[1]))
        return channels / 2

    np.testing.assert_array_equal(filtered(halve, target, guide, 3, follow=False), target / 8)
    assert all((image == guide).all() for image in seen)
    seen.clear()
    np.testing.assert_array_equal(filtered(halve, target, target, 3, follow=True), target / 8)
    for image, factor in zip(seen, (1, 2, 4), strict=True):
        np.testing.assert_array_equal(image, target / factor)


@pytest.mark.thorough
def test_constants_are_kept():
    target, guide = np.full((8, 9, 3), 0.25, np.float32), RNG.random((8, 9, 3), np.float32)
    for method in DENOISERS.values():
        np.testing.assert_allclose(filtered(jax.jit(method), target, guide, 1, follow=False), target, atol=1e-5)


def test_presets_are_the_papers():
    config = PRESETS["train"]["dkn-denoise"]()
    assert (config.data.protocol, config.data.scales, config.data.source) == ("noise", (1,), "nyu")
    assert (config.run.steps, config.optimizer.drops, config.network.residual, config.crop) == (4000, (), False, None)
    assert PRESETS["filter"]["texture"]().iterations == 4 and PRESETS["filter"]["noise"]().noise == 0.005
    assert file_name("FDKN w/o residual (runs/a b)") == "FDKN-w-o-residual-runs-a-b"


@pytest.mark.parametrize(
    "words, message",
    [
        ("filter --target {tmp}/none.png --out {tmp}/new", "none.png: no such file"),
        ("filter --target {tmp}/clean.png --guide {tmp}/small.png --out {tmp}/new", "they have 32 x 24 and 32 x 20"),
        ("filter --guide {tmp}/small.png --out {tmp}/new", "a guide needs a target, --target"),
        ("filter --target {tmp}/clean.png --out {tmp}", "exists already"),
        ("filter --target {tmp}/clean.png --iterations 0 --out {tmp}/new", "expected at least 1 and 0, got 0"),
        ("filter --target {tmp}/clean.png --noise -1 --out {tmp}/new", "expected at least 1 and 0, got 1, -1"),
        ("filter --target {tmp}/clean.png --run-dir {tmp} --out {tmp}/new", "is not a run directory"),
        ("filter --target {tmp}/text.png --out {tmp}/new", "text.png: cannot be read"),
        ("denoise --protocol grid", "protocol: expected noise, got grid"),
        ("denoise --scales 2 --scenes 1 --scene-size 16", "scales: expected 1 with the protocol noise, got [2]"),
        ("evaluate --protocol noise --scales 1", "protocol: noise is for the command denoise"),
        ("train --run-dir {tmp}/new --protocol noise --scales 8", "scales: expected 1 with the protocol noise, got"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message, images, capsys):
    (images / "text.png").write_text("no image")
    assert run(*words.format(tmp=images).split()) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (images / "new").exists()
