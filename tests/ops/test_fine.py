from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops import tiling
from tests import goldens
from tests.compare import assert_close
from tests.modules import random
from tests.oracles.resfu import fine_neighbour_attention, paired_difference_conv


@pytest.mark.parametrize("case", goldens.cases("resfu/fns_attn__*"))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "grid, scale, kernel_size, channels",
    [
        ((3, 4), (2, 3), 3, 3),
        ((1, 1), (3, 3), 5, 3),
        ((1, 3), (1, 4), 3, 17),
        ((2, 3), (8, 1), 1, 3),
        ((3, 4), (3, 2), 5, 17),
    ],
    ids=str,
)
def test_fine_neighbours_equal_the_loops(grid, scale, kernel_size, channels):
    x, weights = random(2, *grid, channels), random(2, scale[0] * grid[0], scale[1] * grid[1], kernel_size**2)
    actual = ops.fine_neighbour_attention(x, weights, scale=scale, kernel_size=kernel_size)
    assert_close(actual, fine_neighbour_attention(x, weights, scale, kernel_size), 1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_strips_of_rows_are_the_whole(monkeypatch, dtype):
    """Values and gradients; the last strip overlaps the one before."""
    x, weights = random(2, 7, 3, 17).astype(dtype), random(2, 14, 9, 9).astype(dtype)
    run = partial(ops.fine_neighbour_attention, scale=(2, 3), kernel_size=3)

    def pulled(*inputs):
        out, back = jax.vjp(run, *inputs)
        return out, back(jnp.cos(out))

    expected = pulled(x, weights)
    monkeypatch.setattr(tiling, "CACHED_BYTES", 2 * 2 * 9 * 4 * 4 * 2)  # two rows of cells
    jax.clear_caches()
    actual = pulled(x, weights)
    assert [a.dtype for a in jax.tree.leaves(actual)] == [dtype] * 3
    assert_close(actual, expected, 1e-5 if dtype == jnp.float32 else 2e-2)
    assert "dynamic_update_slice" in str(jax.make_jaxpr(run)(x, weights))


def test_scratch_with_gradients():
    """Compiled, not run: at most 1.5 times inputs and outputs, where the weights of cells are more than the output."""
    shapes = (1, 64, 512, 32), (1, 128, 1024, 9), (1, 128, 1024, 32)
    x, weights, ct = (jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)
    run = partial(ops.fine_neighbour_attention, scale=2, kernel_size=3)
    memory = jax.jit(lambda ct, *x: jax.vjp(run, *x)[1](ct)).lower(ct, x, weights).compile().memory_analysis()
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert memory.temp_size_in_bytes <= 1.5 * arrays, memory.temp_size_in_bytes / arrays


def test_the_fine_neighbour_at_the_centre_is_bilinear_upsampling():
    x = random(1, 3, 4, 2)
    centre = jnp.zeros((1, 9, 12, 9)).at[..., 4].set(1.0)
    assert_close(ops.fine_neighbour_attention(x, centre, scale=3, kernel_size=3), ops.resize(x, scale=3), 1e-6)


@pytest.mark.parametrize(
    "grid, size, dilation, groups",
    [((4, 5), 3, (2, 1), 2), ((1, 1), 3, (4, 4), 1), ((2, 3), 5, (1, 2), 4)],
    ids=str,
)
def test_paired_difference_equals_the_loops(grid, size, dilation, groups):
    key, kernel = random(2, *grid, 4), random(size, size, 4 // groups, 8)
    query = key[::-1]
    actual = ops.paired_difference_conv(key, query, kernel, dilation=dilation, groups=groups)
    assert_close(actual, paired_difference_conv(key, query, kernel, dilation, groups), 1e-5)


def test_paired_difference_of_equal_constants_vanishes():
    x = jnp.full((1, 4, 5, 2), 3.0)
    np.testing.assert_allclose(ops.paired_difference_conv(x, x, random(3, 3, 2, 4), dilation=2), 0, atol=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(weights=random(1, 6, 6, 9)), r"weights: expected shape \(1, 4, 6, 9\), got shape \(1, 6, 6, 9\)"),
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
        (dict(x=np.ones((1, 2, 3, 4), int)), "x: expected a floating-point type, got int"),
    ],
)
def test_bad_fine_neighbours(change, message):
    with pytest.raises(ValueError, match=message):
        ops.fine_neighbour_attention(
            **(dict(x=random(1, 2, 3, 4), weights=random(1, 4, 6, 9), scale=2, kernel_size=3) | change)
        )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(query=random(1, 2, 4, 4)), r"query: expected shape \(1, 2, 3, 4\), got shape \(1, 2, 4, 4\)"),
        (dict(kernel=random(3, 3, 4, 4)), r"kernel: expected shape \(3, 3, 2, \*\), got shape \(3, 3, 4, 4\)"),
        (dict(kernel=random(2, 2, 2, 4)), "kernel size: expected an odd integer, got 2"),
        (dict(kernel=random(3, 3, 2, 3)), "groups: expected a divisor of the outputs of kernel = 3, got 2"),
        (dict(groups=3), "groups: expected a divisor of the channels of key = 4, got 3"),
        (dict(dilation=0), "dilation: expected an integer >= 1, got 0"),
    ],
)
def test_bad_paired_difference(change, message):
    options = dict(key=random(1, 2, 3, 4), query=random(1, 2, 3, 4), kernel=random(3, 3, 2, 4), groups=2)
    with pytest.raises(ValueError, match=message):
        ops.paired_difference_conv(**(options | change))
