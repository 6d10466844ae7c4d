"""Errors of alpha mattes and depth maps: against loops, at the edges of their definitions, golden vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from scipy import ndimage

from jaxup import losses, metrics
from tests import goldens
from tests.oracles import matting as oracle

RNG = np.random.default_rng(3)
BOUNDS = {"matting_metrics": 1e-4, "depth_metrics": 1e-6}  # of each number, as the sheets have it


def mattes(shape=(2, 11, 14), levels=10):
    """Smooth mattes of few values, so that some lie on thresholds, and components are of one size."""
    noise = ndimage.gaussian_filter(RNG.standard_normal((2, *shape)), (0, 0, 1.2, 1.2))
    alphas = np.clip(0.5 + 1.5 * noise, 0, 1)
    x, truth = np.rint(alphas * levels) / levels
    return x[..., None], truth[..., None], RNG.random((*shape, 1)) < 0.7


@pytest.mark.parametrize(
    "case", goldens.cases("matting_metrics/*", quick=["random_a", "no_full_range"]) + goldens.cases("depth_metrics/*")
)
def test_golden(case):
    golden = goldens.load(case)
    goldens.check(golden, half=False)
    found = goldens.compiled(golden, goldens.function(golden))(golden.inputs)[0]
    for name, want in golden.outputs.items():
        np.testing.assert_allclose(found[name], want, rtol=BOUNDS[golden.name.split("/")[0]], err_msg=name)


@pytest.mark.parametrize("convention", ["matlab", "python"])
@pytest.mark.parametrize("shape", [(2, 11, 14), (1, 1, 9), (1, 3, 2)])
@pytest.mark.first(2)
def test_matting_errors_equal_the_loops(convention, shape):
    for levels in (10, 3):
        x, truth, unknown = mattes(shape, levels)
        x = 0.113 + 0.73 * x  # neither black nor white
        with jax.enable_x64(True):
            got = metrics.matting_errors(x, truth, unknown=unknown, convention=convention)
        for i in range(shape[0]):
            want = oracle.matting_errors(x[i, ..., 0], truth[i, ..., 0], unknown[i, ..., 0], convention)
            for name, value in want.items():
                np.testing.assert_allclose(got[name][i], value, rtol=1e-9, atol=1e-15, err_msg=name)


def test_the_gradient_of_the_python_code_is_scipys():
    x, truth, unknown = mattes((1, 9, 16))
    slopes = [
        np.hypot(*(ndimage.gaussian_filter(oracle.stretched(a[0, ..., 0]), 1.4, order) for order in ((0, 1), (1, 0))))
        for a in (x, truth)
    ]
    want = ((slopes[0] - slopes[1]) ** 2)[unknown[0, ..., 0]].sum() / 10
    with jax.enable_x64(True):
        np.testing.assert_allclose(metrics.gradient_error(x, truth, unknown=unknown, convention="python"), want)


@pytest.mark.parametrize("convention", ["matlab", "python"])
def test_equal_flat_and_fully_known_mattes(convention):
    x, _, unknown = mattes()
    unknown[1] = False
    flat = np.full_like(x, 0.5)
    same = metrics.matting_errors(x, x, unknown=unknown, convention=convention)
    for name, value in same.items():
        np.testing.assert_array_equal(value, [0, np.nan if name == "MSE" else 0], err_msg=name)
    errors = metrics.matting_errors(flat, flat + 0.25, unknown=np.ones_like(x), convention=convention)
    expected = 0.25 if convention == "matlab" else 0  # stretched, both are zero everywhere
    np.testing.assert_allclose(errors["SAD"], expected * flat[0].size / 1000)
    np.testing.assert_array_equal(errors["Grad"], 0)


def test_alphas_of_8_bits_reach_their_tenths():
    truth = np.zeros((1, 1, 3, 1), np.float32)
    truth[..., 0] = np.float32([255, 204, 51]) / np.float32(255)
    x = truth.copy()
    x[0, 0, 2] = 1  # connected up to 0.2: d = 0.8 of one, and 0 of the other
    got = metrics.connectivity_error(x, truth, unknown=np.ones_like(x))
    np.testing.assert_allclose(got, 0.8 / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("sad_error", "python"),
        ("mse_error", "matlab"),
        ("gradient_error", "matlab"),
        pytest.param("sad_error", "matlab", marks=pytest.mark.thorough),
        pytest.param("mse_error", "python", marks=pytest.mark.thorough),
        pytest.param("gradient_error", "python", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.first(1)
def test_gradients(name, convention):
    x, truth, unknown = mattes((1, 6, 7))
    unknown = np.concatenate([unknown, np.zeros_like(unknown)])
    x, truth = np.concatenate([x, x]) + RNG.uniform(0, 1e-2, (2, 6, 7, 1)), np.concatenate([truth, truth])
    measure = getattr(metrics, name)

    def total(x):
        return jnp.nan_to_num(measure(x, truth, unknown=unknown, convention=convention))

    with jax.enable_x64(True):
        check_grads(total, (x,), 1, ["rev"], eps=1e-6, atol=1e-5, rtol=1e-5)
    for start in (truth, np.full_like(x, 0.5)):
        gradient = jax.grad(lambda x: total(x).sum())(np.float32(start))
        assert np.isfinite(gradient).all()


def test_matting_input_errors():
    x = np.zeros((1, 4, 4, 1), np.float32)
    for measure in (metrics.sad_error, metrics.connectivity_error, metrics.matting_errors):
        with pytest.raises(ValueError, match=r"convention: expected one of 'matlab', 'python', got 'octave'"):
            measure(x, x, unknown=x, convention="octave")
        with pytest.raises(ValueError, match="truth: expected shape"):
            measure(x, x[:, :2], unknown=x)
        with pytest.raises(ValueError, match="unknown: expected shape"):
            measure(x, x, unknown=x[..., 0])
        with pytest.raises(ValueError, match="x: expected a floating-point type, got uint8"):
            measure(x.astype(np.uint8), x, unknown=x)


@pytest.mark.thorough
def test_under_a_mesh():
    """Errors and losses of a batch that is spread over the devices are those of the whole."""
    x, truth, unknown = (a.astype(np.float32) for a in mattes((2, 8, 9)))
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        split = NamedSharding(mesh, PartitionSpec("data"))
        with jax.set_mesh(mesh):
            spread = jax.device_put((x, truth, unknown), split)
            for measure in (metrics.mse_error, metrics.gradient_error, losses.alpha_loss):
                found = measure(*spread[:2], unknown=spread[2])
                np.testing.assert_allclose(found, measure(x, truth, unknown=unknown), rtol=1e-5)
            found = metrics.depth_errors(spread[0] + 1, spread[1] + 1, valid=spread[2])["rmse"]
            np.testing.assert_allclose(found, metrics.depth_errors(x + 1, truth + 1, valid=unknown)["rmse"], rtol=1e-5)
            levels = {"levels": 2, "kernel_size": 3}
            found = losses.laplacian_loss(*spread[:2], **levels)
            np.testing.assert_allclose(found, losses.laplacian_loss(x, truth, **levels), rtol=1e-5)


def depths(shape=(3, 5, 6, 1)):
    truth = RNG.uniform(0.5, 9, shape)
    return truth * RNG.uniform(0.6, 1.7, shape), truth, RNG.random(shape) < 0.7


@pytest.mark.parametrize("convention", ["hu", "fastdepth"])
def test_depth_errors(convention):
    x, truth, valid = depths()
    x[0, 0, :2], truth[0, 0, :2], valid[0, 0, :2] = [[5.0], [4.0]], [[4.0], [6.25]], True  # on two thresholds
    valid[2] = False
    hidden, holes = np.where(valid, x, np.nan), np.where(valid, truth, -np.inf)
    with jax.enable_x64(True):
        got = jax.device_get(metrics.depth_errors(hidden, holes, valid=valid, convention=convention))
    for i in (0, 1):
        a, t = x[i][valid[i]], truth[i][valid[i]]
        ratio, inverse = np.maximum(a / t, t / a), 1 / a - 1 / t
        want = {"mse": ((a - t) ** 2).mean(), "rmse": np.sqrt(((a - t) ** 2).mean()), "mae": np.abs(a - t).mean()}
        want |= {"rel": (np.abs(a - t) / t).mean(), "log10": np.abs(np.log10(a / t)).mean(), "pixels": len(a)}
        want |= {"irmse": np.sqrt((inverse**2).mean()), "imae": np.abs(inverse).mean()}
        for k in (1, 2, 3):
            want[f"delta{k}"] = (ratio <= 1.25**k if convention == "hu" else ratio < 1.25**k).mean()
        assert got.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_allclose(got[name][i], value, rtol=1e-12, err_msg=name)
    assert all(np.isnan(value[2]) for name, value in got.items() if name != "pixels") and got["pixels"][2] == 0


def test_default_masks_of_depth():
    truth = np.array([2.0, np.nan, 2, 0, 0], np.float32).reshape(1, 1, 5, 1)
    x = np.array([2.0, 1, 4, 0, 3], np.float32).reshape(1, 1, 5, 1)
    hu = metrics.depth_errors(x[:, :, :3], truth[:, :, :3])
    assert hu["pixels"] == 2 and hu["mae"] == 1
    fastdepth = metrics.depth_errors(x[:, :, 2:], truth[:, :, 2:], convention="fastdepth")
    assert fastdepth["pixels"] == 2 and fastdepth["mae"] == 2.5 and np.isinf(fastdepth["rel"])


def test_depth_scores():
    x, truth, valid = depths()
    valid[2] = False
    errors = metrics.depth_errors(x, truth, valid=valid)
    each = {name: np.asarray(value)[:2] for name, value in errors.items()}
    hu, fastdepth, pixels = (metrics.depth_scores(errors, convention=c) for c in ("hu", "fastdepth", "pixels"))
    np.testing.assert_allclose(fastdepth["rmse"], each["rmse"].mean(), rtol=1e-6)
    np.testing.assert_allclose(hu["rmse"], np.sqrt(each["mse"].mean()), rtol=1e-6)
    np.testing.assert_allclose(hu["rel"], each["rel"].mean(), rtol=1e-6)
    a, t = x[valid], truth[valid]
    np.testing.assert_allclose(pixels["rmse"], np.sqrt(((a - t) ** 2).mean()), rtol=1e-6)
    np.testing.assert_allclose(pixels["irmse"], np.sqrt(((1 / a - 1 / t) ** 2).mean()), rtol=1e-6)
    np.testing.assert_allclose(pixels["delta1"], (np.maximum(a / t, t / a) <= 1.25).mean(), rtol=1e-6)
    assert hu["pixels"] == valid.sum()
    nothing = metrics.depth_scores({name: value[2:] for name, value in errors.items()})
    assert np.isnan(nothing["rmse"]) and nothing["pixels"] == 0
    with pytest.raises(ValueError, match="errors: expected an entry 'pixels'"):
        metrics.depth_scores({"mse": np.ones(2)})
    with pytest.raises(ValueError, match="mse: expected shape"):
        metrics.depth_scores({"mse": np.ones(3), "pixels": np.ones(2)})


@pytest.mark.thorough
def test_gradients_of_depth_errors_are_finite():
    x, truth, valid = (a.astype(np.float32) for a in depths())
    valid[2] = 0
    holes = np.where(valid > 0, truth, 0)

    def total(x, truth, valid):
        errors = metrics.depth_errors(x, truth, valid=valid)
        return sum(jnp.nan_to_num(errors[name]).sum() for name in errors)

    for start in (x, np.where(valid > 0, truth, 0)):
        assert np.isfinite(jax.grad(total)(start, holes, valid)).all()
    with jax.enable_x64(True):
        double = [np.float64(a) for a in (x, truth, valid)]
        check_grads(lambda x: total(x, *double[1:]), (double[0],), 1, ["rev"], eps=1e-6, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="convention"):
        metrics.depth_errors(x, truth, convention="eigen")
    with pytest.raises(ValueError, match="valid: expected shape"):
        metrics.depth_errors(x, truth, valid=valid[:1])
