"""Numbers that cannot be depth."""

from pathlib import Path

import numpy as np
import pytest

from jaxup.cli.depth import far_values, upsample_depth
from jaxup.cli.methods import CLASSICAL, Method, make_method
from jaxup.files import read_depth
from tests.cli.depth_maps import DEPTH, run, sampled, step, stored
from tests.registry.examples import slow

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")

IDENTITY = Method(lambda target, guide: target, None)


@pytest.mark.parametrize("name", [slow(n) if n == "fitted" else n for n in CLASSICAL])
@pytest.mark.first(2, 6)
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
