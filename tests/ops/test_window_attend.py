from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops.unify import _unify_features
from jaxup.ops.window_attend import window_bounds
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import random, scratch
from tests.oracles import anyup as oracle


@pytest.mark.parametrize("case", goldens.cases("anyup/mask_*"))
def test_bounds_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize("queries, keys, ratio", [(7, 3, 0.1), (3, 7, 0.05), (1, 1, 0.3), (224, 16, 0.1), (5, 4, 0)])
def test_bounds(queries, keys, ratio):
    expected = [oracle.bounds(i, queries, keys, ratio) for i in range(queries)]
    np.testing.assert_array_equal(window_bounds(queries, keys, ratio), expected)


def test_a_window_is_never_empty():
    bounds = window_bounds(2, 4, 1e-12)  # the queries are at the borders between two cells
    assert np.all(bounds[:, 1] > bounds[:, 0]) and np.all(bounds <= 4)


@pytest.mark.parametrize(
    "size, grid, ratio, heads",
    [
        ((18, 5), (6, 4), 0.15, 2),  # two tiles of rows, the second not full
        ((3, 4), (5, 7), 0.1, 1),  # smaller than the LR grid
        ((1, 17), (1, 3), 0.0, 4),
    ],
    ids=str,
)
def test_equals_the_loops(size, grid, ratio, heads):
    arrays = random(2, *size, 8), random(2, *grid, 8), random(2, *grid, 3)
    actual = ops.window_attend(*arrays, window_ratio=ratio, num_heads=heads)
    assert_close(actual, oracle.window_attend(*arrays, ratio, heads), 1e-5)


def test_gradients_across_tiles():
    """Of tiles that are computed anew, against the whole attention under a mask."""
    arrays, ct = (random(1, 18, 20, 4), random(1, 6, 5, 4), random(1, 6, 5, 3)), random(1, 18, 20, 3)
    rows, cols = (
        (np.arange(m) >= b[:, :1]) & (np.arange(m) < b[:, 1:])
        for m, b in ((6, window_bounds(18, 6, 0.2)), (5, window_bounds(20, 5, 0.2)))
    )
    seen = jnp.asarray(rows[:, None, :, None] & cols[None, :, None, :])

    def whole(query, key, value):
        scores = jnp.einsum("bijd,bkld->bijkl", query, key) / 2
        weights = jax.nn.softmax(jnp.where(seen[None], scores, -jnp.inf), axis=(-2, -1))
        return jnp.einsum("bijkl,bklc->bijc", weights, value)

    tiled = partial(ops.window_attend, window_ratio=0.2)
    gradients = [jax.jit(lambda xs, fn=fn: jax.vjp(fn, *xs)[1](jnp.asarray(ct)))(arrays) for fn in (tiled, whole)]
    assert_close(*gradients, 1e-5)


def test_extreme_scores_are_finite():
    query, key, value = (jnp.asarray(random(1, 3, 3, 4)) * scale for scale in (100, 100, 1))
    out, pullback = jax.vjp(partial(ops.window_attend, window_ratio=0.3), query, key, value)
    assert_finite((out, pullback(jnp.ones_like(out))))


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
@pytest.mark.first(1)
def test_scratch_does_not_grow_with_the_window(gradients):
    """Twice the resolution has four times as many cells in each window: the share of scratch memory falls."""
    attend = partial(ops.window_attend, window_ratio=0.1, num_heads=4)
    small, large = (
        scratch(attend, (1, 2 * n, 2 * n, 32), (1, n, n, 32), (1, n, n, 64), gradients=gradients) for n in (32, 64)
    )
    assert large < small < 2.5


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(key=random(1, 2, 3, 6)), r"key: expected shape \(1, \*, \*, 4\), got shape \(1, 2, 3, 6\)"),
        (dict(value=random(1, 2, 2, 5)), r"value: expected shape \(1, 2, 3, \*\), got shape \(1, 2, 2, 5\)"),
        (dict(query=random(1, 0, 6, 4)), r"query: expected at least one pixel, got shape \(1, 0, 6, 4\)"),
        (dict(num_heads=3), "num_heads: expected a divisor of the channels of query = 4, got 3"),
        (dict(window_ratio=-0.1), "window_ratio: expected a number >= 0, got -0.1"),
    ],
)
def test_bad_attention(change, message):
    options = dict(query=random(1, 4, 6, 4), key=random(1, 2, 3, 4), value=random(1, 2, 3, 5), window_ratio=0.1)
    with pytest.raises(ValueError, match=message):
        ops.window_attend(**(options | change))


@pytest.mark.parametrize("shape, size, filters", [((2, 3, 4, 5), 3, 6), ((1, 1, 1, 3), 5, 2), ((1, 2, 5, 1), 1, 4)])
def test_unification_equals_the_loops(shape, size, filters):
    x, basis = random(*shape), random(size, size, filters)
    assert_close(ops.unify_features(x, basis), oracle.unify_features(x, basis), 1e-6)


@pytest.mark.thorough
def test_unification_in_tiles_equals_the_whole(monkeypatch):
    x, basis, ct = random(1, 3, 5, 4), random(3, 3, 6), random(1, 3, 5, 6)

    def run():
        _unify_features.clear_cache()  # the size of the tiles is read while tracing
        out, pullback = jax.vjp(ops.unify_features, x, basis)
        return out, pullback(jnp.asarray(ct))

    whole = run()
    monkeypatch.setattr("jaxup.ops.unify.TILE_BYTES", 3 * 4 * 4 * 6)  # three pixels
    assert_close(run(), whole, 1e-5)
    _unify_features.clear_cache()


@pytest.mark.parametrize(
    "shape, basis, message",
    [
        ((1, 2, 3, 0), (3, 3, 4), r"x: expected at least one entry in the last axis, got shape \(1, 2, 3, 0\)"),
        ((1, 2, 3, 4), (2, 2, 4), "basis size: expected an odd integer, got 2"),
        ((1, 2, 3, 4), (3, 1, 4), r"basis: expected shape \(3, 3, \*\), got shape \(3, 1, 4\)"),
    ],
)
def test_bad_unification(shape, basis, message):
    with pytest.raises(ValueError, match=message):
        ops.unify_features(jnp.ones(shape), jnp.ones(basis))
