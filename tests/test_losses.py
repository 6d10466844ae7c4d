"""Losses of alpha mattes: against sums written out, at the edges of their definitions, golden vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxup import losses
from tests import goldens
from tests.oracles import matting as oracle

RNG = np.random.default_rng(5)
MATTING = ("alpha", "composition")


def arrays(shape=(2, 6, 5)):
    x, truth = RNG.uniform(-0.3, 1.3, (*shape, 1)), RNG.random((*shape, 1))
    colours = [RNG.random((*shape, 3)) for _ in range(3)]
    return x, truth, colours, RNG.random((*shape, 1)) < 0.6


def loss(kind, x, truth, colours, unknown, margin=0.0):
    if kind == "alpha":
        return losses.alpha_loss(x, truth, unknown=unknown, margin=margin)
    return losses.composition_loss(x, *colours, unknown=unknown, margin=margin)


def expected(kind, x, truth, colours, unknown, margin):
    image, foreground, background = colours
    error = x - truth if kind == "alpha" else x * foreground + (1 - x) * background - image
    return oracle.smooth_abs(error * unknown).sum((1, 2, 3)) / (unknown.sum((1, 2, 3)) + margin)


@pytest.mark.parametrize("case", goldens.cases("matting_loss/*"))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("kind", MATTING)
@pytest.mark.parametrize("margin", [0.0, 1.0])
@pytest.mark.first(1)
def test_matting_losses(kind, margin):
    x, truth, colours, unknown = arrays()
    with jax.enable_x64(True):
        got = loss(kind, x, truth, colours, unknown, margin)
        np.testing.assert_allclose(got, expected(kind, x, truth, colours, unknown, margin), rtol=1e-12)
        check_grads(lambda x: loss(kind, x, truth, colours, unknown, margin), (x,), 1, ["rev"], atol=1e-6, rtol=1e-6)
    x, truth, *colours = (jnp.asarray(a, jnp.bfloat16) for a in (x, truth, *colours))
    half = loss(kind, x, truth, colours, unknown, margin)
    assert half.dtype == jnp.float32
    single = [a.astype(jnp.float32) for a in (x, truth, *colours)]
    np.testing.assert_array_equal(half, loss(kind, *single[:2], single[2:], unknown, margin))


@pytest.mark.parametrize("kind", MATTING)
@pytest.mark.parametrize("margin", [0.0, 1.0])
@pytest.mark.first(1)
def test_what_is_known_has_no_effect_and_gradients_are_finite(kind, margin):
    """Also of an image without unknown pixels, whose loss is 1e-6 for every pixel and colour, or infinite."""
    x, truth, colours, unknown = arrays()
    unknown[1] = False
    x, truth, *colours = (a.astype(np.float32) for a in (x, truth, *colours))
    hidden = [np.where(unknown, a, np.nan) for a in (x, truth, *colours)]
    for mask in (unknown, unknown.astype(np.uint8), unknown.astype(np.float32)):
        value = loss(kind, hidden[0], hidden[1], hidden[2:], mask, margin)
        np.testing.assert_array_equal(value, loss(kind, x, truth, colours, unknown, margin))
    channels = 1 if kind == "alpha" else 3
    np.testing.assert_allclose(value[1], 30 * channels * 1e-6 if margin else np.inf, rtol=1e-5)
    gradient = jax.grad(lambda x: loss(kind, x, hidden[1], hidden[2:], unknown, margin).sum())(hidden[0])
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~unknown].any()
    assert np.asarray(gradient)[unknown].all()
    same = jax.grad(lambda x: loss("alpha", x, truth, colours, unknown).sum())(truth)
    assert np.isfinite(same).all()  # where the absolute value has none


@pytest.mark.parametrize(("shape", "levels", "size"), [((2, 5, 7), 2, 5), ((1, 5, 8), 1, 1)])
def test_laplacian_loss(shape, levels, size):
    x, truth = RNG.random((*shape, 2)), RNG.random((*shape, 2))
    each = [
        [oracle.laplacian(a[..., c], t[..., c], levels, size, 1.5) for c in (0, 1)]
        for a, t in zip(x, truth, strict=True)
    ]
    want = np.mean(each, axis=1)
    options = {"levels": levels, "kernel_size": size, "sigma": 1.5}
    with jax.enable_x64(True):
        np.testing.assert_allclose(losses.laplacian_loss(x, truth, **options), want, rtol=1e-12)
        check_grads(lambda x: losses.laplacian_loss(x, truth, **options), (x,), 1, ["rev"])
    x = jnp.asarray(x, jnp.float32)
    gradient = jax.grad(lambda y: losses.laplacian_loss(y, x, **options).sum())(x)
    np.testing.assert_array_equal(gradient, 0)


def test_errors():
    x, colours = np.zeros((1, 4, 4, 1), np.float32), np.zeros((1, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match=r"truth: expected shape \(1, 4, 4, 1\)"):
        losses.alpha_loss(x, x[:, :3], unknown=x)
    with pytest.raises(ValueError, match="unknown: expected shape"):
        losses.alpha_loss(x, x, unknown=x[..., 0])
    with pytest.raises(ValueError, match="margin: expected a number >= 0, got -1"):
        losses.alpha_loss(x, x, unknown=x, margin=-1)
    with pytest.raises(ValueError, match="x: expected a floating-point type"):
        losses.alpha_loss(x.astype(np.uint8), x, unknown=x)
    with pytest.raises(ValueError, match="background: expected shape"):
        losses.composition_loss(x, colours, colours, x, unknown=x)
    with pytest.raises(ValueError, match=r"x: expected at least 32 x 32 pixels for 5 levels"):
        losses.laplacian_loss(x, x)
    with pytest.raises(ValueError, match="kernel_size: expected an odd integer"):
        losses.laplacian_loss(x, x, levels=1, kernel_size=4)
    with pytest.raises(ValueError, match="x: expected 4 axes"):
        losses.laplacian_loss(x[0, ..., 0], x)


def depth_terms_by_hand(x, truth, valid, alpha):
    """Of one image [H, W], pixel by pixel."""
    filters = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    found = {name: [] for name in ("depth", "dx", "dy", "normal")}
    padded, seen = [np.pad(np.where(valid, z, 0), 1) for z in (x, truth)], np.pad(valid, 1, constant_values=True)
    for i, j in np.ndindex(*x.shape):
        window = slice(i, i + 3), slice(j, j + 3)
        if valid[i, j]:
            found["depth"].append(np.log(abs(x[i, j] - truth[i, j]) + alpha))
        if seen[window].all():
            slopes = np.array([[(f * z[window]).sum() for f in (filters, filters.T)] for z in padded])
            for name, error in zip(("dx", "dy"), slopes[0] - slopes[1], strict=True):
                found[name].append(np.log(abs(error) + alpha))
            n, m = (np.append(-s, 1) for s in slopes)
            found["normal"].append(abs(1 - n @ m / np.linalg.norm(n) / np.linalg.norm(m)))
    return {name: np.mean(values) if values else 0.0 for name, values in found.items()}


@pytest.mark.thorough
def test_hu_depth_loss():
    """With holes, whose values have no effect; of the second image nothing is known."""
    x, truth, _, _ = arrays((2, 7, 6))
    valid = np.ones(x.shape, bool)
    valid[0, 5, 1:3] = valid[1] = False
    hidden = [np.where(valid, z, np.nan) for z in (x, truth)]
    with jax.enable_x64(True):
        terms = losses.hu_depth_terms(*hidden, alpha=0.7, valid=valid)
        for b in range(2):
            want = depth_terms_by_hand(x[b, ..., 0], truth[b, ..., 0], valid[b, ..., 0], 0.7)
            np.testing.assert_allclose([terms[name][b] for name in want], list(want.values()), rtol=1e-12)
        total = losses.hu_depth_loss(*hidden, alpha=0.7, valid=valid.astype(np.uint8))
        np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-12)
        check_grads(lambda x: losses.hu_depth_loss(x, truth), (x,), 1, ["rev"])
    gradient = jax.grad(lambda x: losses.hu_depth_loss(x, hidden[1], valid=valid).sum())(hidden[0])
    assert np.isfinite(gradient).all() and np.asarray(gradient)[valid].all()
    assert not np.asarray(gradient)[~valid].any()
    with pytest.raises(ValueError, match="valid: expected shape"):
        losses.hu_depth_loss(x, truth, valid=valid[..., 0])
    with pytest.raises(ValueError, match="alpha: expected"):
        losses.hu_depth_loss(x, truth, alpha=0.0)
