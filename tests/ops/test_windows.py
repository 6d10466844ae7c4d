"""What windows are summed with."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup.ops import windows


def test_sums_by_halves_of_16_bits_round_once():
    """Forward, and behind maps of one channel backward: not after every halving."""
    x = jnp.asarray(np.random.default_rng(0).random((5, 256)), jnp.bfloat16)
    once = x.astype(jnp.float32).sum(-1).astype(jnp.bfloat16)
    assert jnp.array_equal(windows.sum_by_halves(x), once)
    back = jax.vjp(lambda g: windows.to_channels(g, 256), jnp.zeros((5, 1), jnp.bfloat16))[1]
    assert jnp.array_equal(back(x)[0][:, 0], once)
