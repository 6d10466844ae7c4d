"""What the methods of the command make of a depth map, whole or in tiles, in any ratio."""

from pathlib import Path

import numpy as np
import pytest

from jaxup import interop
from jaxup.cli.depth import upsample_depth, windows
from jaxup.cli.methods import CLASSICAL, LEARNED, Method, make_method
from jaxup.files import InputError, read_depth
from tests.cli.depth_maps import GUIDE, RANDOM, run, sampled, small_network, step, stored
from tests.goldens import shared
from tests.registry.examples import marked, slow, thorough

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")

# Solvers take seconds to compile: two stand for all by default.
each_classical = pytest.mark.parametrize(
    "method", marked(CLASSICAL, [n for n in CLASSICAL if n not in ("tgv", "sdf", "park", "fitted")], ["fitted"])
)


@pytest.mark.parametrize("method", [slow(n) if n == "fitted" else n for n in CLASSICAL])
@pytest.mark.first(2)
def test_constant_depth_is_kept(folder, method):
    """Also far from zero, where float32 alone would lose it."""
    depth = np.full((12, 16), 123_456_789.0)  # of the size of others, for one compilation
    Image.fromarray(np.tile(GUIDE, (2, 2, 1))).save("large.png")
    assert run("--method", method, depth=stored(depth), guide="large.png", out="out.npy") == 0
    np.testing.assert_allclose(np.load("out.npy"), 123_456_789, rtol=1e-12)


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
@pytest.mark.first(2, 4)
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


@each_classical
@pytest.mark.parametrize(
    "low, high, shown",
    [
        ((12, 16), (90, 120), "7.5"),
        thorough((12, 16), (30, 60), "3.75 x 2.5"),
        thorough((14, 7), (21, 240), "34.2857 x 1.5"),
    ],
    ids=["7.5", "2.5 x 3.75", "1.5 x 240/7"],
)
@pytest.mark.first(2, 6)
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
    said = [line for line in err.splitlines() if not line.startswith("step ")]
    lines = [line for line in said if "not converged" not in line]
    assert len(said) == len(lines) or method == "tgv"  # which needs more than its 1000 steps here
    assert len(lines) == (" " in shown) == ("do they show the same view?" in err)
    result, hole = read_depth(Path("out.png")), np.zeros(low, bool)
    hole[3, 1] = True
    rows, columns = (((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(low, high, strict=True))
    np.testing.assert_array_equal(result == 0, hole[np.ix_(rows, columns)])
    error = np.where(result == 0, 0, np.abs(result.astype(float) - true))
    edge, cell = int(high[1] * 0.4), -(-high[1] // low[1])
    assert error[:, : max(0, edge - 4 * cell)].max(initial=0) < 20 and error[:, edge + 4 * cell :].max(initial=0) < 40


@pytest.mark.thorough
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
    assert [name for name, method in CLASSICAL.items() if method.margin is None] == [
        name for name, method in CLASSICAL.items() if method.solver or name == "fitted"
    ]


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
