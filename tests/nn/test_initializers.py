import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.nn import initializers

CASES = {
    "normal": (initializers.normal(0.02), nnx.initializers.normal(0.02), (3, 5)),
    "one": (initializers.normal(3.0), nnx.initializers.normal(3.0), (1, 1)),
    "fan out": (
        initializers.variance_scaling(2.0, "fan_out", "normal"),
        nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        (3, 3, 4, 7),
    ),
    "truncated": (initializers.truncated_normal(0.02), nnx.initializers.truncated_normal(0.02), (57, 31)),
    "fan in": (initializers.he_normal(), nnx.initializers.he_normal(), (3, 3, 4, 7)),
    "default": (initializers.lecun_normal(), nnx.nn.linear.default_kernel_init, (257, 257)),
    "fan average": (initializers.xavier_uniform(), nnx.initializers.xavier_uniform(), (5, 3, 2, 7)),
}


@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_flax(case):
    """Also of rows of more than 2^16 values."""
    ours, theirs, shape = CASES[case]
    key = jax.random.key(3)
    value = ours(key, shape, jnp.float32)
    assert isinstance(value, jax.Array) and value.dtype == jnp.float32 and value.shape == shape
    np.testing.assert_array_equal(value, theirs(key, shape, jnp.float32))


def test_few_programs(caplog):
    """Shapes of a kind share one."""
    init, key = initializers.normal(0.5), jax.random.key(0)
    init(key, (2, 3))
    with jax.log_compiles():
        for shape in ((7,), (5, 3), (3, 3, 2, 11), (200, 300)):
            init(key, shape)
    assert not [record for record in caplog.records if "Compiling" in record.message]


def test_traced_and_other_types():
    """Where values are traced or not float32, it is Flax's function itself."""
    init, key = initializers.normal(0.5), jax.random.key(0)
    assert jax.eval_shape(lambda key: init(key, (4, 3)), key).shape == (4, 3)
    assert init(key, (2, 3), jnp.bfloat16).dtype == jnp.bfloat16
    assert init(key, (0, 3)).shape == (0, 3)


def test_equal_and_pickled():
    """So that networks that are built twice have one graph and share their compiled functions."""
    init = initializers.he_normal()
    assert init == initializers.he_normal() != initializers.lecun_normal()
    assert pickle.loads(pickle.dumps(init)) == init
