from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, drawn, random
from tests.oracles.sapa import sapa, similarity_upsample
from tests.registry.examples import thorough


@pytest.mark.parametrize("case", goldens.cases("sapa/*", quick={"exp__gate_k5_s2", "op__k5_s2", "sapa__inner_k5_s2"}))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "grid, scale, kernel_size",
    [((3, 4), (2, 2), 5), ((1, 1), (4, 3), 3), ((5, 2), (1, 1), 3), ((2, 3), (8, 8), 1), ((1, 6), (3, 2), 5)],
)
def test_op_equals_the_loops(grid, scale, kernel_size):
    query = random(2, scale[0] * grid[0], scale[1] * grid[1], 4)
    key, value = random(2, *grid, 4), random(2, *grid, 3)
    run = jax.jit(partial(ops.similarity_upsample, scale=scale, kernel_size=kernel_size))
    assert_close(run(query, key, value), similarity_upsample(query, key, value, scale, kernel_size), 1e-5)


@pytest.mark.parametrize("query", ["guide", "concat", "gate", "inner"])
@pytest.mark.parametrize("grid, scale", [((3, 2), (2, 3)), thorough((1, 1), (4, 4))], ids=str)
def test_module_equals_the_oracle(query, grid, scale):
    options = dict(similarity="inner") if query == "inner" else dict(query=query)
    guide_features = 5 if query == "inner" else 3
    sizes = dict(scale=scale, kernel_size=3, embedding_features=6)
    module, params = drawn(nn.SAPA, 5, guide_features, 4, **sizes, **options)
    x, guide = random(2, *grid, 5), random(2, scale[0] * grid[0], scale[1] * grid[1], guide_features)
    assert_close(call(module, x, guide), sapa(x, guide, params, scale, 3, query), 1e-5)


@pytest.mark.parametrize("similarity", ["bilinear", "inner"])
def test_kernels_give_the_outputs(similarity):
    up, _ = drawn(nn.SAPA, 3, 3, scale=2, kernel_size=3, embedding_features=2, similarity=similarity)
    x, guide = random(1, 4, 5, 3), random(1, 8, 10, 3)
    kernels, scores, out = nnx.jit(lambda m, *xs: (m.kernels(*xs), m.scores(*xs), m(*xs)))(up, x, guide)
    assert_close(jax.jit(partial(ops.reassemble, scale=2, kernel_size=3))(x, kernels), out, 1e-5)
    assert_close(jax.nn.softmax(scores["similarity"], axis=-1), kernels, 1e-6)


@pytest.mark.thorough
def test_extreme_scores_and_constants():
    """Scores of 1e4 are finite in value and gradient; a constant survives wherever the window is inside."""
    x, guide = jnp.full((1, 5, 5, 2), 3.0), 1e4 * jnp.asarray(random(1, 10, 10, 2))
    up = lambda q, v: ops.similarity_upsample(q, jnp.ones((1, 5, 5, 2)), v, scale=2, kernel_size=3)  # noqa: E731
    out, gradients = jax.jit(lambda *xs: (up(*xs), jax.grad(lambda *xs: jnp.sum(up(*xs)), (0, 1))(*xs)))(guide, x)
    assert_finite(gradients)
    np.testing.assert_allclose(np.asarray(out)[:, 2:-2, 2:-2], 3, rtol=1e-6)
    assert np.all(np.asarray(out) <= 3.00001)


def test_parameter_count():
    """As in the docstring: (Cin + Cg + 2) E + 2 (Cin + Cg)."""
    module = abstract(nn.SAPA, 256, 128, scale=2, embedding_features=32)
    assert count(module) == 386 * 32 + 2 * 384


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(similarity="cosine"), "similarity: expected one of 'bilinear', 'inner', got 'cosine'"),
        (dict(query="sum"), "query: expected one of 'guide', 'concat', 'gate', got 'sum'"),
        (dict(similarity="inner"), "guide_features: expected in_features = 5 for the inner similarity, got 3"),
        (dict(similarity="inner", guide_features=5, query="gate"), "query: expected 'guide' for the inner similarity"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        nn.SAPA(**(dict(in_features=5, guide_features=3, scale=2, rngs=nnx.Rngs(0)) | change))


def test_bad_maps():
    module = abstract(nn.SAPA, 5, 3, scale=2)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, \*\), got shape \(1, 4, 4, 3\)"):
        module(random(1, 2, 3, 5), random(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"query: expected shape \(1, 4, 6, 5\)"):
        ops.similarity_upsample(random(1, 4, 6, 4), random(1, 2, 3, 5), random(1, 2, 3, 2), scale=2, kernel_size=3)
