"""Modules go to worker processes and into copies: pickle and deepcopy of every module, with what it computes."""

import copy
import math
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn
from tests.modules import on_device, random
from tests.registry import MODULES
from tests.registry.examples import thorough, tiered

COPIES = {"pickle": lambda module: pickle.loads(pickle.dumps(module)), "deepcopy": copy.deepcopy}
each_way = pytest.mark.parametrize("copied", [COPIES["pickle"], thorough(COPIES["deepcopy"])], ids=COPIES)


def filled(build):
    """The module with numbers from NumPy: its initialisers would have to be compiled, one by one."""
    module = nnx.eval_shape(build)

    def fill(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return on_device(np.linspace(0.1, 1, math.prod(x.shape)).reshape(x.shape), x.dtype)

    nnx.update(module, jax.tree.map(fill, nnx.state(module)))
    return module


def numbers(state):
    """The arrays by path; of random generators the bits."""
    flat = nnx.to_flat_state(jax.tree.map(_bits, state))
    return {path: np.asarray(variable.get_value()) for path, variable in flat}


def _bits(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@each_way
@pytest.mark.parametrize("example", tiered(MODULES), ids=lambda example: example.name)
def test_every_module(example, copied):
    """The same structure, options and state: the definition of the module, which compiled functions go by, is equal."""
    module = filled(example.new)
    (graph, state), (other, copied_state) = nnx.split(module), nnx.split(copied(module))
    assert graph == other
    assert hash(graph) == hash(other)
    before, after = numbers(state), numbers(copied_state)
    assert before.keys() == after.keys()
    for path, x in before.items():
        np.testing.assert_array_equal(after[path], x)


@pytest.mark.parametrize("activation", [nnx.relu6, nnx.gelu, partial(nnx.leaky_relu, negative_slope=0.1), jnp.tanh])
@pytest.mark.first(1)
def test_functions_as_options(activation):
    """Whether `jax.jit` made them or not, and with arguments bound."""
    module = filled(lambda: nn.IndexNetwork(4, activation=activation, rngs=nnx.Rngs(0)))
    x = jnp.asarray(random(1, 4, 6, 4))
    for copied in COPIES.values():
        np.testing.assert_array_equal(copied(module)(x).decoder, module(x).decoder)


def test_local_functions_still_serve():
    """They cannot be pickled, but nothing else is lost."""
    module = filled(lambda: nn.IndexNetwork(4, activation=lambda x: x, rngs=nnx.Rngs(0)))
    module.eval()
    assert jax.eval_shape(module, jnp.zeros((1, 4, 6, 4))).decoder.shape == (1, 4, 6, 1)
