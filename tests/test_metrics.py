"""Metrics against scikit-image's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage import metrics as reference

from jaxup import metrics

SSIM = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}


def images(shape=(2, 40, 31, 3), span=1.0):
    """Smooth images far from zero, and the same with noise and a change of contrast."""
    random = np.random.default_rng(0)  # the same images, whichever tests ran before
    truth = span * (0.6 + 0.2 * np.sin(np.arange(shape[1])[:, None, None] / 5 + np.arange(shape[2])[:, None] / 7))
    truth = np.broadcast_to(truth, shape) + 0.02 * span * random.standard_normal(shape)
    x = 0.9 * truth + 0.03 * span * random.standard_normal(shape)
    return x.astype(np.float32), truth.astype(np.float32)


def similarity(x, truth, window, span):
    return reference.structural_similarity(truth, x, data_range=span, channel_axis=-1, **SSIM[window])


@pytest.mark.parametrize("span", [1.0, 255.0])
def test_psnr_is_that_of_scikit_image(span):
    x, truth = images(span=span)
    expected = [reference.peak_signal_noise_ratio(t, a, data_range=span) for a, t in zip(x, truth, strict=True)]
    np.testing.assert_allclose(metrics.psnr(x, truth, data_range=span), expected, rtol=1e-6)
    error = x.astype(np.float64) - truth
    np.testing.assert_allclose(metrics.mae(x, truth), np.abs(error).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(metrics.rmse(x, truth), np.sqrt((error**2).mean((1, 2, 3))), rtol=1e-6)


@pytest.mark.parametrize("window", SSIM)
@pytest.mark.parametrize("span", [1.0, 255.0])
@pytest.mark.first(1)
def test_ssim_is_that_of_scikit_image(window, span):
    x, truth = images(span=span)
    expected = [
        similarity(a.astype(np.float64), t.astype(np.float64), window, span) for a, t in zip(x, truth, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(x, truth, data_range=span, window=window), expected, atol=1e-6)
    with jax.enable_x64(True):
        exact = metrics.ssim(np.float64(x), np.float64(truth), data_range=span, window=window)
        np.testing.assert_allclose(exact, expected, rtol=1e-9)


@pytest.mark.parametrize("window", SSIM)
def test_ssim_of_flat_and_equal_images(window):
    flat = np.full((1, 16, 16, 1), 0.7, np.float32)
    np.testing.assert_allclose(metrics.ssim(flat, flat, window=window), 1, atol=1e-6)
    expected = similarity(np.zeros((16, 16, 1)), np.float64(flat[0]), window, 1.0)
    np.testing.assert_allclose(metrics.ssim(0 * flat, flat, window=window), [expected], atol=1e-6)
    assert np.isinf(metrics.psnr(flat, flat)).all()


@pytest.mark.thorough
def test_half_precision_is_summed_in_float32():
    x, truth = (jnp.asarray(a, jnp.bfloat16) for a in images())
    for measure in (metrics.psnr, metrics.ssim, metrics.mae, metrics.rmse):
        actual, expected = measure(x, truth), measure(x.astype(jnp.float32), truth.astype(jnp.float32))
        assert actual.dtype == jnp.float32 and actual.shape == (2,)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.thorough
def test_ssim_has_gradients():
    x, truth = images((1, 12, 13, 1))
    with jax.enable_x64(True):
        check_grads(lambda x: metrics.ssim(x, np.float64(truth)), (np.float64(x),), 1, ["rev"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.ones((2, 9, 9, 1), np.float32)}, "truth"),
        ({"x": np.ones((1, 9, 9, 1), np.int32)}, "x"),
        ({"window": "round"}, "window"),
        ({"data_range": 0}, "data_range"),
        ({}, "x: expected at least 11 x 11"),
    ],
)
def test_bad_input(change, message):
    flat = np.ones((1, 9, 9, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        metrics.ssim(**({"x": flat, "truth": flat} | change))


@pytest.mark.parametrize("name", ["mae", "rmse", "psnr", "ssim"])
@pytest.mark.parametrize("error", [0.0, 1e-21, 1e-3])
@pytest.mark.first(4)
def test_gradients_are_finite(name, error):
    """Of equal images too, where roots and logarithms have no derivative, and of errors whose squares vanish."""
    flat = jnp.full((1, 12, 12, 1), error)
    value, gradient = jax.value_and_grad(lambda x: getattr(metrics, name)(x, jnp.zeros_like(x)).sum())(flat)
    assert np.isfinite(gradient).all()
    if name == "rmse" and error != 1e-21:
        np.testing.assert_allclose(value, error, rtol=1e-6)
        np.testing.assert_allclose(gradient.sum(), float(error > 0), rtol=1e-5)


@pytest.mark.parametrize("name", ["mae", "rmse"])
@pytest.mark.first(1)
def test_valid_pixels(name):
    """As if there were no others, whatever those hold; NaN and no gradient where there is none."""
    x, truth = images((3, 6, 5, 2))
    valid = np.random.default_rng(0).random((3, 6, 5, 1)) < 0.5
    valid[2] = False
    hidden_x, hidden_truth = np.where(valid, x, np.nan), np.where(valid, truth, np.inf)
    measure = getattr(metrics, name)
    alone = [measure(x[i][valid[i, ..., 0]][None, None], truth[i][valid[i, ..., 0]][None, None])[0] for i in (0, 1)]
    for mask in (valid, jnp.asarray(valid), valid.astype(np.float32), valid.astype(np.uint8)):
        np.testing.assert_allclose(measure(hidden_x, hidden_truth, valid=mask), [*alone, np.nan], rtol=1e-6)
    gradient = jax.grad(lambda x: measure(x, truth, valid=valid)[:2].sum())(x)
    hidden = jax.grad(lambda x: jnp.nan_to_num(measure(x, hidden_truth, valid=valid)).sum())(hidden_x)
    np.testing.assert_allclose(hidden, np.where(valid, gradient, 0), rtol=1e-6)
    assert np.abs(gradient[:2]).sum() > 0
    np.testing.assert_allclose(measure(x, truth, valid=np.ones_like(valid)), measure(x, truth), rtol=1e-6)
    for wrong in (valid[..., 0], valid.repeat(2, 3), valid[:1]):
        with pytest.raises(ValueError, match="valid: expected shape"):
            measure(x, truth, valid=wrong)
