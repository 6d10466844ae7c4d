"""The command `jaxup`, mostly in this process, on small files."""

import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, ops
from jaxup.cli import METHODS, main
from jaxup.cli.depth import far_values, upsample_depth, windows
from jaxup.cli.methods import CLASSICAL, LEARNED, Method, make_method
from jaxup.files import InputError, read_depth, write_depth
from jaxup.interop.backbones import Shapes
from tests.goldens import shared
from tests.registry.examples import thorough

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")

RANDOM = np.random.default_rng(0)
GUIDE = RANDOM.integers(0, 256, (24, 32, 3)).astype(np.uint8)
DEPTH = RANDOM.integers(500, 4000, (6, 8)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with depth.png of 8 x 6 pixels and rgb.png of 32 x 24."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(GUIDE).save("rgb.png")
    Image.fromarray(DEPTH).save("depth.png")
    return tmp_path


IDENTITY = Method(lambda target, guide: target, None)


def run(*arguments, depth="depth.png", guide="rgb.png", out="out.png"):
    return main(["upsample", depth, "--guide", guide, "-o", out, *arguments])


def stored(depth, name="depth.npy"):
    write_depth(Path(name), depth)
    return name


@pytest.mark.parametrize(
    "dtype, source, out, expected",
    [
        (np.uint16, "a.png", "out.png", np.uint16),
        (np.uint8, "a.png", "out.PNG", np.uint8),
        (np.uint16, "a.png", "out.npy", np.float32),
        (np.uint8, "a.tiff", "out.png", np.uint8),
        (np.float32, "a.tif", "out.tiff", np.float32),
        (np.uint16, "a.tif", "out.tiff", np.uint16),
        (np.uint16, "a.npy", "out.npy", np.uint16),
        (np.float64, "a.npy", "out.npy", np.float64),
        (np.float16, "a.npy", "out.npy", np.float16),
        (np.float32, "a.npy", "out.png", np.uint16),
        (np.float32, "a.exr", "out.exr", np.float32),
        (np.uint16, "a.png", "out.exr", np.float32),
    ],
)
def test_formats(folder, dtype, source, out, expected):
    """Values, in the type of the source where the format allows it."""
    if "exr" in source + out:
        pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
    depth = (DEPTH / 16).astype(dtype) if dtype in (np.uint8, np.float16) else DEPTH.astype(dtype)
    assert run("--method", "bicubic", depth=stored(depth, source), out=out) == 0
    result = read_depth(Path(out))
    assert (result.shape, result.dtype) == ((24, 32), expected)
    values = jnp.asarray(depth, jnp.float32)[None, ..., None]
    truth = ops.resize(values, scale=4, method="bicubic", cubic_coefficient=-0.5)[0, ..., 0]
    np.testing.assert_allclose(result.astype(np.float64), truth, atol=0.51 if expected != np.float32 else 1e-2)
    assert sorted(p.name for p in folder.iterdir()) == sorted({"depth.png", "rgb.png", source, out})


@pytest.mark.parametrize("method", CLASSICAL)
def test_constant_depth_is_kept(folder, method):
    """Also far from zero, where float32 alone would lose it."""
    depth = np.full((6, 8), 123_456_789.0)
    assert run("--method", method, depth=stored(depth), out="out.npy") == 0
    np.testing.assert_allclose(np.load("out.npy"), 123_456_789, rtol=1e-12)


@pytest.mark.parametrize("invalid", [(), ("--invalid", "4095"), ("--invalid", "nan")], ids=str)
def test_holes(folder, invalid, capsys):
    """They do not touch what is around them, and come back as they are."""
    depth, guide = np.full((6, 8), 700.0, np.float32), np.zeros((24, 32, 3), np.uint8)
    depth[1, 2], depth[4:, :3], depth[0, 0] = float((*invalid, 0)[1]) if invalid else 0, np.nan, np.inf
    Image.fromarray(guide).save("grey.png")
    assert run(*invalid, depth=stored(depth), guide="grey.png", out="out.npy") == 0
    np.testing.assert_array_equal(np.load("out.npy"), depth.repeat(4, 0).repeat(4, 1))
    assert capsys.readouterr().out == "out.npy: 32 x 24, float32, jbu 4x\n"
    if invalid != ("--invalid", "nan"):  # integers have no NaN: the holes get the value that was named
        assert run(*invalid, depth="depth.npy", guide="grey.png", out="out.png") == 0
        hole = float(invalid[1]) if invalid else 0
        assert set(np.unique(read_depth(Path("out.png")))) == {hole, 700}


def small_network(name):
    options = {
        "attention": {"features": 8, "mixing_layers": 1, "widths": [4, 4]},
        "djf": {"widths": [4, 4], "joint_widths": [4, 4]},
        "dkn": {"widths": [4, 4]},
        "fdkn": {"widths": [4, 4]},
    }[name]
    module = LEARNED[name](**options, rngs=nnx.Rngs(0))
    return module, options


@pytest.mark.parametrize(
    "name, scale, length",
    [
        ("bicubic", 2, 60),
        ("guided-filter", 2, 61),
        ("jbu", 3, 60),
        ("attention", 4, 44),
        ("djf", 2, 60),
        ("fdkn", 2, 64),
        pytest.param("dkn", 8, 28, marks=pytest.mark.slow),
    ],
)
def test_tiles_give_what_the_whole_image_gives(tmp_path, name, scale, length):
    weights = None
    if name in LEARNED:
        pytest.importorskip("safetensors", reason="safetensors is not installed")
        weights = tmp_path / "weights.safetensors"
        interop.save_module(weights, *small_network(name))
    method = make_method(name, weights)
    random = np.random.default_rng(0)
    guide = random.integers(0, 256, (scale * length, scale * 2, 3)).astype(np.uint8)
    depth, shown = random.random((length, 2)), []
    tiled = upsample_depth(depth, guide, method, tile=8, show=lambda *tile: shown.append(tile))
    assert len(shown) > 5 and shown[-1] == (len(shown), len(shown))
    np.testing.assert_allclose(tiled, upsample_depth(depth, guide, method, tile=0), atol=2e-5)


def sampled(true, height, width):
    """The pixel at the centre of each cell."""
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((height, width), true.shape, strict=True))
    return true[np.ix_(rows, columns)]


def step(height, width, *, near=1000, far=3000, at=0.4):
    """Depth with one edge, and the grey guide of it."""
    right = np.arange(width)[None].repeat(height, 0) >= width * at
    return np.where(right, far, near), np.where(right, 200, 60).astype(np.uint8)[..., None].repeat(3, 2)


@pytest.mark.parametrize("method", CLASSICAL)
@pytest.mark.parametrize(
    "low, high, shown",
    [
        ((12, 16), (90, 120), "7.5"),
        thorough((12, 16), (30, 60), "3.75 x 2.5"),
        thorough((14, 7), (21, 240), "34.2857 x 1.5"),
    ],
    ids=["7.5", "2.5 x 3.75", "1.5 x 240/7"],
)
def test_any_ratio(folder, capsys, method, low, high, shown):
    """Flat parts stay flat, the edge is where the guide has it to within four cells, and holes are their own pixels."""
    true, guide = step(*high)
    depth = sampled(true, *low).astype(np.uint16)
    depth[3, 1] = 0
    Image.fromarray(guide).save("rgb.png")
    stored(depth, "depth.png")
    assert run("--method", method, *(() if " " in shown else ("--scale", shown))) == 0
    out, err = capsys.readouterr()
    assert out == f"out.png: {high[1]} x {high[0]}, uint16, {method} {shown}x\n"
    assert err.count("\n") == (" " in shown) == ("do they show the same view?" in err)
    result, hole = read_depth(Path("out.png")), np.zeros(low, bool)
    hole[3, 1] = True
    rows, columns = (((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(low, high, strict=True))
    np.testing.assert_array_equal(result == 0, hole[np.ix_(rows, columns)])
    error = np.where(result == 0, 0, np.abs(result.astype(float) - true))
    edge, cell = int(high[1] * 0.4), -(-high[1] // low[1])
    assert error[:, : max(0, edge - 4 * cell)].max(initial=0) < 20 and error[:, edge + 4 * cell :].max(initial=0) < 40


@pytest.mark.parametrize(
    "low, high", [((60, 2), (150, 5)), thorough((63, 4), (72, 15)), thorough((61, 2), (64, 4))], ids=str
)
def test_tiles_of_any_ratio(low, high):
    """Windows begin where both grids do: every 2, 7 or 61 pixels; what cannot be cut is whole."""
    guide = RANDOM.integers(0, 256, (*high, 3)).astype(np.uint8)
    depth, shown = RANDOM.random(low), []
    for name in ("jbu", "bicubic", "guided-filter"):
        method = make_method(name, None)
        tiled = upsample_depth(depth, guide, method, tile=8, show=lambda *tile: shown.append(tile))
        np.testing.assert_allclose(tiled, upsample_depth(depth, guide, method, tile=0), atol=2e-5)
    assert (len(shown) > 3) == (low[0] != 61)


@pytest.mark.parametrize("name", CLASSICAL)
def test_far_values_spoil_nothing(name):
    """Codes of pixels without depth come back as they are; elsewhere the result is as if they were NaN."""
    true, guide = step(48, 64, near=1.0, far=3.0)
    clean, method = sampled(true, 12, 16), make_method(name, None)
    for codes in ([1e10], [65504], [65535], [np.finfo(np.float32).max], [-1e10], [65504, 1e10, -1e10], [-65504]):
        depth, holes, lines = clean.copy(), clean.copy(), []
        for n, code in enumerate(codes):
            depth[2 * n, 1], holes[2 * n, 1] = code, np.nan
        depth[9:, 13:], holes[9:, 13:] = codes[0], np.nan
        result = upsample_depth(depth, guide, method, tile=16, warn=lines.append)
        expected = upsample_depth(holes, guide, method, tile=16)
        np.testing.assert_array_equal(result, np.where(np.isnan(expected), depth.repeat(4, 0).repeat(4, 1), expected))
        assert len(lines) == 1 and "--invalid" in lines[0] and f"{9 + len(codes)} pixels" in lines[0]


def test_far_values_of_integers(folder, capsys):
    """65535 in millimetres is only some twenty times what is near."""
    true, guide = step(24, 32)
    depth = sampled(true, 6, 8).astype(np.uint16)
    depth[0, :2] = 65535
    Image.fromarray(guide).save("rgb.png")
    assert run(depth=stored(depth, "far.png")) == 0
    result = read_depth(Path("out.png"))
    assert (result[:4, :8] == 65535).all() and (result[4:, :8] == 1000).all()
    assert capsys.readouterr().err == (
        "warning: 2 pixels of 65535 are far from the others, 1000 to 3000: taken as pixels without depth, "
        "as --invalid would\n"
    )


def test_metres_in_whole_numbers_are_pointed_out(folder, capsys):
    depth = DEPTH.astype(np.float32)
    assert run("--method", "bicubic", "--invalid", "-1e10", depth=stored(depth)) == 0
    assert capsys.readouterr().err == ""
    depth[1, 2] = -1e13
    assert run("--force", "--method", "bicubic", "--invalid", "-1e10", depth=stored(depth / 1000), out="a.tiff") == 0
    assert capsys.readouterr().err == ""
    depth[1, 2] = np.nan
    assert run("--force", "--method", "bicubic", depth=stored(depth / 1000)) == 0
    assert capsys.readouterr().err == (
        "warning: out.png: depth is rounded to whole numbers; .tiff and .npy keep fractions\n"
    )


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_limits_of_64_bits_are_kept(folder, dtype):
    """Which are no floating-point numbers."""
    depth = DEPTH.astype(dtype)
    depth[1, 2] = np.iinfo(dtype).max
    assert run("--method", "bicubic", depth=stored(depth), out="out.npy") == 0
    result = read_depth(Path("out.npy"))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result == depth[1, 2], (depth == depth[1, 2]).repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.geomspace(0.1, 1000, 50), 0),  # four decades of depth
        ([0.1, 0.1, 1000, 1000], 0),
        ([0.1, 1000, 1000, 1000], 0),
        ([500, 800, 65535], 1),
        ([500, 40_000, 65535], 0),  # a map that is stretched over its type
        ([1, 65535, 1, 65535], 0),  # a mask
        ([700, 700, 65535], 1),
        ([100, 100, 2000, -32768, 65535], 2),
        ([1, 1, 65535e3], 1),
        ([1, 2, *[1e10] * 7], 7),  # a small thing before the sky
        ([1, 2, 3, 1e10, 1.1e10, 9e9], 3),
        ([1e-9, 1, 2, 3, 4], 0),  # nearly nothing is no reason to drop all others
        ([0, 0, 0, 1e-9, 5, 6, 7], 0),
        ([0, 0, 0], 0),
        ([-2, -3, -1, 1e308, -1e308], 2),
    ],
)
def test_which_values_are_far(values, expected):
    values = np.array([values], float)
    far = far_values(values, np.ones_like(values, bool))
    np.testing.assert_array_equal(np.sort(np.abs(values[far])), np.sort(np.abs(values))[0, values.size - expected :])
    assert not far_values(values, np.zeros_like(values, bool)).any()


@pytest.mark.parametrize(
    "values, named",
    [
        ([1, 2, 3, 9999], "9999"),
        ([1, 2, -9999, -9999], "-9999"),
        ([1000, 3000, 1e6], "1e+06"),
        ([1, 2, 3, 30], None),
        ([1, 9999, 9999], None),  # two distances
        ([1, 2, 9999, 9998], None),
        ([0, 0, 5], None),
        ([0, 0, 0], None),
    ],
)
def test_a_number_alone_is_pointed_out(values, named):
    """It may be depth, so that only a warning speaks of it."""
    lines, depth = [], np.array([values], float)
    result = upsample_depth(depth, np.zeros((1, len(values), 3), np.uint8), IDENTITY, invalid=np.nan, warn=lines.append)
    np.testing.assert_allclose(result, depth, rtol=1e-6, atol=1e-3)
    assert [line.split()[-1] for line in lines] == ([named] if named else [])


@pytest.mark.parametrize("name", ["bicubic", "jbu", "guided-filter"])
def test_wide_ranges_are_precise(name):
    """A map of 0.1 m and of 1000 m has no far values, and what is near keeps its digits."""
    true, guide = step(48, 64, near=0.1, far=1000.0)
    result = upsample_depth(sampled(true, 12, 16), guide, make_method(name, None), warn=pytest.fail)
    error = np.abs(result - true)[:, np.r_[0:8, 44:64]]
    assert (error < (1e-3 if name == "guided-filter" else 1e-5 * true[:, np.r_[0:8, 44:64]])).all()


def test_methods_of_global_support_see_the_whole_image():
    """As every method does without tiles, whatever the size."""
    shapes = []

    def run(target, guide):
        shapes.append(target.shape)
        return guide[..., :1]

    depth, guide = RANDOM.random((66, 1)), np.zeros((66, 1, 3), np.uint8)
    upsample_depth(depth, guide, Method(run, None), tile=8)
    upsample_depth(depth, guide, Method(run, lambda scale: 2), tile=0)
    assert shapes == [(1, 66, 1, 1)] * 2
    assert [name for name, method in CLASSICAL.items() if method.margin is None] == ["fgi", "fbs"]


def test_results_that_are_not_finite_are_refused():
    method = Method(lambda target, guide: guide[..., :1] / 0, None)
    with pytest.raises(InputError, match="the method gave NaN or infinity"):
        upsample_depth(np.ones((2, 2)), np.zeros((2, 2, 3), np.uint8), method)


def test_windows_cover_everything_once():
    for length in range(1, 90):
        found = list(windows(length, 9, 5))
        assert [i for w in found for i in range(w.first, w.last)] == list(range(length))
        for w in found:
            assert 0 <= w.start <= max(0, w.first - 5) and min(length, w.last + 5) <= w.stop <= length
            assert w.start % 4 == 0


@pytest.mark.parametrize("name", ["fdkn", pytest.param("dkn", marks=pytest.mark.slow)])
def test_official_weights(folder, name):
    """As they were used: with RGB in 0 .. 1 and depth normalised and enlarged with a = -0.5."""
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    module = LEARNED[name](grid="compressed", **({"luminance": True} if name == "fdkn" else {}), rngs=nnx.Rngs(0))
    config = {"kernel_size": 3, "filter_size": 15, "residual": True}
    save_file(interop.to_torch(name.upper(), module, config), "weights.safetensors")
    assert run("--method", name, "--weights", "weights.safetensors", out="out.npy") == 0
    module.eval()
    low, span = DEPTH.min(), float(np.ptp(DEPTH))
    target = jnp.asarray((DEPTH - low) / span, jnp.float32)[None, ..., None]
    enlarged = ops.resize(target, scale=4, method="bicubic", cubic_coefficient=-0.5)
    truth = nnx.jit(lambda m, *xs: m(*xs))(module, enlarged, jnp.asarray(GUIDE / 255, jnp.float32)[None])
    np.testing.assert_allclose(np.load("out.npy"), np.asarray(truth)[0, ..., 0] * span + low, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["net.", "_orig_mod.model."])
def test_official_weights_under_another_name(tmp_path, prefix):
    """The options that are read off the arrays are found there, too."""
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    config = {"kernel_size": 5, "filter_size": 15, "residual": True}
    shapes = nnx.eval_shape(lambda: LEARNED["fdkn"](kernel_size=5, luminance=True, grid="compressed", rngs=Shapes()))
    module = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    state = interop.to_torch("FDKN", module, config)
    save_file({f"{prefix}{name}": x for name, x in state.items()}, tmp_path / "weights.safetensors")
    make_method("fdkn", tmp_path / "weights.safetensors")


def test_official_djf(folder):
    """Where the network passes the enlarged depth on, that lies (s - 1) / 2 to the left and above, as in training."""
    from tests.interop.test_djf import filters_and_biases, layers, write_version_5

    arrays = {name: np.zeros_like(x) for name, x in filters_and_biases().items()}
    write_version_5("net.mat", list(layers(arrays)))
    assert run("--method", "djfr", "--weights", "net.mat", out="out.npy") == 0
    result = np.load("out.npy")
    assert result.shape == (24, 32)
    np.testing.assert_allclose(result[::4, ::4], DEPTH, rtol=1e-5)


def test_bad_weights(folder, capsys):
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    interop.save_module("attention.safetensors", *small_network("attention"))
    interop.save_module("djf.safetensors", *small_network("djf"))
    save_file({"x": np.ones(2, np.float32)}, "other.safetensors")
    Path("other.mat").write_bytes(b"something else")
    for method, weights, message in [
        ("dkn", "attention.safetensors", ": weights of AttentionJointNetwork, not of dkn"),
        ("djfr", "djf.safetensors", ": weights of DJF, not of djfr"),
        ("fdkn", "other.safetensors", ": not the weights of fdkn: ImageKernel.conv_weight.weight: missing, and"),
        ("attention", "other.safetensors", ": expected a file of jaxup.interop.save_module"),
        ("djf", "other.mat", ": expected a .mat file"),
        ("djf", "none.mat", ": No such file"),
        ("fdkn", "none.safetensors", ": No such file"),
    ]:
        refused(capsys, f"error: {weights}{message}", "--method", method, "--weights", weights)
    Image.fromarray(GUIDE[:18, :24]).save("three.png")
    refused(capsys, "attention: expected a scale of 2, 4, 8, ...", "--method", "attention", guide="three.png")
    Image.fromarray(GUIDE[:15, :20]).save("half.png")
    for method in LEARNED:
        refused(capsys, "the sizes make it 2.5; bicubic, guided-filter, jbu, fgi", "--method", method, guide="half.png")


def refused(capsys, message, *arguments, **files):
    """Exit status 2, one line, no new file."""
    before = sorted(Path().iterdir())
    assert run(*arguments, **files) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--method", "fdkm", "--weights", "x"), "unknown method 'fdkm', did you mean fdkn?"),
        (("--method", "Guided_Filter"), "did you mean guided-filter?"),
        (("--method", "zzz"), "choose from jbu, bicubic"),
        (("--method", "fdkn"), "fdkn needs --weights FILE"),
        (("--weights", "x"), "x: jbu takes no weights"),
        (("--scale", "8"), "--scale 8: the image is 4 times as large"),
        (("--scale", "nan"), "--scale nan: the image is 4 times as large"),
        (("--scale", "x"), "invalid float value: 'x'"),
        (("--tile", "-1"), "expected a number of pixels, or 0, got '-1'"),
        (("--quick",), "unrecognized arguments: --quick"),
    ],
)
def test_bad_options(folder, capsys, arguments, message):
    refused(capsys, message, *arguments)


def test_bad_files(folder, capsys):
    Path("text.png").write_text("no image")
    Path("text.npy").write_text("no array")
    stored(np.ones((7, 8)), "tall.npy")
    stored(np.ones((24, 32), np.float32), "float.tiff")
    stored(np.zeros((6, 8), np.uint8), "empty.png")
    stored(np.full((6, 8), np.nan), "nan.npy")
    np.save("flags.npy", DEPTH > 7)
    np.save("three.npy", np.ones((6, 8, 3)))
    cases = {
        "none.png: no such file": dict(depth="none.png"),
        "none.jpg: no such file": dict(guide="none.jpg"),
        "text.png: cannot be read: cannot identify image file": dict(depth="text.png"),
        "text.npy: cannot be read": dict(depth="text.npy"),
        "rgb.png: expected an image of one channel, got RGB": dict(depth="rgb.png"),
        "float.tiff: expected an image of at most 16 bits a channel, got float32": dict(guide="float.tiff"),
        "the guide of 8 x 6 pixels is smaller than the depth map of 8 x 7": dict(depth="tall.npy", guide="depth.png"),
        "the depth map has no valid pixel": dict(depth="empty.png"),
        "flags.npy: expected numbers [H, W], got bool": dict(depth="flags.npy"),
        "three.npy: expected numbers [H, W], got float64 (6, 8, 3)": dict(depth="three.npy"),
        "depth.txt: expected a name that ends in .png": dict(depth="depth.txt"),
        "out.jpg: expected a name that ends in .png, .tif, .tiff, .npy, .exr": dict(out="out.jpg"),
        "absent: no such folder": dict(out="absent/out.png"),
    }
    for message, files in cases.items():
        refused(capsys, message, **files)
    refused(capsys, "the depth map has no valid pixel", depth="nan.npy")


@pytest.mark.parametrize(
    "values, message",
    [
        (
            np.array([[1, 255], [255, 255]], np.uint8),
            "values from -37.5696 to 274.966 cannot be stored as uint8: choose a name that ends in .npy or",
        ),
        (np.array([[1, 65535], [1, 65535]], np.uint16), "cannot be stored as uint16: choose a name that ends in .npy"),
        (np.array([[-5, 9], [7, 9]], np.float32), "cannot be stored as uint16"),
        (np.array([[np.nan, 9], [7, 9]], np.float32), "NaN or infinity cannot be stored as uint16"),
    ],
)
def test_what_does_not_fit_is_an_error_and_not_cut_off(folder, capsys, values, message):
    source = stored(values, "a.png" if values.dtype.kind == "u" else "a.npy")
    Image.fromarray(GUIDE[:8, :8]).save("small.png")
    refused(capsys, message, "--method", "bicubic", "--invalid", "nan", depth=source, guide="small.png")
    assert run("--method", "bicubic", "--invalid", "nan", depth=source, guide="small.png", out="out.tiff") == 0


def test_no_command(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: command\n"


def test_existing_files_are_kept(folder, capsys):
    Path("out.png").write_text("precious")
    refused(capsys, "out.png: exists already; --force overwrites it")
    assert Path("out.png").read_text() == "precious"
    assert run("--force") == 0 and capsys.readouterr().err == ""
    assert read_depth(Path("out.png")).shape == (24, 32)
    Path("folder.png").mkdir()
    refused(capsys, "folder.png: is a folder", "--force", out="folder.png")


@pytest.mark.parametrize("error, status", [(OSError(28, "No space left", "out.npy"), 2), (KeyboardInterrupt(), 130)])
def test_failures_leave_nothing(folder, capsys, monkeypatch, error, status):
    def fail(file, values):
        file.write(b"half of it")
        raise error

    before = sorted(folder.iterdir())
    monkeypatch.setattr("jaxup.files.np.save", fail)
    assert run(out="out.npy") == status
    assert sorted(folder.iterdir()) == before
    assert capsys.readouterr().err == ("interrupted\n" if status == 130 else "error: out.npy: No space left\n")


def test_missing_packages(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    refused(capsys, "this needs OpenEXR: pip install OpenEXR", out="out.exr")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    refused(capsys, 'this needs Pillow: pip install "jaxup[experiments]"')


def test_pixel_cap(folder, capsys, monkeypatch):
    monkeypatch.setattr("jaxup.files.MAX_PIXELS", 400)
    refused(capsys, "rgb.png: 32 x 24 is more than 400 pixels")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(folder, monkeypatch, terminal):
    """A bar on a terminal, plain lines elsewhere."""
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    tall = np.ones((40, 1), np.uint8)
    Image.fromarray(tall.repeat(3, 1).repeat(2, 0)).save("tall.png")
    guide = np.zeros((80, 2, 3), np.uint8)
    Image.fromarray(guide).save("tall_rgb.png")
    assert run("--tile", "32", depth=stored(tall, "tall.png"), guide="tall_rgb.png") == 0
    assert ("tile 2/3" in stderr.getvalue()) != terminal
    if terminal:
        pytest.importorskip("rich", reason="rich is not installed")
        assert "upsampling" in stderr.getvalue()


def test_help_is_quick(folder):
    """It does not wait for JAX; and all methods are in it."""
    program = "import sys, jaxup.cli\ntry: jaxup.cli.main(['upsample', '--help'])\nfinally: print('jax' in sys.modules)"
    search = {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | search, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert METHODS.keys() == CLASSICAL.keys() | LEARNED.keys()
    assert all(f"\n  {name} " in done.stdout for name in METHODS)


def test_real_depth_map(folder):
    """A window of a sensor's depth map, with its holes."""
    source = shared("data") / "rgbd" / "raw_sensor"
    depth = read_depth(source / "tum_depth.png")[200:296, 300:428]
    stored(depth[4::8, 4::8], "low.png")
    with Image.open(source / "tum_rgb.webp") as image:
        image.crop((300, 200, 428, 296)).save("window.webp", lossless=True)
    assert run("--scale", "8", depth="low.png", guide="window.webp") == 0
    result = read_depth(Path("out.png"))
    assert (result.dtype, result.shape) == (np.uint16, (96, 128))
    np.testing.assert_array_equal(result == 0, (depth[4::8, 4::8] == 0).repeat(8, 0).repeat(8, 1))
    both = (result > 0) & (depth > 0)
    assert both.mean() > 0.3
    assert np.median(np.abs(result[both] / depth[both] - 1)) < 0.01
