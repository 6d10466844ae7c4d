import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from tests import goldens
from tests.compare import assert_close
from tests.oracles.attend import attention_upsample as oracle
from tests.oracles.resize import resize as resize_oracle


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(module):
    return {name: np.asarray(getattr(module, name).kernel[...], np.float64) for name in ("query", "key", "value")}


def test_self_form_equals_the_equations():
    module = nn.AttentionUpsample(5, 8, scale=2, kernel_size=5, num_heads=2, scaled=True, rngs=nnx.Rngs(0))
    x, w = random(2, 3, 4, 5), weights(module)
    query = resize_oracle(x @ w["query"], (6, 8), "bilinear")
    positions = np.asarray(module.px[...]), np.asarray(module.py[...])
    expected = oracle(query, x @ w["key"], x @ w["value"], (2, 2), 5, positions, num_heads=2, scaled=True)
    assert_close(module(x), expected, 2e-6)


def test_joint_form_equals_the_equations():
    module = nn.JointAttentionUpsample(5, 3, 8, scale=(2, 4), kernel_size=7, rngs=nnx.Rngs(0))
    x, guide, w = random(2, 3, 2, 5), random(2, 6, 8, 3, seed=1), weights(module)
    positions = np.asarray(module.px[...]), np.asarray(module.py[...])
    expected = oracle(guide @ w["query"], guide @ w["key"], x @ w["value"], (2, 4), 7, positions)
    assert_close(module(x, guide), expected, 2e-6)


def test_kernels_give_the_outputs():
    """With values that are not projected further."""
    options = dict(scale=2, kernel_size=3, num_heads=2, rngs=nnx.Rngs(0))
    x, guide = random(2, 3, 4, 5), random(2, 6, 8, 3, seed=1)
    blind, guided = nn.AttentionUpsample(5, 8, **options), nn.JointAttentionUpsample(5, 3, 8, **options)
    for out, value, kernels in (
        (blind(x), blind.value(x), blind.kernels(x)),
        (guided(x, guide), guided.value(x), guided.kernels(guide)),
    ):
        assert_close(ops.reassemble(value, kernels, scale=2, kernel_size=3, groups=2), out, 1e-6)


def test_golden():
    golden = goldens.load("attn_upsample/self_projected__k5_s4_heads2_scaled")
    module = nn.AttentionUpsample(5, 8, scale=4, kernel_size=5, num_heads=2, scaled=True, rngs=nnx.Rngs(0))
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
    def count(module):
        return sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))

    assert count(nn.AttentionUpsample(12, 8, scale=2, kernel_size=3, rngs=nnx.Rngs(0))) == 3 * 12 * 8 + 3 * 8
    joint = nn.JointAttentionUpsample(12, 5, 8, scale=2, kernel_size=5, rngs=nnx.Rngs(0))
    assert count(joint) == (2 * 5 + 12) * 8 + 5 * 8


def test_takes_the_place_of_a_deconvolution():
    options = dict(scale=2, kernel_size=3, rngs=nnx.Rngs(0))
    x = random(1, 3, 4, 6)
    assert nn.AttentionUpsample(6, 4, **options)(x).shape == nn.Deconvolution(6, 4, **options)(x).shape


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.AttentionUpsample(4, 7, scale=2, rngs=nnx.Rngs(0)), "out_features: expected an even number"),
        (lambda: nn.AttentionUpsample(4, 8, scale=2, num_heads=3, rngs=nnx.Rngs(0)), "num_heads: expected a divisor"),
        (lambda: nn.AttentionUpsample(4, 8, scale=2, kernel_size=2, rngs=nnx.Rngs(0)), "kernel_size: expected an odd"),
        (lambda: nn.AttentionUpsample(4, 8, scale=2, rngs=nnx.Rngs(0))(random(1, 2, 2, 5)), "x: expected shape"),
        (
            lambda: nn.JointAttentionUpsample(4, 3, 8, scale=2, rngs=nnx.Rngs(0))(
                random(1, 2, 2, 4), random(1, 4, 5, 3)
            ),
            r"guide: expected shape \(1, 4, 4, \*\), got shape \(1, 4, 5, 3\)",
        ),
        (
            lambda: nn.JointAttentionUpsample(4, 3, 8, scale=2, rngs=nnx.Rngs(0))(
                random(1, 2, 2, 4), random(1, 4, 4, 1)
            ),
            r"guide: expected shape \(\*, \*, \*, 3\)",
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
