import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests import goldens
from tests.compare import assert_close
from tests.oracles.reassemble import reassemble as oracle


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "grid, scale, kernel_size, groups",
    [
        ((3, 4), (2, 2), 3, 1),
        ((4, 3), (1, 1), 5, 2),
        ((1, 1), (3, 3), 5, 4),
        ((5, 2), (2, 3), 3, 2),
        ((1, 7), (4, 1), 1, 1),
        ((2, 3), (8, 8), 3, 1),
    ],
)
def test_equals_the_loops(grid, scale, kernel_size, groups):
    x = random(2, *grid, 4)
    kernels = random(2, scale[0] * grid[0], scale[1] * grid[1], groups, kernel_size**2)
    actual = ops.reassemble(x, kernels, scale=scale, kernel_size=kernel_size, groups=groups)
    assert_close(actual, oracle(x, kernels, scale, kernel_size, groups), 1e-6)


@pytest.mark.parametrize("border", ["edge", "reflect"])
@pytest.mark.parametrize("grid", [(3, 4), (1, 2)], ids=str)  # the window is wider than the image
def test_borders(border, grid):
    x, kernels = random(2, *grid, 4), random(2, *grid, 2, 49)
    actual = ops.reassemble(x, kernels, scale=1, kernel_size=7, groups=2, border=border)
    assert_close(actual, oracle(x, kernels, (1, 1), 7, 2, border), 1e-6)


def test_rows_in_blocks_equal_rows_at_once(monkeypatch):
    """Large images are scored a block of rows at a time, here also with a last block that is not full."""
    x, kernels, ct = random(1, 7, 3, 4), random(1, 14, 6, 9), random(1, 14, 6, 4)

    def gradients():
        return jax.vjp(lambda *args: ops.reassemble(*args, scale=2, kernel_size=3), x, kernels)[1](ct)

    whole = gradients()
    monkeypatch.setattr("jaxup.ops.windows._GATHER_BYTES", 3 * x[0, 0].nbytes * 9)
    assert_close(gradients(), whole, 1e-6)


@pytest.mark.thorough
def test_gradients_of_gradients():
    """The three window sums are each other's derivatives, so that second derivatives are right, too."""
    with jax.enable_x64(True):
        args = [jnp.asarray(random(*shape), jnp.float64) for shape in [(1, 2, 3, 2), (1, 4, 6, 9)]]

        def loss(x, kernels):
            return (ops.reassemble(x, kernels, scale=2, kernel_size=3) ** 3).sum()

        gradient = jax.grad(lambda *a: sum((g**2).sum() for g in jax.grad(loss, (0, 1))(*a)), (0, 1))
        analytic = gradient(*args)
        direction = [jnp.asarray(random(*a.shape[::-1]).T, jnp.float64) for a in args]

        def along(t):
            moved = [a + t * d for a, d in zip(args, direction, strict=True)]
            return sum((g**2).sum() for g in jax.grad(loss, (0, 1))(*moved))

        numeric = (along(1e-5) - along(-1e-5)) / 2e-5
        exact = sum((a * d).sum() for a, d in zip(analytic, direction, strict=True))
        np.testing.assert_allclose(numeric, exact, rtol=1e-6)


@pytest.mark.parametrize("case", goldens.cases("carafe/op__*"))
def test_golden(case):
    goldens.check(goldens.load(case))


def test_huge_kernels_and_constants():
    x = jnp.full((1, 3, 3, 2), 2.0)
    kernels = jnp.full((1, 6, 6, 9), 1e30)
    out = ops.reassemble(x, kernels, scale=2, kernel_size=3)
    np.testing.assert_allclose(out[0, 2, 2], 1.8e31, rtol=1e-6)  # the centre sees nine cells
    np.testing.assert_allclose(out[0, 0, 0], 8e30, rtol=1e-6)  # a corner four: nothing is renormalised


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=np.zeros((3, 4, 2), np.float32)), r"x: expected 4 axes \[B, H, W, C\], got shape \(3, 4, 2\)"),
        (dict(x=np.zeros((1, 3, 4, 2), np.int32)), "x: expected a floating-point type, got int32"),
        (dict(kernels=np.zeros((1, 6, 8, 8), np.float32)), r"kernels: expected shape \(1, 6, 8, 9\)"),
        (dict(kernels=np.zeros((6, 8, 9), np.float32)), "kernels: expected 4 or 5 axes"),
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
        (dict(scale=(2, 2, 2)), "scale: expected an integer or a pair of integers"),
        (dict(border="wrap"), "border: expected one of 'zeros', 'edge', 'reflect', got 'wrap'"),
        (dict(groups=3), "groups: expected a divisor of the channels of x = 2, got 3"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(1, 3, 4, 2), kernels=random(1, 6, 8, 9), scale=2, kernel_size=3)
    with pytest.raises(ValueError, match=message):
        ops.reassemble(**(good | change))
