"""The command `jaxup`, mostly in this process, on small files."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.cli import METHODS, main
from jaxup.cli.methods import CLASSICAL, LEARNED
from jaxup.files import read_depth
from tests.cli.depth_maps import DEPTH, GUIDE, refused, run, stored

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")


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


@pytest.mark.parametrize(
    "invalid, depths, ends", [("0", (1, 255), (1, 255)), ("255", (0, 254), (0, 254)), ("nan", (0, 255), (0, 255))]
)
def test_a_little_overshoot_becomes_the_nearest_depth(folder, capsys, invalid, depths, ends):
    low, high = depths
    values = np.full((6, 8), (low + high) // 2, np.uint8)
    values[0, 0], values[5, 7] = low, high  # peaks at corners, which the spline makes higher
    source, options = stored(values, "a.png"), ["--method", "bicubic", "--invalid", invalid]
    assert run(*options, depth=source, out="out.png") == 0
    warning = capsys.readouterr().err
    assert re.search(rf"overshoots, -[\d.]+ to 2\d\d.*become the nearest of {ends[0]} to {ends[1]}\n", warning)
    assert run(*options, depth=source, out="out.npy") == 0
    assert "overshoots" not in capsys.readouterr().err
    result = read_depth(Path("out.png")).astype(float)
    exact = np.load("out.npy")
    assert result.min() == ends[0] and result.max() == ends[1]
    np.testing.assert_array_equal(result, np.rint(np.clip(exact, *ends)))
    assert exact.min() < ends[0] - 0.5 and ends[1] + 0.5 < exact.max()


def test_no_depth_is_rounded_to_the_number_for_pixels_without_depth(folder, capsys):
    values = np.array([[6, 1, 1, 6], [6, 6, 1, 1], [6, 6, 6, 6]], np.uint8)
    Image.fromarray(GUIDE[:12, :16]).save("small.png")
    assert run("--method", "bicubic", depth=stored(values, "a.png"), guide="small.png", out="out.png") == 0
    assert "become the nearest of 1 to 255" in capsys.readouterr().err
    assert read_depth(Path("out.png")).min() == 1


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


@pytest.mark.parametrize("given", ["depth", "guide", "weights"])
@pytest.mark.parametrize("name", ["a.png", "./a.png", "hard.png", "link.png", "chain.png"])
def test_an_input_is_never_the_output(folder, capsys, given, name):
    """By whatever name; and what was there stays, with --force, too."""
    Path("rgb.png" if given == "guide" else "depth.png").rename("a.png")
    os.link("a.png", "hard.png")
    Path("link.png").symlink_to("a.png")
    Path("chain.png").symlink_to("link.png")
    before = Path("a.png").read_bytes()
    weights, inputs = ("--weights", "a.png"), {given: "a.png"}
    more, inputs = (weights, {"depth": "rgb.png"}) if given == "weights" else ((), inputs)
    refused(capsys, f"{Path(name)}: is also an input, a.png", "--force", *more, out=name, **inputs)
    assert Path("a.png").read_bytes() == before and Path("link.png").is_symlink()


@pytest.mark.parametrize("target", ["missing.png", "other.png"])
def test_links_as_outputs(folder, capsys, target):
    """They exist, also those to nothing; --force replaces them, and not what they point to."""
    Path("other.png").write_text("precious")
    Path("link.png").symlink_to(target)
    refused(capsys, "link.png: exists already; --force overwrites it", out="link.png")
    assert run("--force", out="link.png") == 0 and not Path("link.png").is_symlink()
    assert Path("other.png").read_text() == "precious" and not Path("missing.png").exists()
    capsys.readouterr()
    os.mkfifo("fifo.png")
    refused(capsys, "fifo.png: is no regular file", "--force", out="fifo.png")


@pytest.mark.parametrize("error, status", [(OSError(28, "No space left", "out.npy"), 2), (KeyboardInterrupt(), 130)])
def test_failures_leave_nothing(folder, capsys, monkeypatch, error, status):
    def fail(file, values):
        file.write(b"half of it")
        raise error

    before = sorted(folder.iterdir())
    monkeypatch.setattr("jaxup.files.np.save", fail)
    assert run(out="out.npy") == status
    assert sorted(folder.iterdir()) == before
    line = "interrupted\n" if status == 130 else "error: out.npy: cannot be written: No space left\n"
    assert capsys.readouterr().err == line


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
    search = {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | search, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert METHODS.keys() == CLASSICAL.keys() | LEARNED.keys()
    assert all(f"\n  {name} " in done.stdout for name in METHODS)


def test_a_cache_has_to_be_a_folder(folder, capsys):
    refused(capsys, "rgb.png: expected a folder to write to, for --cache", "--cache", "rgb.png")


@pytest.mark.thorough
@pytest.mark.parametrize(("method", "program"), [("bicubic", "jit_bicubic"), ("mrf", "jit__solve")])
def test_compiled_programs_are_kept_and_read(folder, method, program):
    """The second call writes none. Solvers that told their progress could not be kept."""
    search = {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_COMPILATION_CACHE_DIR": ""}
    options = ["depth.png", "--guide", "rgb.png", "-o", "out.png", "--method", method, "--cache", "kept", "--force"]
    command = [sys.executable, "-m", "jaxup.cli", "upsample", *options]
    programs = []
    for _ in range(2):
        subprocess.run(command, env=os.environ | search, capture_output=True, check=True)
        programs.append(sorted(path.name for path in Path("kept").rglob("*-cache")))
    assert any(name.startswith(program) for name in programs[0]) and programs[0] == programs[1]
