from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, drawn, initial, random, scratch
from tests.oracles.carafe import carafe as oracle


@pytest.mark.parametrize("case", goldens.cases("carafe/pack__*", quick={"pack__k3_g2_s2", "pack__k3_s3_enc1"}))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "grid, scale, kernel_size, groups, encoder_kernel_size, dilation",
    [
        ((3, 4), (2, 2), 5, 1, 3, 1),
        ((4, 3), (2, 3), 3, 3, 3, 2),  # the dilated taps reach beyond both borders
        ((1, 1), (4, 4), 3, 2, 1, 1),
        ((1, 5), (1, 2), 1, 6, 5, 1),
    ],
)
def test_equals_the_loops(grid, scale, kernel_size, groups, encoder_kernel_size, dilation):
    module, params = drawn(
        nn.CARAFE,
        6,
        scale=scale,
        kernel_size=kernel_size,
        groups=groups,
        encoder_kernel_size=encoder_kernel_size,
        encoder_dilation=dilation,
        compressed_features=4,
    )
    x = random(2, *grid, 6)
    assert_close(call(module, x), oracle(x, params, scale, kernel_size, groups, dilation), 1e-5)


def test_parameters():
    """64 compressed channels, a 3 x 3 encoder and 5 x 5 kernels."""
    assert count(abstract(nn.CARAFE, 256, scale=2)) == 256 * 64 + 64 + (9 * 64 + 1) * 25 * 4


def test_kernels_give_the_outputs():
    module, _ = drawn(nn.CARAFE, 4, scale=2, kernel_size=3, groups=2)
    x = random(2, 3, 4, 4)
    kernels, out = nnx.jit(lambda m, x: (m.kernels(x), m(x)))(module, x)
    np.testing.assert_allclose(np.sum(kernels, -1), 1, rtol=1e-6)
    assert_close(out, jax.jit(partial(ops.reassemble, scale=2, kernel_size=3, groups=2))(x, kernels), 1e-6)


def test_constants_are_kept_inside():
    """The weights of a window sum to one; those that fall outside the image are lost."""
    module, _ = drawn(nn.CARAFE, 4, scale=2, kernel_size=3, deviation=0.1)
    out = np.asarray(call(module, np.ones((1, 4, 5, 4), np.float32)))
    assert_close(out[:, 2:-2, 2:-2], np.ones((1, 4, 6, 4)), 1e-5)
    assert np.all(out[:, 0] < 1 - 1e-4)


def test_starts_as_the_mean_of_the_window():
    """Initial scores are nearly equal."""
    x = random(1, 4, 5, 3)
    module = initial(nn.CARAFE, 3, scale=2, kernel_size=3)
    mean = jax.jit(partial(ops.reassemble, scale=2, kernel_size=3))(x, np.full((1, 8, 10, 9), 1 / 9, np.float32))
    assert_close(call(module, x), mean, 0.02)


def test_extreme_scores_are_finite():
    module, _ = drawn(nn.CARAFE, 3, scale=2, kernel_size=3)
    module.encoder.bias[...] = 1e4 * jnp.sign(random(36))
    x = jnp.asarray(random(1, 4, 5, 3))
    assert_finite(nnx.jit(nnx.value_and_grad(lambda m, x: jnp.sum(m(x)), argnums=(0, 1)))(module, x))


@pytest.mark.parametrize("gradients, bound", [(False, 1.5), (True, 3.5)])
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.CARAFE, 256, scale=2)
    assert scratch(module, (1, 64, 64, 256), gradients=gradients) <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(groups=4), "groups: expected a divisor of in_features = 6, got 4"),
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(encoder_kernel_size=2), "encoder_kernel_size: expected an odd integer, got 2"),
        (dict(encoder_dilation=0), "encoder_dilation: expected an integer >= 1, got 0"),
        (dict(compressed_features=0), "compressed_features: expected an integer >= 1, got 0"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.CARAFE(6, **(dict(scale=2, rngs=nnx.Rngs(0)) | options))


def test_bad_input():
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 6\), got shape \(1, 3, 4, 5\)"):
        abstract(nn.CARAFE, 6, scale=2)(jnp.ones((1, 3, 4, 5)))


def test_state_dict_of_another_configuration():
    golden = goldens.load("carafe/pack__k5_s2")
    with pytest.raises(ValueError, match=r"content_encoder.weight: expected shape \(36, 6, 3, 3\)"):
        interop.from_torch("CARAFEPack", golden.params, golden.config | {"up_kernel": 3})
