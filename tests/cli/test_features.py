"""`jaxup features`: of a photograph and of a folder, with small networks of random weights."""

from pathlib import Path

import numpy as np
import pytest

from jaxup.cli import feature_networks, main
from jaxup.cli.feature_pictures import colours, similarity
from jaxup.interop import save_module
from jaxup.models import VisionEncoder
from jaxup.nn import NAF
from tests.modules import drawn

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

ENCODER = dict(patch_size=4, width=12, depth=1, num_heads=3, hidden_features=8, image_size=8)
PHOTO = np.random.default_rng(0).integers(0, 256, (10, 17, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a photograph and weights."""
    monkeypatch.chdir(tmp_path)
    save_module("encoder.safetensors", drawn(VisionEncoder, **ENCODER)[0], ENCODER)
    Image.fromarray(PHOTO).save("photo.png")
    return tmp_path


def run(*arguments, image="photo.png", encoder="encoder.safetensors"):
    return main(["features", image, "--encoder", encoder, *arguments])


def refused(capsys, message, *arguments, **names):
    """Exit status 2, one line, no new file."""
    before = sorted(Path().rglob("*"))
    assert run(*arguments, **names) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert sorted(Path().rglob("*")) == before


def test_a_photograph(folder, capsys):
    """Of the nearest whole number of patches; colours and numbers; nothing is overwritten."""
    assert run("-o", "out.npz", "--pca", "out.png") == 0
    assert capsys.readouterr().out == "out.npz: 4 x 2 x 12 of 17 x 10 pixels\n"
    stored = np.load("out.npz")
    assert stored["features"].shape == (2, 4, 12) and stored["features"].dtype == np.float32
    assert stored["image_size"].tolist() == [10, 17]
    assert np.asarray(Image.open("out.png")).shape == (2, 4, 3)
    refused(capsys, "out.npz: exists already", "-o", "out.npz")


def test_full_resolution(folder, capsys):
    """The filter that needs no weights; an average of the features is within their range."""
    assert run("-o", "low.npy") == 0
    assert (
        run("--upsampler", "fitted", "-o", "out.npy", "--pca", "s.png", "--similar", "16", "0", "--store", "float16")
        == 0
    )
    low, out, picture = np.load("low.npy"), np.load("out.npy"), np.asarray(Image.open("s.png"))
    assert out.shape == (10, 17, 12) and out.dtype == np.float16
    assert out.min() >= low.min() - 1e-2 and out.max() <= low.max() + 1e-2
    assert picture.shape == (10, 17, 3) and picture[0, 16].tolist() == [230, 30, 30]


@pytest.mark.thorough
def test_an_upsampler_with_weights(folder, capsys):
    options = dict(features=16, kernel_size=3, depth=1)
    save_module("naf.safetensors", drawn(NAF, **options)[0], options)
    weights = ("--upsampler", "naf", "--upsampler-weights", "naf.safetensors")
    assert run(*weights, "-o", "out.npy", "--longest", "8") == 0
    assert np.load("out.npy").shape == (5, 8, 12)
    capsys.readouterr()
    refused(capsys, "expected weights of jafar, got those of naf", "--upsampler", "jafar", *weights[2:], "-o", "a.npy")


def test_a_folder_goes_on_where_it_was(folder, capsys):
    """What is there stays; what cannot be read is left out, named, and the status says so."""
    (folder / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(PHOTO).save(folder / "photos" / name)
    (folder / "photos" / "notes.txt").write_text("no photograph")
    assert run("-o", "out", image="photos") == 0
    assert "a.png.npz" in capsys.readouterr().out
    first = (folder / "out" / "a.png.npz").read_bytes()
    (folder / "out" / "b.png.npz").unlink()
    (folder / "out" / "a.png.npz").write_bytes(first + b"kept")
    (folder / "photos" / "c.png").write_bytes(b"damaged")
    assert run("-o", "out", image="photos") == 2
    out, err = capsys.readouterr()
    assert out.startswith("1 of 3 photographs are done already\n") and "b.png.npz" in out
    assert "warning: photos/c.png" in err and err.endswith("error: 1 of 2 photographs were left out\n")
    assert (folder / "out" / "a.png.npz").read_bytes() == first + b"kept"
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png.npz", "b.png.npz"]


@pytest.mark.parametrize("kind", ["grey", "alpha", "upright", pytest.param("pixel", marks=pytest.mark.thorough)])
def test_photographs_of_any_kind(folder, monkeypatch, kind):
    """What the networks see."""
    seen = []

    def make_features(*_, **__):
        return lambda pixels: (seen.append(pixels), np.ones((1, 1, 3)), np.ones((1, 1, 3)))[1:]

    if kind != "pixel":  # which goes through the networks
        monkeypatch.setattr(feature_networks, "make_features", make_features)
    if kind == "grey":
        Image.fromarray(PHOTO[..., 0]).save("a.png")
        expected = PHOTO[..., :1].repeat(3, 2)
    elif kind == "alpha":
        Image.fromarray(np.dstack([PHOTO, PHOTO[..., 0]])).save("a.png")
        expected = PHOTO
    else:
        small = PHOTO if kind == "upright" else PHOTO[:1, :1]
        turned = Image.Exif()
        turned[0x0112] = 6  # to be turned by 90 degrees, clockwise
        Image.fromarray(small).save("a.png", exif=turned)
        expected = np.rot90(small, -1)
    assert run("-o", "out.npy", "--pca", "out.png", image="a.png") == 0
    if kind == "pixel":
        assert np.load("out.npy").shape == (1, 1, 12)
    else:
        np.testing.assert_array_equal(seen[0], expected)


@pytest.mark.thorough
def test_errors(folder, capsys):
    out = ("-o", "out.npz")
    refused(capsys, "give -o FILE, --pca FILE or both")
    refused(capsys, "--similar: needs --pca FILE", *out, "--similar", "1", "1")
    refused(capsys, "none.png: no such file", *out, image="none.png")
    refused(capsys, "out.txt: expected a name that ends in .npz or .npy", "-o", "out.txt")
    refused(capsys, "out.jpg: expected a name that ends in .png", "--pca", "out.jpg")
    refused(capsys, "--longest -1: expected a number of pixels, or 0", *out, "--longest", "-1")
    refused(capsys, "photo.png: is also an input", "--pca", "photo.png", "--force")
    refused(capsys, "--upsampler-weights: needs --upsampler NAME", *out, "--upsampler-weights", "a")
    refused(capsys, "did you mean 'dinov2_s14'", *out, encoder="dinov2_s")
    refused(
        capsys,
        "expected weights of dinov2_s14, got those of",
        *out,
        "--weights",
        "encoder.safetensors",
        encoder="dinov2_s14",
    )
    refused(capsys, "--layer 2: expected 0 to 1", *out, "--layer", "2")
    refused(capsys, "anyup needs --upsampler-weights FILE", *out, "--upsampler", "anyup")
    refused(
        capsys, "fitted takes no weights", *out, "--upsampler", "fitted", "--upsampler-weights", "encoder.safetensors"
    )
    refused(capsys, "VisionEncoder is no upsampler", *out, "--upsampler", "encoder.safetensors")
    refused(capsys, "outside of photo.png, 17 x 10", "--pca", "a.png", "--similar", "17", "0")
    Path("empty").mkdir()
    refused(capsys, "empty: no photographs in this folder", *out, image="empty")
    options = dict(features=16, kernel_size=3, depth=1)
    save_module("naf.safetensors", drawn(NAF, **options)[0], options)
    refused(capsys, "NAF is no encoder of features", *out, encoder="naf.safetensors")


def test_colours_are_principal_components():
    """Of the coarse map, in the range of the fine one, whatever the sign; what does not vary is grey."""
    coarse = np.zeros((2, 3, 5), np.float32)
    coarse[..., 2], coarse[..., 4] = [[0, 4, 8], [0, 4, 8]], [[1], [0]]
    fine = coarse.repeat(2, 0).repeat(2, 1) + 3
    picture = colours(fine, coarse)
    np.testing.assert_array_equal(picture[0, :, 0], [0, 0, 128, 128, 255, 255])
    np.testing.assert_array_equal(picture[:, 0, 1], [255, 255, 0, 0])
    assert np.all(picture[..., 2] == picture[0, 0, 2]) or np.ptp(coarse) > 0
    assert np.all(colours(np.ones((2, 2, 2), np.float32)) == 128)


def test_similarity():
    fine = np.array([[[1, 0], [1, 0], [0, 2], [-3, 0]]], np.float32)
    picture = similarity(fine, 0, 0).astype(int)
    assert picture[0, :2].tolist() == [[230, 30, 30]] * 2, "the pixel, and one around it"
    assert picture[0, 2].sum() > picture[0, 3].sum()
