from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, random, scratch


@pytest.mark.parametrize("case", goldens.cases("pac/*", quick={"convt_k3_s2_normalized"}))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize("case", ["convt_k5_s2", "joint_4x_small"])
def test_round_trip(case):
    golden = goldens.load(f"pac/{case}")
    operator = golden.meta["operator"]
    module = nnx.jit(lambda params: interop.from_torch(operator, params, golden.config))(golden.params)
    back = interop.to_torch(operator, module, golden.config)
    assert set(back) == set(golden.params)
    for name, x in golden.params.items():
        np.testing.assert_array_equal(back[name], 0 * x if name == "branch_g.conv3.bias" else x)  # without effect


def test_under_a_constant_guide_it_is_a_deconvolution():
    options = dict(scale=(2, 3), kernel_size=5)
    module, _ = drawn(nn.PacConvTranspose, 3, 4, **options)
    plain = abstract(nn.Deconvolution, 3, 4, use_bias=True, **options)
    nnx.update(plain, nnx.state(module))
    x = random(1, 3, 2, 3)
    assert_close(call(module, x, np.full((1, 6, 6, 2), 7, np.float32)), call(plain, x), 1e-5)


def test_shared_filters():
    """Each channel by itself, all by the same filter."""
    options = dict(scale=2, kernel_size=3, shared_filters=True, use_bias=False)
    module, params = drawn(nn.PacConvTranspose, 3, 3, **options)
    x, guide = random(1, 3, 2, 3), random(1, 6, 4, 2)
    filters = np.float32(params["kernel"] * np.eye(3))
    assert_close(call(module, x, guide), jax.jit(partial(ops.pac_conv_transpose, scale=2))(x, guide, filters), 1e-5)


@pytest.mark.thorough
def test_joint_network_doubles_as_often_as_it_should():
    module = abstract(nn.PacJointUpsample, 2, 3, scale=4, features=4, key_features=2, kernel_size=3)
    assert len(module.doublings) == 2
    maps = jnp.ones((1, 1, 2, 2)), jnp.ones((1, 4, 8, 3))
    assert nnx.eval_shape(lambda m, *xs: m(*xs), module, *maps).shape == (1, 4, 8, 2)


def test_parameters():
    convolution = lambda **options: count(abstract(nn.PacConvTranspose, 256, 256, scale=2, **options))  # noqa: E731
    assert convolution() == 25 * 256**2 + 256
    assert convolution(shared_filters=True) == 25 + 256
    network = abstract(nn.PacJointUpsample, 1, 3, scale=4)
    assert count(network) == 25 * 32 * (2 + 3 + 4 * 32 + 2 * 16) + 6 * 32 + 1 + 2 * (25 * 32**2 + 32)


@pytest.mark.parametrize("gradients, bound", [(False, 1.5), (True, 3.5)])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.first(1, 2)
def test_scratch_memory(shared, gradients, bound):
    module, _ = drawn(nn.PacConvTranspose, 256, 256, scale=2, shared_filters=shared)
    assert scratch(module, (1, 64, 64, 256), (1, 128, 128, 16), gradients=gradients) <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
        (dict(shared_filters=True), "out_features: expected in_features = 3 where filters are shared, got 4"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.PacConvTranspose(3, 4, **(dict(scale=2, rngs=nnx.Rngs(0)) | options))


def test_bad_network():
    with pytest.raises(ValueError, match="scale: expected a power of two, got 6"):
        nn.PacJointUpsample(1, 3, scale=6, rngs=nnx.Rngs(0))
    module = abstract(nn.PacJointUpsample, 1, 3, scale=2, features=4)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, \*\), got shape \(1, 4, 4, 3\)"):
        module(random(1, 2, 3, 1), random(1, 4, 4, 3))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(padding=1), "config: expected padding = 2, got 1"),
        (dict(kernel_type="inv"), "config: expected kernel_type = 'gaussian', got 'inv'"),
        (dict(kernel_size=3, padding=1), r"weight: expected shape \(3, 4, 3, 3\)"),
    ],
)
def test_configs_that_do_not_fit(change, message):
    golden = goldens.load("pac/convt_k5_s2")
    with pytest.raises(ValueError, match=message):
        interop.from_torch("PacConvTranspose2d", golden.params, golden.config | change)
