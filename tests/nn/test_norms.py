import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.nn.norms import BatchNorm, InPlaceABN
from tests.modules import random


@pytest.mark.torch
def test_batch_norm_moves_as_in_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = BatchNorm(3, rngs=nnx.Rngs(0)), torch.nn.BatchNorm2d(3)
    for x in (random(2, 3, 2, 3), 5 + 2 * random(2, 1, 2, 3)):
        y = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        np.testing.assert_allclose(ours(x), y.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(ours.mean[...], theirs.running_mean.numpy(), rtol=1e-5)
        np.testing.assert_allclose(ours.var[...], theirs.running_var.numpy(), rtol=1e-5)


def test_batch_norm_steps():
    """Unbiased variance in the running statistics, biased in the normalisation, neither in evaluation."""
    norm, x = BatchNorm(2, rngs=nnx.Rngs(0)), 3 * random(2, 2, 2)
    y = norm(x)
    np.testing.assert_allclose(y, (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1), ddof=1), rtol=1e-5)
    norm.eval()
    before = np.asarray(norm.var[...])
    y = norm(x)
    np.testing.assert_array_equal(norm.var[...], before)
    np.testing.assert_allclose(y, (x - np.asarray(norm.mean[...])) / np.sqrt(before + 1e-5), rtol=1e-5)


def test_one_value_per_feature():
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(norm(np.float32([[3, 4]])), [[0, 0]])
    np.testing.assert_allclose(norm.var[...], 0.9, rtol=1e-6)


@pytest.mark.thorough
def test_in_place_abn():
    """The magnitude of the scale, to which the same 1e-5 is added as to the variance; its gradient has its sign."""
    norm, x = InPlaceABN(3, rngs=nnx.Rngs(0)), random(2, 4, 3)
    scale, bias = np.float32([2, -3, 0.5]), np.float32([1, 2, 3])
    norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    plain = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(norm(x), plain * (np.abs(scale) + 1e-5) + bias, atol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1), ddof=1), rtol=1e-5)
    norm.eval()
    graph, params, rest = nnx.split(norm, nnx.Param, ...)
    gradient = jax.grad(lambda params: nnx.merge(graph, params, rest)(x).sum())(params)
    plain = (x - np.asarray(norm.mean[...])) / np.sqrt(np.asarray(norm.var[...]) + 1e-5)
    np.testing.assert_allclose(gradient["scale"][...], np.sign(scale) * plain.sum((0, 1)), rtol=1e-4)
