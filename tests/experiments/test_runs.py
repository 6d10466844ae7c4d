"""Runs by label, and networks as compiled functions."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.engine.runs import jitted, parameters, unique


def test_labels_are_unique():
    places = [Path("a/x"), Path("b/x"), Path("c"), Path("d")]
    assert unique(["p", "q", "r", "s"], places) == ["p", "q", "r", "s"]
    assert unique(["p", "p", "r", "r"], places) == ["p (a/x)", "p (b/x)", "r (c)", "r (d)"]
    assert unique(["p", "p", "r", "r"], places, [("p", 2), ("p", 4), "r", "r"]) == ["p", "p", "r (c)", "r (d)"]


traced = []


def doubled(network, x):
    traced.append(x.shape)
    return 2 * network(x)


def test_networks_of_one_structure_compile_once():
    networks = [nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in range(2)]
    assert parameters(networks[0]) == 9
    x = jnp.ones((4, 2))
    for network in networks:
        np.testing.assert_allclose(jitted(network)(x), network(x), rtol=1e-6)
        np.testing.assert_allclose(jitted(network, doubled)(x), 2 * network(x), rtol=1e-6)
    assert traced == [(4, 2)]


def test_a_function_may_change_its_copy_only():
    norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    jitted(norm)(jnp.arange(8.0).reshape(4, 2))
    assert not norm.mean[...].any()
