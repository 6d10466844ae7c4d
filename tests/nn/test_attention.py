import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from jaxup.interop.backbones import Shapes
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn
from tests.oracles.attend import attention_upsample as oracle
from tests.oracles.resize import resize as resize_oracle


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_self_form_equals_the_equations():
    module, w = drawn(nn.AttentionUpsample, 5, 8, scale=2, kernel_size=5, num_heads=2, scaled=True)
    x = random(2, 3, 4, 5)
    query = resize_oracle(x @ w["query.kernel"], (6, 8), "bilinear")
    key, value = x @ w["key.kernel"], x @ w["value.kernel"]
    expected = oracle(query, key, value, (2, 2), 5, (w["px"], w["py"]), num_heads=2, scaled=True)
    assert_close(call(module, x), expected, 2e-6)


def test_joint_form_equals_the_equations():
    module, w = drawn(nn.JointAttentionUpsample, 5, 3, 8, scale=(2, 4), kernel_size=7)
    x, guide = random(2, 3, 2, 5), random(2, 6, 8, 3, seed=1)
    query, key, value = guide @ w["query.kernel"], guide @ w["key.kernel"], x @ w["value.kernel"]
    expected = oracle(query, key, value, (2, 4), 7, (w["px"], w["py"]))
    assert_close(call(module, x, guide), expected, 2e-6)


@pytest.mark.thorough
def test_kernels_give_the_outputs():
    """With values that are not projected further."""
    options = dict(scale=2, kernel_size=3, num_heads=2)
    x, guide = random(2, 3, 4, 5), random(2, 6, 8, 3, seed=1)
    blind, _ = drawn(nn.AttentionUpsample, 5, 8, **options)
    guided, _ = drawn(nn.JointAttentionUpsample, 5, 3, 8, **options)

    @nnx.jit
    def run(module, *inputs):
        kernels = module.kernels(inputs[-1])  # of the guide, where there is one
        average = ops.reassemble(module.value(inputs[0]), kernels, scale=2, kernel_size=3, groups=2)
        return average, module(*inputs)

    for average, out in (run(blind, x), run(guided, x, guide)):
        assert_close(average, out, 1e-6)


@pytest.mark.thorough  # by default those of the function
def test_golden():
    golden = goldens.load("attn_upsample/self_projected__k5_s4_heads2_scaled")
    module, _ = drawn(nn.AttentionUpsample, 5, 8, scale=4, kernel_size=5, num_heads=2, scaled=True)
    graph, state = nnx.split(module)

    def run(inputs, params):
        traced = nnx.merge(graph, state, copy=True)
        traced.query.kernel[...], traced.key.kernel[...] = params["wq"], params["wk"]
        traced.px[...], traced.py[...] = params["px"], params["py"]
        # The case's value has fewer channels than its query; zero columns keep the heads' channels together.
        value = params["wv"].reshape(5, 2, 3)
        traced.value.kernel[...] = jnp.pad(value, ((0, 0), (0, 0), (0, 1))).reshape(5, 8)
        out = traced(inputs["x"])
        return out.reshape(*out.shape[:3], 2, 4)[..., :3].reshape(*out.shape[:3], 6)

    goldens.check(golden, run)


def test_parameter_counts_are_the_papers():
    assert count(abstract(nn.AttentionUpsample, 12, 8, scale=2, kernel_size=3)) == 3 * 12 * 8 + 3 * 8
    joint = abstract(nn.JointAttentionUpsample, 12, 5, 8, scale=2, kernel_size=5)
    assert count(joint) == (2 * 5 + 12) * 8 + 5 * 8


def test_takes_the_place_of_a_deconvolution():
    x = random(1, 3, 4, 6)
    shape = lambda build: nnx.eval_shape(lambda: build(6, 4, scale=2, kernel_size=3, rngs=Shapes())(x)).shape  # noqa: E731
    assert shape(nn.AttentionUpsample) == shape(nn.Deconvolution) == (1, 6, 8, 4)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.AttentionUpsample(4, 7, scale=2, rngs=nnx.Rngs(0)), "out_features: expected an even number"),
        (lambda: nn.AttentionUpsample(4, 8, scale=2, num_heads=3, rngs=nnx.Rngs(0)), "num_heads: expected a divisor"),
        (lambda: nn.AttentionUpsample(4, 8, scale=2, kernel_size=2, rngs=nnx.Rngs(0)), "kernel_size: expected an odd"),
        (lambda: abstract(nn.AttentionUpsample, 4, 8, scale=2)(random(1, 2, 2, 5)), "x: expected shape"),
        (
            lambda: abstract(nn.JointAttentionUpsample, 4, 3, 8, scale=2)(random(1, 2, 2, 4), random(1, 4, 5, 3)),
            r"guide: expected shape \(1, 4, 4, \*\), got shape \(1, 4, 5, 3\)",
        ),
        (
            lambda: abstract(nn.JointAttentionUpsample, 4, 3, 8, scale=2)(random(1, 2, 2, 4), random(1, 4, 4, 1)),
            r"guide: expected shape \(\*, \*, \*, 3\)",
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
