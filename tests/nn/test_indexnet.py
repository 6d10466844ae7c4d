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
from tests.oracles.index import index_network, indexed_upsample
from tests.registry.examples import thorough

FAMILIES = ("holistic", "modelwise_o2o", "shared_o2o", "unshared_o2o", "m2o")


@pytest.mark.parametrize("family", ["holistic", "unshared_o2o", "m2o"])
@pytest.mark.first(1)
def test_initial_values(family):
    """Deviation sqrt(2 / (K^2 outputs)), where the outputs are all maps of a layer, as in the official networks."""
    column = initial(nn.IndexNetwork, 64, family=family).columns[0]
    for kernel, outputs in ((column.kernel, 128), (column.mix, 4 if family == "holistic" else 64)):
        expected = np.sqrt(2 / (kernel.shape[0] ** 2 * outputs))
        assert abs(np.std(kernel[...]) / expected - 1) < 5 / np.sqrt(2 * kernel.size)


QUICK = {"aspp__os32", "holistic__nonlinear_context", "m2o__linear", "o2o__nonlinear_train"}
QUICK |= {"upsampling__depsep_holistic_idx"}


@pytest.mark.parametrize("case", goldens.cases("indexnet/*", quick=QUICK))
@pytest.mark.first(2)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "case", ["holistic__linear", "o2o__nonlinear_train", "upsampling__depsep_holistic_idx", "aspp__os32"]
)
def test_round_trip(case):
    golden = goldens.load(f"indexnet/{case}")
    operator = golden.meta["operator"]
    module = nnx.jit(lambda params: interop.from_torch(operator, params, golden.config))(golden.params)
    back = interop.to_torch(operator, module, golden.config)
    assert set(back) == set(golden.params)
    for name, x in back.items():
        np.testing.assert_array_equal(x, golden.params[name], err_msg=name)


@pytest.mark.parametrize("nonlinear, context, scale", [(False, False, (1, 3)), (True, True, (3, 2))])
@pytest.mark.parametrize("family", ["holistic", "shared_o2o", "unshared_o2o", "m2o"])
@pytest.mark.first(4)
def test_equals_the_loops(family, nonlinear, context, scale):
    options = dict(family=family, nonlinear=nonlinear, context=context)
    module, params = drawn(nn.IndexNetwork, 3, scale=scale, **options)
    module.eval()
    x = random(2, 3 * scale[0], 2 * scale[1], 3)
    assert_close(tuple(call(module, x)), tuple(index_network(x, params, scale, family)), 1e-5)


# The paper's Table 5: parameters for stages of these widths, linear, nonlinear and nonlinear with context.
STAGES = (32, 24, 32, 64, 160)
TABLE_5 = {
    "holistic": (4992, 262304, 1037984),  # +4.99K, +0.26M, +1.04M
    "modelwise_o2o": (16, 56, 152),  # +16, +56, +152
    "shared_o2o": (80, 280, 760),  # +80, +280, +760
    "unshared_o2o": (4992, 17472, 47424),  # +4.99K, +17.47K, +47.42K
    "m2o": (517120, 1297792, 4400512),  # +0.52M, +1.30M, +4.40M
}


def parameters(c, family, window, hidden):
    """Of one stage as in the docstring, hidden = 0 for linear networks."""
    inputs = {"holistic": c, "m2o": c}.get(family, 1)
    copies = c if family in ("unshared_o2o", "m2o") else 1
    if not hidden:
        return window * inputs * copies * 4
    if family == "holistic":
        return (window * c + 4) * hidden * c + 2 * hidden * c
    mixed = c if family == "m2o" else 1
    return ((window * inputs + mixed) * hidden * copies + 2 * hidden * copies) * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters(family):
    """One modelwise network serves all stages."""
    stages = STAGES[:1] if family == "modelwise_o2o" else STAGES
    forms = ((False, False), (True, False), (True, True))
    for (nonlinear, context), expected in zip(forms, TABLE_5[family], strict=True):
        build = partial(nn.IndexNetwork, family=family, nonlinear=nonlinear, context=context)
        counts = [count(abstract(build, c)) for c in stages]
        assert counts == [parameters(c, family, 16 if context else 4, 2 if nonlinear else 0) for c in stages]
        assert sum(counts) == expected


@pytest.mark.parametrize(
    "encoder, decoder",
    [("sigmoid", "sigmoid"), ("softmax", "softmax"), ("softmax+sigmoid", "softmax"), ("sigmoid+softmax", "sigmoid")],
)
def test_normalizations(encoder, decoder):
    """The rows of Table 6; what ends with softmax sums to one over each region."""
    options = dict(family="m2o", nonlinear=False)
    names = dict(encoder_normalization=encoder, decoder_normalization=decoder)
    module, logits = drawn(nn.IndexNetwork, 3, **options, **names)[0], drawn(nn.IndexNetwork, 3, **options)[0]
    x = random(1, 4, 6, 3)

    @jax.jit
    def run(x):
        z = ops.pixel_unshuffle(jax.scipy.special.logit(logits(x).decoder), scale=2).reshape(1, 2, 3, 3, 4)
        results = []
        for steps, index in zip((encoder, decoder), module(x), strict=True):
            expected = z
            for step in steps.split("+"):
                expected = nnx.sigmoid(expected) if step == "sigmoid" else nnx.softmax(expected)
            expected = ops.pixel_shuffle(expected.reshape(1, 2, 3, 12), scale=2)
            results.append((index, expected, ops.indexed_pool(jnp.ones_like(x), index)))
        return results

    for steps, (index, expected, pooled) in zip((encoder, decoder), run(x), strict=True):
        assert_close(index, expected, 1e-5)
        if steps.endswith("softmax"):
            assert_close(pooled, np.ones((1, 2, 3, 3)), 1e-6)


@pytest.mark.thorough
def test_modelwise_network_serves_every_width():
    """One function for all channels: it commutes with taking some of them."""
    module, _ = drawn(nn.IndexNetwork, 5, family="modelwise_o2o")
    module.eval()
    some, all_ = jax.jit(lambda x: (module(x[..., 1:3]).encoder, module(x).encoder))(random(1, 4, 6, 5))
    assert_close(some, np.asarray(all_)[..., 1:3], 1e-6)


@pytest.mark.parametrize("family", ["holistic", "shared_o2o"])
def test_extreme_features_are_finite(family):
    module, _ = drawn(nn.IndexNetUpsample, 3, 3, family=family)
    x, guide = random(1, 2, 3, 3), 1e4 * np.sign(random(1, 4, 6, 3))
    module.eval()
    assert_finite(jax.jit(jax.value_and_grad(lambda *xs: jnp.sum(module(*xs)), (0, 1)))(x, guide))


def test_upsample():
    """The guide may have other channels where one map is shared by all."""
    module, params = drawn(nn.IndexNetUpsample, 5, 3, scale=(2, 3))
    params = {k.removeprefix("index."): v for k, v in params.items()}
    module.eval()
    x, guide = random(2, 2, 2, 5), random(2, 4, 6, 3)
    index = index_network(guide, params, (2, 3), "holistic")[1]
    assert_close(call(module, x, guide), indexed_upsample(x, index, (2, 3)), 1e-5)


def test_decoder_block_without_indices_fuses():
    block, params = drawn(nn.IndexedUpsample, 5, 4, kernel_size=1)
    block.eval()
    x, skip = random(1, 2, 3, 3), random(1, 2, 3, 2)
    kernel, scale, bias = (params[f"blocks.0.{name}"] for name in ("conv.kernel", "norm.scale", "norm.bias"))
    normed = np.concatenate([x, skip], -1) @ kernel[0, 0] / np.sqrt(1 + 1e-5)
    assert_close(call(block, x, skip), np.clip(scale * normed + bias, 0, 6), 1e-5)


def test_parameters_of_the_decoder():
    """As in the docstrings."""
    assert count(abstract(nn.IndexedUpsample, 24, 10)) == (25 * 24 + 2) * 10
    assert count(abstract(nn.IndexedUpsample, 24, 10, separable=True)) == 27 * 24 + 26 * 10
    aspp = count(abstract(nn.ASPP, 6, 5, branch_features=4))
    assert aspp == 2 * 8 * 4 + 3 * (11 * 6 + 8 * 4) + (5 * 4 + 2) * 5


@pytest.mark.thorough
def test_aspp_drops_out_only_with_a_source():
    aspp = initial(nn.ASPP, 3, 64, branch_features=4, dilations=())
    apply = nnx.jit(lambda m, x, rngs: m(x, rngs=rngs))
    x = random(2, 3, 4, 3)
    kept, dropped = apply(aspp, x, None), apply(aspp, x, nnx.Rngs(dropout=0))
    assert np.all((dropped == 0) | np.isclose(dropped, 2 * kept))
    assert 0.4 < np.mean((dropped == 0) & (kept != 0)) / np.mean(kept != 0) < 0.6


@pytest.mark.parametrize(
    "options, bounds",
    [
        (dict(), (0.5, 1)),
        (dict(family="unshared_o2o"), (3.5, 8)),
        thorough(dict(family="m2o"), (2, 4.5)),
    ],
    ids=["holistic", "unshared_o2o", "m2o"],
)
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.first(1, 2)
def test_scratch_memory(options, bounds, gradients):
    graph, state = nnx.split(drawn(nn.IndexNetUpsample, 256, 256, **options, deviation=0.1)[0])

    def up(x, guide):
        return nnx.merge(graph, state, copy=True)(x, guide)  # training mode

    used = scratch(up, (1, 64, 64, 256), (1, 128, 128, 256), gradients=gradients)
    assert used <= bounds[gradients], used


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(family="o2m"), "family: expected one of 'holistic', .*, got 'o2m'"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
        (dict(expansion=0), "expansion: expected an integer >= 1, got 0"),
        (dict(encoder_normalization="tanh"), "encoder_normalization: expected one of 'sigmoid', .*, got 'tanh'"),
        (dict(decoder_normalization="relu"), "decoder_normalization: expected one of 'sigmoid', .*, got 'relu'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.IndexNetwork(4, **options, rngs=nnx.Rngs(0))


def test_bad_inputs():
    network = abstract(nn.IndexNetwork, 4)
    with pytest.raises(ValueError, match="scale: expected a divisor of width = 5, got 2"):
        network(jnp.ones((1, 4, 5, 4)))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 4\), got shape \(1, 4, 6, 3\)"):
        network(jnp.ones((1, 4, 6, 3)))
    with pytest.raises(ValueError, match="guide_features: expected in_features = 4 for one map per channel, got 3"):
        nn.IndexNetUpsample(4, 3, family="m2o", rngs=nnx.Rngs(0))
    up = abstract(nn.IndexNetUpsample, 4, 4)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, 4\), got shape \(1, 4, 4, 4\)"):
        up(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 4, 4, 4)))
    with pytest.raises(ValueError, match=r"skip: expected shape \(1, 2, 3, 4\), got shape \(1, 2, 3, 5\)"):
        abstract(nn.IndexedUpsample, 8, 4)(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3, 5)))


def test_state_dict_of_another_configuration():
    golden = goldens.load("indexnet/m2o__nonlinear_context")
    with pytest.raises(
        ValueError, match=r"indexnet1.0.weight: expected shape \(6, 6, 2, 2\), got shape \(6, 6, 4, 4\)"
    ):
        interop.from_torch("DepthwiseM2OIndexBlock", golden.params, golden.config | {"use_context": False})
