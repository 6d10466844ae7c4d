"""The command `jaxup matte`: every kind of photograph and trimap, and what the official codes do to them."""

import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from jaxup import interop, matting, models
from jaxup.cli import main
from jaxup.cli.matte import SOLVERS
from jaxup.cli.matte_networks import _in_tiles, recognise
from jaxup.cli.methods import inner
from jaxup.files import read_trimap
from tests.interop.test_networks import shapes
from tests.models.backbones.test_backbones import filled
from tests.registry.examples import marked

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH = 20, 28
PHOTO = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
TRIMAP = np.repeat(np.uint8([0] * 9 + [128] * 10 + [255] * 9)[None], HEIGHT, 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with photo.png and trimap.png of 28 x 20 pixels, and a solver that takes no time."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    Image.fromarray(TRIMAP).save("trimap.png")
    monkeypatch.setitem(sys.modules, "pymatting", Half)
    return tmp_path


class Half:
    """In the place of PyMatting."""

    estimate_alpha_cf = staticmethod(lambda image, trimap: np.full(trimap.shape, 0.5))
    estimate_alpha_knn = staticmethod(lambda image, trimap: np.full(trimap.shape, np.nan))
    estimate_foreground_ml = staticmethod(lambda image, alpha: image * alpha[..., None])


def run(*arguments, image="photo.png", trimap="trimap.png", out="out.png"):
    return main(["matte", image, "--trimap", trimap, "-o", out, *arguments])


def refused(capsys, message, *arguments, **files):
    """Exit status 2, one line, no new file."""
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert run(*arguments, **files) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def read(name):
    with Image.open(name) as image:
        return np.asarray(image)


HALVED = np.where(TRIMAP == 128, 127, TRIMAP)  # 127.5 is truncated, as the official codes do


@pytest.mark.parametrize("out", ["out.png", "out.PGM", "out.npy", "out.tiff"])
def test_formats(folder, capsys, out):
    """8 bits, or fractions of 1."""
    assert run(out=out) == 0
    assert capsys.readouterr().out == f"{out}: 28 x 20, closed-form\n"
    stored = np.load(out) if out.endswith("npy") else tifffile.imread(out) if "tiff" in out else read(out)
    if out in ("out.npy", "out.tiff"):
        assert stored.dtype == np.float32
        np.testing.assert_allclose(stored, np.where(TRIMAP == 128, 0.5, TRIMAP / 255), rtol=1e-6)
    else:
        assert stored.dtype == np.uint8
        np.testing.assert_array_equal(stored, HALVED)


def trimaps():
    """A trimap in every way that files have."""
    yield "grey.png", Image.fromarray(TRIMAP)
    yield "rgb.png", Image.fromarray(TRIMAP).convert("RGB")
    yield "rgba.png", Image.fromarray(TRIMAP).convert("RGBA")
    yield "la.png", Image.fromarray(TRIMAP).convert("LA")
    indices = Image.fromarray((TRIMAP // 100).astype(np.uint8))
    indices.putpalette([0, 0, 0, 128, 128, 128, 255, 255, 255])
    yield "palette.png", indices
    yield "high.png", Image.fromarray(TRIMAP.astype(np.uint16) * 257)
    yield "shifted.png", Image.fromarray(TRIMAP.astype(np.uint16) << 8)
    yield "low.png", Image.fromarray(TRIMAP.astype(np.uint16))
    yield "other.png", Image.fromarray(np.where(TRIMAP == 128, 1 + np.arange(WIDTH) * 9 % 254, TRIMAP).astype(np.uint8))


def test_trimaps(folder, capsys):
    for name, image in trimaps():
        image.save(name)
        np.testing.assert_array_equal(read_trimap(Path(name)), TRIMAP, err_msg=name)
        assert run("--force", trimap=name) == 0
        np.testing.assert_array_equal(read("out.png"), HALVED, err_msg=name)
    tifffile.imwrite("white.tif", 255 - TRIMAP, photometric="miniswhite")
    Path("t.pgm").write_bytes(b"P5\n28 20\n2\n" + (TRIMAP // 100).astype(np.uint8).tobytes())
    for name in ("white.tif", "t.pgm"):
        np.testing.assert_array_equal(read_trimap(Path(name)), TRIMAP, err_msg=name)
    Image.fromarray(TRIMAP).save("lossy.jpg", quality=95)
    kept = read_trimap(Path("lossy.jpg"))
    assert set(np.unique(kept)) <= {0, 128, 255} and (kept == 128)[TRIMAP == 128].all()
    capsys.readouterr()
    Image.fromarray(PHOTO).save("colours.png")
    refused(capsys, "colours.png: expected a grey trimap, got colours", "--force", trimap="colours.png")
    np.save("trimap.npy", TRIMAP)
    refused(capsys, "trimap.npy: cannot be read", "--force", trimap="trimap.npy")


def test_trimaps_that_know_all_or_nothing(folder, capsys, monkeypatch):
    known = np.where(TRIMAP == 128, 0, TRIMAP)
    Image.fromarray(known).save("known.png")
    Image.fromarray(known > 0).save("bits.png")
    Image.fromarray(np.full_like(TRIMAP, 100)).save("unknown.png")
    Image.fromarray(np.where(TRIMAP == 0, 128, TRIMAP)).save("front.png")
    refused(capsys, "the trimap has no known background", trimap="unknown.png")
    refused(capsys, "the trimap has no known background", trimap="front.png")
    monkeypatch.setitem(sys.modules, "pymatting", None)  # nothing is to be solved
    for name in ("known.png", "bits.png"):
        assert run("--force", trimap=name) == 0
        np.testing.assert_array_equal(read("out.png"), known)
        assert capsys.readouterr().err == f"warning: {name}: no unknown pixels: the matte is the trimap\n"


def test_photographs(folder, monkeypatch):
    """What the method sees: 8 bits of RGB, upright as the photograph is displayed."""
    seen = []
    keep = lambda image, trimap: seen.append(np.rint(image * 255)) or np.full(trimap.shape, 0.5)  # noqa: E731
    monkeypatch.setattr(Half, "estimate_alpha_cf", staticmethod(keep))
    Image.fromarray(PHOTO).convert("CMYK").save("cmyk.jpg", quality=100, subsampling=0)
    Image.fromarray(PHOTO).convert("L").save("grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.rot90(PHOTO)).save("turned.png", exif=exif)
    tifffile.imwrite("deep.tif", PHOTO.astype(np.uint16) * 257, photometric="rgb")
    for name in ("photo.png", "cmyk.jpg", "grey.png", "turned.png", "deep.tif"):
        assert run("--force", image=name) == 0
    plain, cmyk, grey, turned, deep = seen
    for same in (plain, turned, deep):
        np.testing.assert_array_equal(same, PHOTO)
    assert np.abs(cmyk - PHOTO).mean() < 8
    np.testing.assert_array_equal(grey, read("grey.png")[..., None].repeat(3, 2))


def test_sizes_that_do_not_match(folder, capsys):
    Image.fromarray(TRIMAP[:, :27]).save("small.png")
    message = "small.png: 27 x 20 pixels, the photograph has 28 x 20 as it is displayed"
    refused(capsys, message, trimap="small.png")


def test_foreground(folder, capsys, monkeypatch):
    assert run("--foreground", "front.png") == 0 and capsys.readouterr()
    expected = np.rint(PHOTO * np.where(TRIMAP == 128, 0.5, TRIMAP / 255)[..., None])
    np.testing.assert_allclose(read("front.png"), expected, atol=1)
    refused(capsys, "front.png: exists already; --force overwrites it", "--foreground", "front.png", out="a.png")
    refused(capsys, "front.jpg: expected a name that ends in .png", "--foreground", "front.jpg", out="a.png")
    refused(capsys, "a.png: is also the name of the matte", "--foreground", "a.png", out="a.png")
    for name in ("photo.png", "trimap.png"):
        refused(capsys, f"{name}: is also an input", "--force", "--foreground", name, out="a.png")
    monkeypatch.setitem(sys.modules, "pymatting", None)
    message = 'this needs PyMatting: pip install "jaxup[matting]"'
    refused(capsys, message, out="a.png")
    refused(capsys, message, "--foreground", "b.png", out="a.png")


def test_outputs_are_no_inputs(folder, capsys):
    Path("link.png").symlink_to("photo.png")
    Path("hard.png").hardlink_to("photo.png")
    for name in ("photo.png", "trimap.png", "./photo.png", "link.png", "hard.png"):
        refused(capsys, "is also an input", "--force", out=name)
    Path("weights.pgm").write_bytes(b"x")
    refused(capsys, "weights.pgm: is also an input", "--force", "--weights", "weights.pgm", out="weights.pgm")
    assert run() == 0 and capsys.readouterr()
    refused(capsys, "out.png: exists already; --force overwrites it")
    refused(capsys, "absent: no such folder", out="absent/out.png")
    refused(capsys, "out.jpg: expected a name that ends in .png", out="out.jpg")
    refused(capsys, "none.png: no such file", image="none.png", out="a.png")
    refused(capsys, "the method gave NaN or infinity", "--method", "knn", out="a.png")
    refused(capsys, "invalid choice: 'cf'", "--method", "cf", out="a.png")


def network(name):
    options = {"features": 4, "aspp": False, "upsampler": "avg-nearest"}
    module = filled(partial(getattr(models.matting, name), **options))
    interop.save_module("weights.safetensors", module, options)
    module.eval()
    return nnx.jit(module)


@pytest.mark.thorough
def test_the_official_way(folder):
    """Of A2U: mirrored up to multiples of 16, and cut again; what the trimap knows is kept."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    module = network("A2UMatting")
    assert run("--weights", "weights.safetensors", out="out.npy") == 0
    x = matting.a2u_input(PHOTO, TRIMAP)
    assert x.shape == (32, 32, 4)
    expected = matting.a2u_alpha(np.asarray(module(x[None]))[0, ..., 0], TRIMAP) / 255
    assert np.std(expected[TRIMAP == 128]) > 0.05
    np.testing.assert_allclose(np.load("out.npy"), expected, atol=1e-4)
    Image.fromarray(np.full_like(TRIMAP, 128)).save("trimap.png")
    assert run("--weights", "weights.safetensors", out="unknown.npy") == 0
    assert np.load("unknown.npy").shape == TRIMAP.shape


def test_bad_weights(folder, capsys):
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    save_file({"x": np.ones(2, np.float32)}, "other.safetensors")
    save_file({"bilinear0.bconv_UP.1.weight": np.ones((36, 1)), "x": np.ones(1)}, "damaged.safetensors")
    for name, message in {
        "other.safetensors": "expected weights of IndexNet matting or A2U matting",
        "none.safetensors": "No such file",
        "photo.png": "photo.png: expected ",  # a file of tensors, or PyTorch installed
        "damaged.safetensors": "damaged.safetensors: expected weights of IndexNet matting or A2U matting, some tensors",
    }.items():
        refused(capsys, message, "--weights", name)
    refused(capsys, "--method knn takes no weights", "--weights", "other.safetensors", "--method", "knn")


def test_tiles():
    """Each pixel from the tile whose it is, and tiles without unknown pixels are not run at all."""
    x, seen = RANDOM.random((320, 64, 4)).astype(np.float32), []
    x[200:, :, 3] = 1
    plain = lambda tile: seen.append(tile.shape) or tile[..., 0]  # noqa: E731
    out = _in_tiles(plain, x, 128, lambda done, total: None)
    np.testing.assert_array_equal(out[:200], x[:200, :, 0])
    assert not out[256:].any()
    assert set(seen) == {(128, 64, 4)} and len(seen) == 4
    assert _in_tiles(plain, x, 0, lambda done, total: None).shape == (320, 64)
    assert seen[-1] == (320, 64, 4)


A2U = {"stride": 16, "aspp": True, "decoder_conv_operator": "residual_conv", "decoder_kernel_size": 3} | {
    "up_kernel_size": 3, "encode_kernel_size": 6, "downupsample_group": 1, "share": True
}  # fmt: skip
CONFIGS = {
    "shared": A2U,
    "up5": A2U | {"up_kernel_size": 5, "share": False},
    "groups": A2U | {"downupsample_group": 2, "aspp": False, "decoder_kernel_size": 5},
    "plain": A2U | {"decoder_conv_operator": "std_conv"},
    "separable": A2U | {"decoder_conv_operator": "dep_sep_conv"},
}


BASE = {"width_mult": 1.0, "apply_aspp": True, "decoder": "unet_style", "output_stride": 32}
BASE |= {"conv_operator": "std_conv", "decoder_kernel_size": 5}
INDEX = BASE | {"decoder": "indexnet", "use_nonlinear": True, "use_context": True}
INDEXNET = {
    "b11": BASE,
    "b11-1.4": BASE | {"width_mult": 1.4, "apply_aspp": False, "decoder_kernel_size": 3},
    "b1": BASE | {"decoder": "deeplabv3+", "output_stride": 16, "conv_operator": "dep_sep_conv"},
    "b2": BASE | {"decoder": "refinenet", "apply_aspp": False, "decoder_kernel_size": 3},
    "m2o": INDEX | {"indexnet": "depthwise", "index_mode": "m2o"},
    "m2o-16": INDEX | {"indexnet": "depthwise", "index_mode": "m2o", "use_nonlinear": False, "output_stride": 16},
    "o2o": INDEX | {"indexnet": "depthwise", "index_mode": "o2o", "use_context": False, "output_stride": 8},
    "holistic": INDEX | {"indexnet": "holistic", "index_mode": "o2o", "conv_operator": "dep_sep_conv"},
    "holistic-linear": INDEX | {"indexnet": "holistic", "index_mode": "o2o"} | dict.fromkeys(
        ("use_nonlinear", "use_context"), False
    ),
}  # fmt: skip
NETWORKS = {name: ("resnetmat", config) for name, config in CONFIGS.items()}
NETWORKS |= {name: ("hlmobilenetv2", config) for name, config in INDEXNET.items()}
NETWORKS["b3"] = ("hlvgg16", {"input_chn": 4})


@pytest.mark.parametrize("name", marked(NETWORKS, {"up5", "holistic"}))
def test_official_networks_are_recognised(name):
    """Also as they lie in another module."""
    tensors = {key: np.broadcast_to(np.float32(0), s) for key, s in shapes(*NETWORKS[name]).items()}
    assert recognise(tensors) == NETWORKS[name]
    found, state = inner({f"net.model.{key}": x for key, x in tensors.items()}, recognise)
    assert found == NETWORKS[name] and state.keys() == tensors.keys()


def test_unknown_keys():
    assert inner({"a.x": 1, "b.x": 2}, recognise) is inner({"a": 1}, recognise) is inner({}, recognise) is None


@pytest.mark.thorough
def test_pymatting(tmp_path, monkeypatch):
    """Every method finds that the right of a picture of two colours is foreground, and what its colours are."""
    pytest.importorskip("pymatting", reason="PyMatting is not installed")
    monkeypatch.chdir(tmp_path)
    photo = np.full((24, 32, 3), 30, np.uint8)
    photo[:, 16:] = 220
    photo += RANDOM.integers(0, 8, photo.shape).astype(np.uint8)
    Image.fromarray(photo).save("photo.png")
    Image.fromarray(np.repeat(np.uint8([0] * 10 + [128] * 12 + [255] * 10)[None], 24, 0)).save("trimap.png")
    for name in SOLVERS:
        assert run("--force", "--method", name, "--foreground", "front.png") == 0
        alpha = read("out.png").astype(int)
        assert alpha[:, :14].max() < 60 and alpha[:, 18:].min() > 195, name
        assert read("front.png")[:, 18:].min() > 200


def test_a_solver_that_fails_or_talks(folder, capsys, monkeypatch):
    """One line of ours, on stdout what was written, and nothing of PyMatting's."""

    def solve(image, trimap):
        print("PERFORMANCE WARNING")
        warnings.warn("invalid value", RuntimeWarning, stacklevel=1)
        if trimap.shape != (5, WIDTH):  # as many rows as knn takes at least
            raise AssertionError
        return np.full(trimap.shape, 0.5)

    monkeypatch.setattr(Half, "estimate_alpha_knn", staticmethod(solve))
    refused(capsys, "PyMatting cannot solve this photograph: AssertionError", "--method", "knn")
    Image.fromarray(PHOTO[:2]).save("photo.png")
    Image.fromarray(TRIMAP[:2]).save("trimap.png")
    assert run("--method", "knn") == 0
    assert capsys.readouterr() == ("out.png: 28 x 2, knn\n", "")
    np.testing.assert_array_equal(read("out.png"), HALVED[:2])


def test_outputs_that_cannot_be_written(folder, capsys, monkeypatch):
    """Found out before the work, and named as the user did."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(capsys, ".: no permission to write there")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "pymatting", Half)
    long = "x" * 250 + ".png"  # may be the name of a file, but not of one beside it that is longer
    refused(capsys, f"error: {long}: cannot be written: File name too long", out=long)


@pytest.mark.thorough
def test_small_photographs(tmp_path, monkeypatch, capsys):
    """Of less than the windows of PyMatting's methods."""
    pytest.importorskip("pymatting", reason="PyMatting is not installed")
    monkeypatch.chdir(tmp_path)
    for shape in ((1, 3), (3, 1), (2, 2), (1, 30)):
        values = np.full(shape, 128, np.uint8)
        values.flat[0], values.flat[-1] = 0, 255
        Image.fromarray(values).save("trimap.png")
        Image.fromarray(RANDOM.integers(0, 256, (*shape, 3)).astype(np.uint8)).save("photo.png")
        for name in SOLVERS:
            assert run("--force", "--method", name) == 0, (shape, name)
            assert capsys.readouterr() == (f"out.png: {shape[1]} x {shape[0]}, {name}\n", "")


def test_tall_and_single_pixels(folder):
    for shape in ((1, 3), (40, 1)):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save("photo.png")
        values = np.full(shape, 128, np.uint8)
        values.flat[0], values.flat[-1] = 0, 255
        Image.fromarray(values).save("trimap.png")
        assert run("--force") == 0
        assert read("out.png").shape == shape
