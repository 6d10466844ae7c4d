import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, count, drawn, random, scratch
from tests.oracles.anyup import anyup
from tests.registry.examples import thorough


@pytest.mark.parametrize("case", [*goldens.cases("anyup/q*", quick=()), *goldens.cases("anyup/lfu_*")])
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.thorough
def test_back_to_torch():
    golden = goldens.load("anyup/q16_full_size")
    module = interop.from_torch("AnyUp", golden.params, golden.config)
    back = interop.to_torch("AnyUp", module, golden.config)
    assert back.keys() == golden.params.keys()
    for name, x in back.items():
        used = 0 if "out_proj" in name else 16 if name.endswith("in_proj_bias") else 32 if "in_proj" in name else None
        np.testing.assert_array_equal(x[:used], golden.params[name][:used], err_msg=name)
        assert used is None or not np.any(x[used:])  # without effect


def test_equals_the_loops():
    """The LR grid is no divisor of the image, and the output has another size than both."""
    sizes = dict(qk_features=8, kernel_size=3, unify_kernel_size=3, unify_features=16)
    module, params = drawn(nn.AnyUp, **sizes, num_heads=2, window_ratio=0.25, deviation=0.2)
    x, guide = random(2, 3, 2, 4), random(2, 7, 5, 3)
    out = jax.jit(lambda *xs: module(*xs, size=(6, 9)))(x, guide)
    assert_close(out, anyup(x, guide, params, (6, 9), 0.25, 2), 1e-4)


@pytest.mark.thorough
def test_constants_are_kept():
    """Weights sum to one; features that are all zero have no direction, which is no NaN."""
    module, _ = drawn(nn.AnyUp, qk_features=8, deviation=0.2)
    guide = jnp.asarray(random(1, 6, 4, 3))
    run = jax.jit(lambda *xs: (lambda y, pull: (y, pull(y + 1)))(*jax.vjp(module, *xs)))
    for value in (2.0, 0.0):
        out, gradients = run(jnp.full((1, 3, 2, 5), value), guide)
        assert_close(out, jnp.full((1, 6, 4, 5), value), 1e-6)
        assert_finite(gradients)


def test_parameters():
    """Six blocks of two convolutions and norms more than the layers that the docstring names."""
    block, depth = 2 * 128**2 + 4 * 128, 128
    encoders = 3 * depth + 2 * depth**2 + 9 * 2 * depth**2 + 8 * block
    unification = 25 * depth + 2 * block
    attention = 9 * depth**2 + 2 * depth + 2 * depth**2 + depth
    assert count(abstract(nn.AnyUp)) == encoders + unification + attention + 2 * depth == 844_928


# The norms, activations and convolutions of six residual blocks keep maps of 128 channels on the image's grid, each
# 0.4 times the inputs and outputs: with gradients that exceeds what the other upsamplers need.
@pytest.mark.parametrize("gradients, bound", [(False, 3.5), thorough(True, 22)])
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.AnyUp, deviation=0.1)
    used = scratch(lambda *xs: module(*xs), (1, 64, 64, 256), (1, 128, 128, 3), gradients=gradients)
    assert used <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(qk_features=12), "qk_features: expected a multiple of 8, got 12"),
        (dict(unify_features=4), "unify_features: expected a multiple of 8, got 4"),
        (dict(num_heads=3), "num_heads: expected a divisor of qk_features = 128, got 3"),
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(unify_kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(window_ratio=-1), "window_ratio: expected a number >= 0, got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.AnyUp(**options, rngs=nnx.Rngs(0))


def test_bad_maps():
    module = abstract(nn.AnyUp, qk_features=8)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, \*, \*, \*\), got shape \(2, 4, 4, 3\)"):
        module(random(1, 2, 3, 4), random(2, 4, 4, 3))
    with pytest.raises(ValueError, match="size: expected an integer >= 1, got 0"):
        module(random(1, 2, 3, 4), random(1, 4, 4, 3), size=(0, 4))


@pytest.mark.thorough
def test_state_dict_of_another_configuration():
    golden = goldens.load("anyup/q16_full_size")
    with pytest.raises(ValueError, match=r"basis: expected shape \(16, 1, 3, 3\), got shape \(16, 1, 5, 5\)"):
        interop.from_torch("AnyUp", golden.params, golden.config | {"kernel_size_lfu": 3})
