import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup.ops import deformable_average, reassemble
from tests.compare import assert_close, assert_finite
from tests.modules import random, scratch
from tests.oracles.dkn import deformable_average as oracle


def kernels(height, width, size, reach, batch=1):
    """Weights, and offsets that leave the image and a small window."""
    return random(batch, height, width, size**2), reach * random(batch, height, width, size**2, 2)


@pytest.mark.parametrize(
    "shape, size, window_size, grid, reach",
    [
        ((2, 4, 5, 2), 3, 15, "centred", 3),
        ((1, 5, 3, 1), 3, 5, "centred", 2),
        ((1, 3, 4, 3), 2, 3, "centred", 1),
        ((1, 1, 1, 1), 7, 7, "centred", 1),
        ((1, 3, 3, 2), 1, 1, "centred", 0.7),
        ((1, 4, 5, 1), 3, 15, "shifted", 4),
        ((1, 3, 4, 1), 5, 5, "shifted", 1),
        ((1, 4, 5, 1), 3, 15, "compressed", 4),
        ((1, 4, 3, 2), 2, 5, "compressed", 2),
    ],
)
@pytest.mark.first(4)
def test_equals_the_loops(shape, size, window_size, grid, reach):
    x, (weights, offsets) = random(*shape), kernels(*shape[1:3], size, reach, shape[0])
    actual = deformable_average(x, weights, offsets, window_size=window_size, grid=grid)
    assert_close(actual, oracle(x, weights, offsets, window_size, grid), 1e-5)


def test_without_offsets_it_is_a_reassembly():
    """The regular grid is the k x k window around the pixel, row by row."""
    x, weights = random(2, 5, 6, 3), random(2, 5, 6, 25)
    plain = deformable_average(x, weights, jnp.zeros((2, 5, 6, 25, 2)))
    assert_close(plain, reassemble(x, weights, scale=1, kernel_size=5), 1e-6)


def test_offsets_move_every_sample_alike():
    """A shared offset by whole pixels is a shift of the image."""
    x, weights = random(1, 6, 7, 2), random(1, 6, 7, 9)
    weights = np.broadcast_to(weights[:, :1, :1], weights.shape)
    offsets = jnp.broadcast_to(jnp.array([1.0, -2.0]), (1, 6, 7, 9, 2))
    shifted = np.pad(x, ((0, 0), (0, 1), (2, 0), (0, 0)))[:, 1:, :7]
    expected = deformable_average(shifted, weights, 0 * offsets)
    assert_close(deformable_average(x, weights, offsets)[:, 1:, :-1], expected[:, 1:, :-1], 1e-6)


def test_window_limits_the_reach():
    """Exactly at the border pixel a sample counts fully, half a pixel further half, a whole pixel further not."""
    x, weights = jnp.ones((1, 1, 9, 1)), jnp.ones((1, 1, 9, 1))
    for distance, expected in [(2.0, 1.0), (2.5, 0.5), (3.0, 0.0), (1e4, 0.0), (-2.5, 0.5), (-3.0, 0.0)]:
        offsets = jnp.zeros((1, 1, 9, 1, 2)).at[..., 1].set(distance)
        assert deformable_average(x, weights, offsets, window_size=5)[0, 0, 4, 0] == expected


def test_extreme_values_are_finite():
    x, weights, offsets = (jnp.asarray(1e4 * y) for y in (random(1, 3, 4, 2), *kernels(3, 4, 3, 1)))
    out, pullback = jax.vjp(deformable_average, x, weights, offsets)
    assert_finite((out, pullback(jnp.ones_like(out))))


@pytest.mark.parametrize("gradients, bound", [(False, 1.5), (True, 4)])
def test_scratch_memory(gradients, bound):
    """The same for every window; as little for wide images, which no k*k copies of are kept."""
    shapes = [(1, 64, 64, 256), (1, 64, 64, 9), (1, 64, 64, 9, 2)]
    small, large = (
        scratch(lambda *xs, d=d: deformable_average(*xs, window_size=d), *shapes, gradients=gradients) for d in (3, 31)
    )
    assert small == large <= bound


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=jnp.ones((3, 4, 2))), r"x: expected 4 axes"),
        (dict(x=jnp.ones((1, 0, 4, 2))), r"x: expected at least one pixel"),
        (dict(weights=jnp.ones((1, 3, 4, 8))), r"weights: expected k\*k entries per pixel, got shape \(1, 3, 4, 8\)"),
        (dict(weights=jnp.ones((1, 3, 5, 9))), r"weights: expected shape \(1, 3, 4, \*\)"),
        (dict(offsets=jnp.ones((1, 3, 4, 18))), r"offsets: expected shape \(1, 3, 4, 9, 2\)"),
        (dict(offsets=jnp.ones((1, 3, 4, 9, 2), int)), "offsets: expected a floating-point type"),
        (dict(window_size=4), "window_size: expected an odd integer, got 4"),
        (dict(grid="corner"), "grid: expected one of 'centred', 'shifted', 'compressed', got 'corner'"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=jnp.ones((1, 3, 4, 2)), weights=jnp.ones((1, 3, 4, 9)), offsets=jnp.ones((1, 3, 4, 9, 2)))
    with pytest.raises(ValueError, match=message):
        deformable_average(**(good | change))
