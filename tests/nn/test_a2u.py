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
from tests.oracles.a2u import a2u_kernels as oracle

CASES = ["share_k6_s3", "unshare_k5_s3"]


def load(case):
    golden = goldens.load(f"a2u/{case}")
    return golden, lambda params: {name.removeprefix("block."): x for name, x in params.items()}


@pytest.mark.parametrize("case", goldens.cases("a2u/*share*", quick={"share_k6_s3"}))
@pytest.mark.thorough
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    golden, named = load(case)
    module = interop.from_torch("InterChannelUpDown", named(golden.params), golden.config)
    back = interop.to_torch("InterChannelUpDown", module, golden.config)
    assert set(back) == set(named(golden.params))
    for name, x in named(golden.params).items():
        np.testing.assert_array_equal(back[name], x)


@pytest.mark.parametrize(
    "grid, size, options",
    [
        ((3, 2), 4, dict(groups=2, shared=False)),
        ((2, 3), 5, dict(rank=2, filters="hybrid")),
        ((1, 1), 3, dict(rank=2, filters="static", shared=False)),
        ((1, 2), 2, dict(groups=2, filters="static", interleaved=True)),
    ],
    ids=["dynamic", "hybrid", "static", "interleaved"],
)
@pytest.mark.first(2)
def test_equals_the_loops(grid, size, options):
    module, params = drawn(nn.A2UKernels, 4, encoder_kernel_size=size, norm_groups=2, **options)
    x = random(2, 2 * grid[0], 2 * grid[1], 4)
    expected = oracle(x, params, size, options.get("rank", 1), options.get("groups", 1), 2, "interleaved" in options)
    assert_close(tuple(call(module, x)), expected, 1e-5)


def test_softmax_alone():
    """Its kernels may be as sharp as they will, which the sigmoid before the softmax forbids."""
    x = 5 * random(1, 4, 6, 4)
    options = dict(encoder_kernel_size=2, norm_groups=2, filters="static")
    names = "sigmoid+softmax", "softmax"
    both = [drawn(nn.A2UKernels, 4, up_normalization=n, deviation=1.0, **options)[0] for n in names]
    kernels = [jax.tree.map(np.asarray, call(module, x)) for module in both]
    blurred, sharp = (k.up for k in kernels)
    np.testing.assert_array_equal(kernels[0].down, kernels[1].down)
    assert_close(sharp.sum(-1), np.ones(sharp.shape[:-1]), 1e-5)
    assert blurred.max() <= 0.2537 < 0.5 < sharp.max()  # e / (e + 8)
    logits = np.log(sharp)
    # Up to a constant per kernel, which the softmax loses, the logits are those that the sigmoid sees.
    profile, affinity = nnx.jit(lambda m, x: (m.up(x.mean((1, 2))).reshape(9, 4), m.affinity(x)[0, ..., 0]))(both[1], x)
    profile, affinity = np.asarray(profile), np.asarray(affinity)
    expected = affinity[:, None, :, None, None] * profile.T.reshape(2, 2, 9)[None, :, None]
    centred = lambda y: y - y.mean(-1, keepdims=True)  # noqa: E731
    assert_close(centred(logits[0, :, :, 0]), centred(expected.reshape(4, 6, 9)), 1e-4)


def test_initial_values():
    """Xavier's with the gain of the leaky ReLU, sqrt(2 / (1 + 0.01^2)), as the official code has; no biases."""
    module = initial(nn.A2UKernels, 64, kernel_size=5, shared=False)
    gain = np.sqrt(2 / (1 + 0.01**2))
    for layer in (module.up, module.down, module.affinity.terms[0][0].filters, module.affinity.terms[0][1].filters):
        kernel = np.asarray(layer.kernel[...]).reshape(-1, layer.kernel.shape[-1])
        deviation = gain * np.sqrt(2 / sum(kernel.shape))
        assert abs(kernel.std() / deviation - 1) < 5 / np.sqrt(2 * kernel.size)
        assert np.abs(kernel).max() > 2.5 * deviation  # not truncated
        assert not np.any(layer.bias[...])


@pytest.mark.thorough
def test_modules_use_the_kernels():
    """The same parameters give the same kernels."""
    options = dict(groups=2, encoder_kernel_size=2, norm_groups=2, filters="static")
    kernels = drawn(nn.A2UKernels, 4, **options)[0]
    up, down = drawn(nn.A2UUpsample, 6, 4, **options)[0], drawn(nn.A2UDownsample, 4, **options)[0]
    for module, head in ((up, kernels.up), (down, kernels.down)):
        nnx.update(module.affinity, nnx.state(kernels.affinity))
        nnx.update(module.head, nnx.state(head))
    x, guide = random(1, 2, 3, 6), random(1, 4, 6, 4)
    both = call(kernels, guide)
    of_up, upsampled = nnx.jit(lambda m, x, guide: (m.kernels(guide), m(x, guide)))(up, x, guide)
    assert_close(of_up, both.up, 1e-6)
    expected = jax.jit(partial(ops.reassemble, scale=2, kernel_size=3, groups=2))(x, both.up)
    assert_close(upsampled, expected, 1e-5)
    expected = jax.jit(partial(ops.downsample_reassemble, scale=2, kernel_size=6, groups=2))(guide, both.down)
    assert_close(call(down, guide), expected, 1e-5)


@pytest.mark.thorough
def test_kernels_sum_to_one_also_where_scores_are_extreme():
    """All but a single entry, which the sigmoid weighs alone."""
    module, _ = drawn(nn.A2UKernels, 4, encoder_kernel_size=2, norm_groups=2)
    for head in (module.up, module.down):
        head.bias[...] = 1e4 * jnp.sign(random(*head.bias.shape))
    x = random(1, 4, 4, 4)
    kernels, gradient = jax.jit(lambda x: (lambda y, pull: (y, pull(y)))(*jax.vjp(module, x)))(x)
    for k in kernels:
        np.testing.assert_allclose(np.sum(k, -1), 1, rtol=1e-5)
    assert_finite(gradient)
    assert 0.2 < np.max(kernels.up) <= np.e / (np.e + 8) + 1e-6  # the softmax of values from 0 to 1
    single, _ = drawn(nn.A2UKernels, 4, kernel_size=1, encoder_kernel_size=2, norm_groups=2)
    assert np.all(np.asarray(call(single, x).up) < 1)


def test_parameters():
    kernels = lambda **options: count(abstract(nn.A2UKernels, 256, **options))  # noqa: E731
    heads = 2 * 257 * 36
    assert kernels() == 2 * 257 + 4 * 256 + heads
    assert kernels(shared=False, rank=2) == 2 * (2 * 257 * 256 + 4 * 256) + heads
    assert kernels(filters="hybrid") == 36 + 257 + 4 * 256 + heads
    assert count(abstract(nn.A2UUpsample, 8, 256)) == 2 * 257 + 4 * 256 + heads // 2


@pytest.mark.parametrize("gradients, bound", [(False, 1.0), (True, 6.5)])
@pytest.mark.first(1)
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.A2UUpsample, 256, 256)
    assert scratch(module, (1, 64, 64, 256), (1, 128, 128, 256), gradients=gradients) <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(encoder_kernel_size=0), "encoder_kernel_size: expected an integer >= 1, got 0"),
        (dict(filters="fixed"), "filters: expected one of 'dynamic', 'hybrid', 'static', got 'fixed'"),
        (dict(rank=0), "rank: expected an integer >= 1, got 0"),
        (dict(norm_groups=3), "norm_groups: expected a divisor of the features = 4, got 3"),
        (dict(up_normalization="sigmoid"), "up_normalization: expected one of .*, got 'sigmoid'"),
        (
            dict(up_normalization="softmax", kernel_size=1),
            "up_normalization: expected 'sigmoid.softmax' for kernels of one",
        ),
        (dict(groups=4), "groups: expected a divisor of in_features = 6, got 4"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.A2UUpsample(6, 4, **(dict(norm_groups=2, rngs=nnx.Rngs(0)) | options))


def test_bad_maps():
    module = abstract(nn.A2UUpsample, 6, 4, norm_groups=2)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, \*\), got shape \(1, 4, 4, 4\)"):
        module(random(1, 2, 3, 6), random(1, 4, 4, 4))
    with pytest.raises(ValueError, match="scale: expected a divisor of the width of x = 5, got 2"):
        abstract(nn.A2UDownsample, 4, norm_groups=2)(random(1, 4, 5, 4))


def test_state_dicts_that_do_not_fit():
    golden, named = load("share_k6_s3")
    with pytest.raises(ValueError, match=r"bconv_U\.1\.weight: expected shape \(32, 32, 1, 1\)"):
        interop.from_torch("InterChannelUpDown", named(golden.params), golden.config | {"share": False})
    with pytest.raises(ValueError, match=r"bconv_UP\.1\.weight: expected shape \(72, 32, 1, 1\)"):
        interop.from_torch("InterChannelUpDown", named(golden.params), golden.config | {"downupsample_group": 2})
