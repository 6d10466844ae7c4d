from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxup import ops
from jaxup.ops import attend
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.oracles.attend import attention_upsample as oracle
from tests.registry.examples import thorough


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def maps(grid, scale, depth=4, channels=6, batch=2, joint=False):
    large = (scale[0] * grid[0], scale[1] * grid[1])
    key = random(batch, *(large if joint else grid), depth, seed=1)
    return random(batch, *large, depth), key, random(batch, *grid, channels, seed=2)


@pytest.mark.parametrize(
    "grid, scale, kernel_size, options",
    [
        ((3, 4), (2, 2), 3, {}),
        ((4, 3), (2, 2), 5, dict(num_heads=2)),
        ((1, 1), (3, 3), 5, dict(scaled=True)),
        ((3, 2), (1, 1), 3, {}),
        ((2, 3), (3, 2), 7, dict(num_heads=2, scaled=True)),
        ((3, 3), (4, 4), 3, {}),  # windows without an allowed position
        ((2, 2), (4, 4), 9, {}),
        thorough((1, 5), (8, 8), 15, {}),
        ((2, 2), (2, 2), 1, {}),
    ],
)
@pytest.mark.first(3, 6)
def test_equals_the_loops(grid, scale, kernel_size, options):
    positions = random(kernel_size, 2, seed=3), random(kernel_size, 2, seed=4)
    run = partial(ops.attention_upsample, scale=scale, kernel_size=kernel_size, positions=positions, **options)
    forms = [maps(grid, scale, joint=joint) for joint in (False, True)]
    for inputs, actual in zip(forms, jax.jit(lambda forms: [run(*form) for form in forms])(forms), strict=True):
        assert_close(actual, oracle(*inputs, scale, kernel_size, positions, **options), 2e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "grid, scale, kernel_size, cells, options",
    [
        ((4, 3), (2, 2), 5, 3, dict(num_heads=2)),
        thorough((2, 3), (3, 2), 7, 5, dict(num_heads=2, scaled=True)),
        ((3, 3), (4, 4), 3, 3, {}),  # windows without an allowed position
        ((2, 2), (2, 2), 1, 1, {}),
    ],
)
@pytest.mark.first(1)
def test_kernels_reassemble_the_values(grid, scale, kernel_size, cells, options):
    positions = random(kernel_size, 2, seed=3), random(kernel_size, 2, seed=4)
    options = dict(scale=scale, kernel_size=kernel_size, positions=positions, **options)

    @jax.jit
    def run(query, key, value):
        kernels = ops.attention_kernels(query, key, **options)
        out = ops.reassemble(value, kernels, scale=scale, kernel_size=cells, groups=kernels.shape[3])
        return kernels, out, ops.attention_upsample(query, key, value, **options)

    for joint in (False, True):
        query, key, value = maps(grid, scale, joint=joint)
        kernels, out, expected = run(query, key, value)
        assert kernels.shape == (*query.shape[:3], options.get("num_heads", 1), cells**2)
        assert_close(out, expected, 1e-6)
        assert np.all(np.asarray(kernels) >= 0)
        sums = np.sum(kernels, axis=-1)
        np.testing.assert_allclose(sums, np.round(sums), atol=1e-6)


@pytest.mark.parametrize(
    "scale, kernel_size, options",
    [
        ((2, 2), 3, dict(num_heads=2)),
        ((3, 2), 3, dict(scaled=True)),
        ((4, 4), 3, {}),  # windows without an allowed position
        ((2, 2), 1, dict(num_heads=2)),
        ((2, 2), 5, dict(num_heads=2)),
    ],
)
@pytest.mark.first(1, 5)
def test_many_images_are_each_of_them(scale, kernel_size, options):
    """Large maps and small windows go phase by phase, others in tiles: values and gradients are the same."""
    rows, depth, batch = 48 if kernel_size < 5 else 24, 2 * attend._THIN[kernel_size], 4
    grid = rows // scale[0], rows // 2 // scale[1]
    positions = random(kernel_size, depth // 2, seed=3), random(kernel_size, depth // 2, seed=4)
    run = partial(ops.attention_upsample, scale=scale, kernel_size=kernel_size, **options)

    def value_and_gradients(positions, *maps):
        out, back = jax.vjp(lambda positions, *maps: run(*maps, positions=positions), positions, *maps)
        return out, *back(jnp.cos(out))

    for joint in (False, True):
        whole = maps(grid, scale, depth, 16, batch, joint)
        assert whole[0].size >= attend._MANY > whole[0][:1].size
        out, of_positions, *gradients = jax.jit(value_and_gradients)(positions, *whole)
        each = jax.jit(value_and_gradients)
        parts = [each(positions, *(x[n : n + 1] for x in whole)) for n in range(batch)]
        for actual, *expected in zip((out, *gradients), *((part[0], *part[2:]) for part in parts), strict=True):
            assert_close(actual, np.concatenate(expected), 1e-5)
        for n, actual in enumerate(of_positions):
            np.testing.assert_allclose(actual, sum(part[1][n] for part in parts), rtol=1e-4, atol=1e-3)  # some are 0


@pytest.mark.parametrize("depth, terms", [(40, 8), (24, 64)])
def test_sums_of_phases(depth, terms, monkeypatch):
    """Of more channels than one loop adds up, and of all in one, where no halving ends at one."""
    monkeypatch.setattr(attend, "_MANY", 0)
    monkeypatch.setattr("jaxup.ops.windows._TERMS", terms)
    args = maps((3, 4), (2, 2), depth, 4)
    assert_close(ops.attention_upsample(*args, scale=2, kernel_size=3), oracle(*args, (2, 2), 3), 2e-6)


def test_without_positions():
    args = maps((3, 2), (2, 2))
    assert_close(ops.attention_upsample(*args, scale=2, kernel_size=5), oracle(*args, (2, 2), 5), 2e-6)


QUICK = {"self__k3_s2", "self__k3_s4_empty_windows", "joint__k5_s2"}


@pytest.mark.parametrize("case", goldens.cases("attn_upsample/*", quick=QUICK))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_outputs_lie_within_the_values(seed):
    """Weights are positive and sum to one, so that each output lies between the smallest and largest value."""
    query, key, value = (
        random(1, 6, 8, 4, seed=seed),
        random(1, 3, 4, 4, seed=seed + 1),
        random(1, 3, 4, 2, seed=seed + 2),
    )
    out = ops.attention_upsample(10 * query, key, value, scale=2, kernel_size=3)
    assert np.all(out >= value.min() - 1e-5) and np.all(out <= value.max() + 1e-5)


def test_extreme_scores_are_finite():
    """Scores of +-1e4 saturate the softmax; values and gradients stay finite."""
    query, key, value = maps((3, 4), (2, 2), batch=1)
    loss = lambda *a: jnp.sum(ops.attention_upsample(*a, scale=2, kernel_size=3))  # noqa: E731
    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    assert_finite(run(1e4 * np.sign(query), np.sign(key), value))


def test_empty_windows_are_zero_with_zero_gradient():
    query, key, value = maps((2, 2), (4, 4), batch=1)
    run = lambda query: ops.attention_upsample(query, key, value, scale=4, kernel_size=3)  # noqa: E731
    out, gradient = jax.jit(lambda query: (run(query), jax.grad(lambda query: jnp.sum(run(query)))(query)))(query)
    out, gradient = np.asarray(out), np.asarray(gradient)
    assert not np.any(out[:, 2::4]) and np.any(out[:, ::4])
    assert not np.any(gradient[:, 2::4])


def test_joint_form_reads_the_allowed_positions_only():
    query, key, value = maps((3, 2), (2, 2), joint=True)
    elsewhere = key.copy()
    elsewhere[:, 1::2] = np.nan
    elsewhere[:, :, 1::2] = np.nan
    run = lambda k: ops.attention_upsample(query, k, value, scale=2, kernel_size=3)  # noqa: E731
    np.testing.assert_array_equal(run(key), run(elsewhere))


def test_shifts_commute_inside():
    query, key, value = maps((5, 5), (2, 2), batch=1)
    run = lambda q, k, v: ops.attention_upsample(q, k, v, scale=2, kernel_size=3)  # noqa: E731
    whole = run(query, key, value)
    part = run(query[:, 2:], key[:, 1:], value[:, 1:])
    assert_close(np.asarray(part)[:, 2:], np.asarray(whole)[:, 4:], 1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(query=random(6, 8, 4)), "query: expected 4 axes"),
        (dict(query=random(1, 5, 8, 4)), r"query: expected shape \(1, 6, 8, 4\), got shape \(1, 5, 8, 4\)"),
        (dict(key=random(1, 3, 5, 4)), r"key: expected shape \(1, 3, 4, 4\) or \(1, 6, 8, 4\)"),
        (dict(key=random(1, 3, 4, 6)), "key: expected shape"),
        (dict(value=random(2, 3, 4, 6)), "query: expected shape"),
        (dict(value=np.zeros((1, 3, 4, 6), np.int32)), "value: expected a floating-point type"),
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
        (dict(scale=1.5), "scale: expected an integer >= 1, got 1.5"),
        (dict(num_heads=3), "num_heads: expected a divisor of the channels of query = 4, got 3"),
        (dict(num_heads=4), "num_heads: expected a divisor of the channels of value = 6, got 4"),
        (dict(positions=(random(3, 2), random(5, 2))), r"positions\[1\]: expected shape \(3, 2\), got shape \(5, 2\)"),
    ],
)
def test_bad_input(change, message):
    query, key, value = maps((3, 4), (2, 2), batch=1)
    good = dict(query=query, key=key, value=value, scale=2, kernel_size=3)
    with pytest.raises(ValueError, match=message):
        ops.attention_upsample(**(good | change))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(query=random(6, 8, 4)), "query: expected 4 axes"),
        (dict(query=random(1, 5, 8, 4)), "scale: expected a divisor of the height of query = 5, got 2"),
        (dict(key=random(1, 3, 5, 4)), r"key: expected shape \(1, 3, 4, 4\) or \(1, 6, 8, 4\)"),
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(num_heads=3), "num_heads: expected a divisor of the channels of query = 4, got 3"),
    ],
)
def test_kernels_of_bad_input(change, message):
    query, key, _ = maps((3, 4), (2, 2), batch=1)
    with pytest.raises(ValueError, match=message):
        ops.attention_kernels(**(dict(query=query, key=key, scale=2, kernel_size=3) | change))
