"""Confidence, sparse samples, progress and convergence of the solvers, from the command."""

from pathlib import Path

import numpy as np
import pytest

from jaxup.cli.depth import read_confidence, upsample_depth
from jaxup.cli.methods import CLASSICAL, make_method
from jaxup.files import InputError, read_depth
from tests.cli.depth_maps import refused, run, sampled, step, stored
from tests.registry.examples import marked

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")

SOLVERS = [name for name, method in CLASSICAL.items() if method.solver]


@pytest.mark.thorough
@pytest.mark.parametrize("name", marked(SOLVERS, ["fgi", "mrf"], ["park", "fbs"]))
@pytest.mark.first(1)
def test_sparse_samples_are_completed(folder, name):
    """As many pixels as the image has, most of them without depth, of which --fill leaves none."""
    true, guide = step(24, 32)
    samples = np.where(np.add.outer(np.arange(24) % 4, np.arange(32) % 4) == 3, true, 0).astype(np.uint16)
    Image.fromarray(guide).save("rgb.png")
    assert run("--method", name, "--fill", depth=stored(samples, "sparse.png")) == 0
    result = read_depth(Path("out.png")).astype(float)
    assert (result > 0).all()
    assert np.median(np.abs(result - true)) < 30
    assert run("--method", name, depth="sparse.png", out="holes.png") == 0
    np.testing.assert_array_equal(read_depth(Path("holes.png")) == 0, samples == 0)


@pytest.mark.thorough
@pytest.mark.parametrize("name", marked(SOLVERS, ["fgi", "mrf"], ["sdf", "tgv"]))
@pytest.mark.first(1)
def test_what_has_no_confidence_does_not_count(folder, name):
    true, guide = step(24, 32)
    depth = sampled(true, 6, 8).astype(np.uint16)
    wrong, levels = depth.copy(), np.full((6, 8), 2, np.uint8)
    wrong[3, 1], levels[3, 1] = 1800, 0  # between near and far, so that the range of depth stays
    Image.fromarray(guide).save("rgb.png")
    Image.fromarray(levels).save("levels.png")
    stored(depth, "depth.png")
    stored(wrong, "wrong.png")
    assert run("--method", name, "--confidence", "levels.png", depth="wrong.png") == 0
    assert run("--method", name, "--confidence", "levels.png", out="true.png") == 0
    np.testing.assert_array_equal(read_depth(Path("out.png")), read_depth(Path("true.png")))


@pytest.mark.parametrize(
    "stored_as, expected",
    [
        (np.array([[0, 1, 2]], np.uint8), [[0, 0.5, 1]]),
        (np.array([[0, 51, 255]], np.uint8), [[0, 0.2, 1]]),
        (np.array([[0, 13107, 65535]], np.uint16), [[0, 0.2, 1]]),
        (np.array([[0, 0.25, 1]], np.float32), [[0, 0.25, 1]]),
    ],
    ids=["levels", "8 bits", "16 bits", "fractions"],
)
def test_kinds_of_confidence(folder, stored_as, expected):
    np.save("c.npy", stored_as)
    np.testing.assert_allclose(read_confidence(Path("c.npy"), (1, 3)), expected)


@pytest.mark.parametrize("wrong", [[[0, 0.5, 1.5]], [[0, np.nan, 1]], [[-0.5, 0, 1]]], ids=str)
def test_numbers_that_are_no_confidence(folder, wrong):
    np.save("c.npy", np.array(wrong, np.float32))
    with pytest.raises(InputError, match=r"c\.npy: expected 0 to 1"):
        read_confidence(Path("c.npy"), (1, 3))


def test_refusals(folder, capsys):
    np.save("c.npy", np.ones((6, 7), np.float32))
    np.save("none.npy", np.zeros((6, 8), np.float32))
    refused(
        capsys,
        "c.npy: expected 8 x 6 pixels as the depth map has, got 7 x 6",
        "--method",
        "mrf",
        "--confidence",
        "c.npy",
    )
    refused(
        capsys,
        "no valid pixel of the depth map has a confidence above 0",
        "--method",
        "mrf",
        "--confidence",
        "none.npy",
    )
    refused(capsys, "--confidence: jbu has no use for it, only fgi, fbs, mrf", "--confidence", "c.npy")
    refused(capsys, "--fill: bicubic has no use for it", "--method", "bicubic", "--fill")
    refused(capsys, "missing.npy", "--method", "mrf", "--confidence", "missing.npy")


@pytest.mark.thorough
def test_progress_and_convergence_are_shown(monkeypatch):
    """A solve that ends before it has converged is pointed out."""
    from jaxup import solvers
    from jaxup.cli import methods

    def short(*maps, **options):
        return solvers.mrf_upsample(*maps, **options, smoothness=100.0, iterations=3)

    monkeypatch.setitem(methods.CLASSICAL, "mrf", methods.Method(methods._iterated("mrf", short), None, solver=True))
    depth, lines, steps = np.random.default_rng(0).random((6, 8)), [], []
    method = make_method("mrf", None)
    guide = np.zeros((12, 16, 3), np.uint8)
    upsample_depth(depth, guide, method, warn=lines.append, show=lambda *now: steps.append(now))
    assert len(lines) == 1 and lines[0].startswith("mrf: not converged after 3 steps, at a residual of ")
    assert steps[:3] == [(1, 3), (2, 3), (3, 3)]
