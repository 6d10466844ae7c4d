"""What the solvers of sparse depth under a guide have in common, each beside a direct solution of its equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxup import solvers
from jaxup.ops import resize
from jaxup.solvers.samples import fill, place
from jaxup.solvers.superpixels import superpixels
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import random
from tests.oracles import depth_solvers as oracles
from tests.registry.examples import thorough

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
GRID = (5, 6)
PARK = dict(
    smoothness=0.3, nonlocal_smoothness=0.2, sigma_color=0.4, sigma_edge=0.3, sigma_depth=0.5, sigma_structure=0.4
)
EXACT = dict(tolerance=1e-7, iterations=500)
# name -> the solver with options for small random images, and its oracle.
SOLVERS = {
    "mrf": (
        partial(solvers.mrf_interpolate, smoothness=0.5, sigma=0.6, **EXACT),
        lambda x, g, c: oracles.mrf(x, g, c, 0.5, 0.6, "paper"),
    ),
    "mrf-official": (
        partial(solvers.mrf_interpolate, smoothness=0.5, sigma=0.6, form="official", **EXACT),
        lambda x, g, c: oracles.mrf(x, g, c, 0.5, 0.6, "official"),
    ),
    "sdf": (
        partial(solvers.sd_filter, smoothness=0.8, mu=1.5, nu=2.0, steps=3, neighbours=8, **EXACT),
        lambda x, g, c: oracles.sd_filter(x, g, c, 0.8, 1.5, 2.0, 3, 8, "paper"),
    ),
    "sdf-official": (
        lambda x, g, **options: solvers.sd_filter(
            x, g[..., :2], smoothness=0.8, mu=1.5, nu=2.0, steps=3, form="official", **EXACT, **options
        ),
        lambda x, g, c: oracles.sd_filter(x, g[..., :2], c, 0.8, 1.5, 2.0, 3, 4, "official"),
    ),
    "park": (
        partial(solvers.park_interpolate, radius=2, segment=3, **PARK, **EXACT),
        lambda x, g, c: oracles.park(x, g, c, _guess(x, c), _labels(g), *PARK.values(), 2),
    ),
    "tgv": (
        partial(solvers.tgv_interpolate, iterations=40, tolerance=1e-30),
        lambda x, g, c: np.stack([_tgv(y, g, c) for y in np.moveaxis(x, 2, 0)], axis=2),
    ),
}
UPSAMPLE = {name: getattr(solvers, f"{name}_upsample") for name in ("mrf", "sdf", "tgv", "park")}
each = pytest.mark.parametrize(
    "name", ["mrf", thorough("mrf-official"), "sdf", thorough("sdf-official"), "park", "tgv"]
)
each_upsampling = pytest.mark.parametrize("name", UPSAMPLE)


def _guess(x, trust):
    images = (np.moveaxis(np.where(trust > 0, x, 0), 2, 0)[None], np.moveaxis(trust, 2, 0)[None])
    return np.moveaxis(np.asarray(fill(*images))[0], 0, 2)


def _labels(guide):
    yuv = guide @ np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]).T
    return np.asarray(superpixels(yuv.astype(np.float32), 3, 4 * PARK["sigma_color"]))


def _tgv(x, guide, trust):
    known = np.where(trust[..., 0] > 0, x, 0)
    start = _guess(x[..., None], trust)[..., 0]
    return oracles.tgv(known, guide @ [0.299, 0.587, 0.114], 1000 * trust[..., 0], (1.0, 1.2), (10.0, 0.75), 40, start)


def images(grid=GRID, batch=2, channels=2):
    """Data of one sign, with NaN where there is none, a guide in 0 .. 1, and confidence, zero in half of the pixels."""
    draws = np.random.default_rng(sum(grid))
    x, guide, trust = (draws.uniform(0.1, 1, (batch, *grid, c)).astype(np.float32) for c in (channels, 3, 1))
    trust = np.where(draws.uniform(size=trust.shape) < 0.5, 0, trust)
    trust[:, 0, 0] = 1
    return np.where(trust > 0, x, np.nan), guide, trust


@each
@pytest.mark.first(2)
def test_equals_the_direct_solution(name):
    run, oracle = SOLVERS[name]
    x, guide, trust = images()
    actual, report = run(x, guide, confidence=trust, report=True)
    for b in range(2):
        expected = oracle(*(np.asarray(a[b], np.float64) for a in (x, guide, trust)))
        assert_close(actual[b], expected, 2e-5)
    assert report.steps.shape == report.converged.shape == (2,)
    assert name == "tgv" or report.converged.all()


@each
@pytest.mark.first(1)
def test_properties(name):
    """All with the compiled program of the test above."""
    run = SOLVERS[name][0]
    x, guide, trust = images()
    plain = run(x, guide, confidence=trust, report=True)[0]
    constant = run(np.full_like(x, 0.7), guide, confidence=trust, report=True)[0]
    np.testing.assert_allclose(constant, 0.7, rtol=1e-5)
    if name != "park":  # whose segments grow from cells that begin at the first pixel
        for axis in (1, 2) if name != "tgv" else ():  # whose edges are measured towards the next pixel
            flipped = run(*(np.flip(a, axis) for a in (x, guide)), confidence=np.flip(trust, axis), report=True)[0]
            assert_close(np.flip(flipped, axis), plain, 2e-5)
    broken = guide.copy()
    broken[1, 2, 3] = np.nan
    result, report = run(x, broken, confidence=trust, report=True)
    assert_close(result[0], plain[0], 1e-6)  # of the other image nothing is seen
    assert report.converged[0] == (name != "tgv") and not report.converged[1]
    nothing, _ = run(x, guide, confidence=np.zeros_like(trust), report=True)
    assert_finite(nothing)


@pytest.mark.thorough
@each
@pytest.mark.first(1)
def test_gradients(name):
    """Of data, guide and confidence, behind the solution."""
    run = SOLVERS[name][0]
    with jax.enable_x64(True):
        x, guide, trust = (jnp.asarray(a, jnp.float64) for a in images((3, 4), 1, 1))
        x, trust = jnp.where(trust > 0, x, 0.5), jnp.maximum(trust, 0.1)  # the step at zero has no derivative
        options = dict(tolerance=1e-13, iterations=2000)
        if name == "tgv":
            options = dict(tolerance=1e-15, iterations=20_000, weight=1000.0, alpha=(1.0, 1.0))
        elif name == "sdf-official":
            run, options = SOLVERS["sdf-official"][0], {}

        def fn(x, guide, trust):
            return run(x, guide, confidence=trust, **options)

        rough = dict(atol=1e-4, rtol=1e-4) if name == "sdf-official" else {}
        check_grads(jax.jit(fn), (x, guide, trust), order=1, modes=["rev"], eps=1e-5, **rough)


@pytest.mark.parametrize("grid", [(1, 1), thorough((1, 6)), thorough((6, 1))], ids=str)
@each_upsampling
@pytest.mark.first(2)
def test_tiny_images(name, grid):
    x, guide = np.full((1, *grid, 1), 0.4, np.float32), random(1, *grid, 3)
    np.testing.assert_allclose(UPSAMPLE[name](x, guide), 0.4, rtol=1e-6)


@pytest.mark.thorough
@each_upsampling
@pytest.mark.first(1)
def test_upsampling_in_any_ratio_without_the_holes(name):
    """Upsampling is interpolation of the pixels at the centres of their blocks; the guide has the edge."""
    guide = jnp.where(jnp.arange(30) < 14, 0.1, 0.9)[None, None, :, None].repeat(15, 1).repeat(3, 3)
    true = np.where(np.arange(4) < 2, 0.2, 0.8)[None].repeat(2, 0)[None, ..., None].astype(np.float32)
    low, trust = true.copy(), np.ones_like(true)
    low[0, 0, 0], trust[0, 0, 0] = np.nan, 0
    out = UPSAMPLE[name](low, guide, scale=7.5, confidence=trust)
    assert out.shape == (1, 15, 30, 1) and out.dtype == np.float32
    places = [3, 10, 18, 26]
    expected = np.where(np.array(places) < 14, 0.2, 0.8)
    assert np.abs(np.asarray(out)[0, :, places, 0].T - expected).max() < (0.2 if name == "tgv" else 0.1)
    half = UPSAMPLE[name](jnp.asarray(low, jnp.bfloat16), guide, confidence=trust)
    assert half.dtype == jnp.bfloat16
    assert_close(half, out, 2e-2)


@pytest.mark.parametrize(("low", "high"), [((2, 3), (5, 9)), ((3, 2), (3, 2)), ((1, 4), (8, 10))], ids=str)
@pytest.mark.first(1)
def test_samples_stand_at_the_centres(low, high):
    """The sum of confidence stays, as does its centre of mass; data is the weighted mean of what meets in a pixel."""
    x, trust = random(1, *low, 2), np.abs(random(1, *low, 1))
    data, weight = place(x, trust, high)
    for axis in (0, 1):
        at, where = ((np.arange(n) + 0.5) / n for n in (low[axis], high[axis]))
        shape = (-1, 1) if axis == 0 else (1, -1)
        np.testing.assert_allclose(
            (np.asarray(weight)[0, ..., 0] * where.reshape(shape)).sum(),
            (trust[0, ..., 0] * at.reshape(shape)).sum(),
            rtol=1e-5,
        )
    np.testing.assert_allclose(np.sum(weight), trust.sum(), rtol=1e-5)
    np.testing.assert_allclose((data * weight).sum((1, 2)), (x * trust).sum((1, 2)), rtol=1e-4, atol=1e-6)


def test_a_solve_that_does_not_converge_says_so():
    x, guide, trust = images()
    u, report = solvers.mrf_interpolate(x, guide, confidence=trust, smoothness=100.0, iterations=2, report=True)
    assert u.shape == x.shape and not report.converged.any() and (report.steps == 2).all()
    assert (report.residual > 1e-4).all()


@pytest.mark.parametrize("name", ["mrf", "sdf", "tgv"])
def test_progress_is_called(name):
    x, guide, trust = images((3, 4), 1, 1)
    shown = []
    options = dict(mrf=dict(iterations=10, tolerance=1e-30), sdf=dict(steps=3), tgv=dict(iterations=50, check=20))[name]
    run = dict(mrf=solvers.mrf_interpolate, sdf=solvers.sd_filter, tgv=solvers.tgv_interpolate)[name]
    jax.block_until_ready(run(x, guide, confidence=trust, progress=lambda *now: shown.append(now), **options))
    jax.effects_barrier()
    most = {"mrf": 10, "sdf": 3, "tgv": 50}[name]
    assert shown and all(0 < done <= total == most for done, total in shown)


@pytest.mark.thorough
def test_planes_stay_planes():
    """Where the variation is of second order, an affine map has none, and goes on beyond the data."""
    plane = (np.add.outer(np.arange(6), 2 * np.arange(7)) / 20).astype(np.float32)[None, ..., None]
    trust = np.zeros_like(plane)
    trust[0, 1:5:3, 1:6:2] = 1
    run = partial(solvers.tgv_interpolate, iterations=6000, check=1000, tolerance=1e-7)
    out = run(np.where(trust > 0, plane, np.nan), np.full_like(plane, 0.5), confidence=trust)
    np.testing.assert_allclose(out, plane, atol=2e-3)


def test_tgv_is_not_ended_by_a_small_first_step():
    """The mean over blocks, from which it starts, is close to a ramp, and no step goes far."""
    ramp = np.linspace(0, 1, 60, dtype=np.float32)[None, None, :, None]
    guide = np.repeat(ramp, 8, axis=2)
    found, report = solvers.tgv_upsample(ramp, np.repeat(guide, 8, axis=1), report=True)
    assert report.converged.all() and report.steps[0] % 20 == 0
    centres = (np.arange(480) + 0.5) / 8 - 0.5
    np.testing.assert_allclose(found[0, 4, :, 0], centres / 59, atol=4e-3)  # the means are 7e-3 from it


@pytest.mark.slow
def test_tgv_keeps_every_sample(shared_data):
    """A part of a real pair at 8x: the numbers of the authors give up samples that are alone, the defaults do not."""
    depth, guide = (
        np.asarray(Image.open(shared_data / "rgbd" / "middlebury" / f"Cones_{name}"), np.float32)[96:192, 128:224] / 255
        for name in ("disp.png", "rgb.webp")
    )
    low = depth[4::8, 4::8][None, ..., None]
    error = lambda u: float(np.sqrt(np.mean((np.asarray(u)[0, ..., 0] - depth) ** 2)))  # noqa: E731
    bicubic = error(resize(low, scale=8, method="bicubic", cubic_coefficient=-0.5))
    found = error(solvers.tgv_upsample(low, guide[None]))
    authors = error(solvers.tgv_upsample(low, guide[None], weight=40.0, alpha=(17.0, 1.2)))
    assert found < 0.95 * bicubic < bicubic < authors


def test_segments_follow_colours():
    image = np.where(np.arange(12) < 5, 0.0, 1.0)[None, :, None].repeat(6, 0).astype(np.float32)
    labels = np.asarray(superpixels(image, 6, 0.1))
    assert not set(labels[:, :5].ravel()) & set(labels[:, 5:].ravel())


@pytest.mark.parametrize(
    "run, options, message",
    [
        ("mrf_interpolate", dict(sigma=0.0), "sigma: expected a number > 0, got 0.0"),
        ("mrf_interpolate", dict(form="third"), "form: expected one of 'paper', 'official', got 'third'"),
        ("mrf_interpolate", dict(iterations=0), "iterations: expected an integer >= 1, got 0"),
        (
            "mrf_interpolate",
            dict(confidence=np.ones((1, 4, 6, 2), np.float32)),
            r"confidence: expected shape \(1, 4, 6, 1\)",
        ),
        ("mrf_interpolate", dict(tolerance=0.0), "tolerance: expected a number > 0"),
        ("sd_filter", dict(neighbours=6), "neighbours: expected one of 4, 8, got 6"),
        ("sd_filter", dict(nu=-1.0), "nu: expected a number > 0"),
        ("sd_filter", dict(steps=0), "steps: expected an integer >= 1"),
        ("tgv_interpolate", dict(alpha=1.0), "alpha: expected a pair of numbers, got 1.0"),
        ("tgv_interpolate", dict(edges=(1.0, 0.0)), "edges: expected a number > 0"),
        ("tgv_interpolate", dict(guide=np.ones((1, 4, 6, 2), np.float32)), "guide: expected 1 or 3 channels, got 2"),
        ("park_interpolate", dict(guess=np.ones((1, 4, 6, 2), np.float32)), r"guess: expected shape \(1, 4, 6, 1\)"),
        ("park_interpolate", dict(radius=0), "radius: expected an integer >= 1"),
        ("park_interpolate", dict(guide=np.ones((1, 4, 5, 3), np.float32)), r"guide: expected shape \(1, 4, 6, \*\)"),
        ("park_upsample", dict(scale=3), r"guide: expected shape \(1, 12, 18, \*\)"),
    ],
)
def test_bad_input(run, options, message):
    good = dict(x=random(1, 4, 6, 1), guide=random(1, 4, 6, 3))
    with pytest.raises(ValueError, match=message):
        getattr(solvers, run)(**(good | options))


@pytest.mark.parametrize(
    "case", [*goldens.cases("mrf_depth/*"), *goldens.cases("sd_filter/*"), *goldens.cases("tgv_depth/*")]
)
@pytest.mark.first(2)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)
