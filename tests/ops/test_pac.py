import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests.compare import assert_close, assert_finite
from tests.modules import random
from tests.oracles.pac import pac_conv_transpose as oracle


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(
    "grid, scale, size, shared",
    [((3, 2), (2, 2), 5, False), ((2, 3), (2, 3), 3, True), ((1, 1), (4, 4), 3, False)],
    ids=["even", "shared", "empty windows"],
)
def test_equals_the_loops(grid, scale, size, shared, normalised):
    x, guide = random(2, *grid, 3), random(2, scale[0] * grid[0], scale[1] * grid[1], 2)
    kernel = random(size, size, *((1, 1) if shared else (3, 4)))
    actual = ops.pac_conv_transpose(x, guide, kernel, scale=scale, normalize_kernel=normalised)
    assert_close(actual, oracle(x, guide, kernel, scale, normalised), 1e-5)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.first(1)
def test_far_features_are_finite(normalised):
    """All likeness underflows away from the samples: normalised, the nearest in the guide still counts."""
    x, guide, kernel = jnp.ones((1, 3, 3, 2)), 1e4 * jnp.asarray(random(1, 6, 6, 2)), jnp.ones((3, 3, 1, 1))
    run = lambda *args: ops.pac_conv_transpose(*args, scale=2, normalize_kernel=normalised)  # noqa: E731
    out, pullback = jax.vjp(run, x, guide, kernel)
    assert_finite((out, pullback(out)))
    np.testing.assert_allclose(out.min(), 1 if normalised else 0)


def test_large_guides_do_not_cancel():
    x, guide, kernel = random(1, 3, 3, 2), random(1, 6, 6, 2), random(3, 3, 1, 1)
    near = ops.pac_conv_transpose(x, guide, kernel, scale=2)
    far = ops.pac_conv_transpose(x, np.float32(1024) + guide, kernel, scale=2)
    assert_close(far, near, 1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(guide=random(1, 6, 4, 2)), r"guide: expected shape \(1, 6, 6, \*\), got shape \(1, 6, 4, 2\)"),
        (dict(kernel=random(3, 5, 2, 4)), r"kernel: expected shape \(3, 3, 2, \*\), got shape \(3, 5, 2, 4\)"),
        (dict(kernel=random(3, 3, 3, 4)), r"kernel: expected shape \(3, 3, 2, \*\), got shape \(3, 3, 3, 4\)"),
        (dict(kernel=random(2, 2, 2, 4)), "kernel: expected an odd integer, got 2"),
        (dict(kernel=random(3, 3, 2)), r"kernel: expected 4 axes \[K, K, Cin, Cout\]"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
    ],
)
def test_bad_input(change, message):
    good = dict(x=random(1, 3, 3, 2), guide=random(1, 6, 6, 5), kernel=random(3, 3, 2, 4), scale=2)
    with pytest.raises(ValueError, match=message):
        ops.pac_conv_transpose(**(good | change))
