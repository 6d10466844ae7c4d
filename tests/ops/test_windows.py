"""What windows are summed with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup.ops import windows
from tests.compare import assert_close


@pytest.mark.parametrize("least", [0, 1, 3])
@pytest.mark.parametrize("channels", [1, 2, 7, 12, 33, 64, 256])
def test_sums_by_halves_are_sums(channels, least):
    """Values and gradients, also of channels that no halving ends at."""
    x = np.random.default_rng(channels).standard_normal((3, channels)).astype(np.float32)
    total, back = jax.vjp(lambda x: windows.sum_by_halves(x, least), x)
    assert_close(total, x.astype(np.float64).sum(-1), 1e-6)
    assert_close(back(total)[0], np.broadcast_to(np.asarray(total)[:, None], x.shape), 1e-6)


def test_sums_by_halves_of_16_bits_round_once():
    """Forward, and behind maps of one channel backward: not after every halving."""
    x = jnp.asarray(np.random.default_rng(0).random((5, 256)), jnp.bfloat16)
    once = x.astype(jnp.float32).sum(-1).astype(jnp.bfloat16)
    assert jnp.array_equal(windows.sum_by_halves(x), once)
    back = jax.vjp(lambda g: windows.to_channels(g, 256), jnp.zeros((5, 1), jnp.bfloat16))[1]
    assert jnp.array_equal(back(x)[0][:, 0], once)
