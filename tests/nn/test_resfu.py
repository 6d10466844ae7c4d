from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from jaxup.interop.backbones import Shapes
from jaxup.nn.resfu import PCDCBlock
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, drawn, random, scratch
from tests.oracles.resfu import guided_filter, resfu
from tests.registry.examples import marked, thorough

SMALL = dict(embedding_features=8, norm_groups=4, radius=2)


QUICK = {"module__s2_k3", "pcdc__k3_s2", "guided_filter__r4_scale1"}


@pytest.mark.parametrize(
    "case",
    [name for kind in ("module", "pcdc", "guided_filter") for name in goldens.cases(f"resfu/{kind}__*", quick=QUICK)],
)
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["module__s2_k3", thorough("module__s4_k3")])
def test_golden_intermediate_results(case):
    golden = goldens.load(f"resfu/{case}")
    graph, state = nnx.split(interop.from_torch("ReSFU", golden.params, golden.config))

    def run(x, guide):
        module = nnx.merge(graph, state)
        query, key = module.query_and_key(x, guide)
        aligned = module.align(key, query)
        detail = module.detail_scores(ops.gaussian_filter(query, sigma=1.0, radius=1), query)
        return {"GF": aligned, "semantic_scores": module.semantic_scores(key, aligned), "detail_scores": detail}

    goldens.check_values(golden, jax.jit(run)(golden.inputs["x"], golden.inputs["y"]), "mid")


def test_back_to_torch():
    golden = goldens.load("resfu/module__s2_k3")
    module = interop.from_torch("ReSFU", golden.params, golden.config)
    back = interop.to_torch("ReSFU", module, golden.config)
    assert back.keys() == golden.params.keys()
    for name, x in back.items():
        expected = 0 if name.endswith("_scores.norm.bias") else golden.params[name]  # without effect
        np.testing.assert_array_equal(x, np.broadcast_to(expected, x.shape), err_msg=name)


@pytest.mark.parametrize("size, step", [((5, 7), 1), ((5, 7), 2), ((1, 4), 3)], ids=str)
def test_guided_filter_equals_the_loops(size, step):
    src, guide = random(2, *size, 3), random(2, *size, 3)[::-1]
    run = jax.jit(partial(ops.guided_filter, radius=3, eps=1e-2, per_channel=True, subsample=step))
    assert_close(run(src, guide), guided_filter(src, guide, 3, 1e-2, step), 1e-5)


@pytest.mark.parametrize("form, scale, step", [("paper", (2, 3), 1), ("official", (3, 1), 2)])
@pytest.mark.first(1)
def test_equals_the_loops(form, scale, step):
    module, params = drawn(nn.ReSFU, 5, 3, scale=scale, groups=2, subsample=step, form=form, **SMALL)
    x, guide = random(1, 2, 3, 5), random(1, 2 * scale[0], 3 * scale[1], 3)
    expected = resfu(x, guide, params, scale, 3, 2, 4, 2, 1e-3, step, form == "official")
    assert_close(call(module, x, guide), expected, 2e-5)


# Tables V to VII of the paper, with the form of its text or of its code.
ABLATIONS = [
    dict(detail=False, align=False, form="official"),
    dict(semantic=False, smooth=False),
    dict(similarity="inner", form="official"),
    dict(similarity="conv"),
    dict(fine_neighbours=False, form="official"),
]


@pytest.mark.parametrize("options", marked(ABLATIONS, ABLATIONS[:3]), ids=str)
@pytest.mark.first(1)
def test_ablations_equal_the_loops(options):
    module, params = drawn(nn.ReSFU, 5, 3, scale=(2, 3), groups=2, **options, **SMALL)
    x, guide = random(1, 2, 3, 5), random(1, 4, 9, 3)
    of_form = dict(official=options.get("form") == "official")
    others = {key: value for key, value in options.items() if key != "form"}
    expected = resfu(x, guide, params, (2, 3), 3, 2, 4, 2, 1e-3, 1, **of_form, **others)
    assert_close(call(module, x, guide), expected, 2e-5)


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_types_of_ablations(options):
    """What comes in 16 bits leaves so."""

    def run(x, guide):
        return nn.ReSFU(5, 3, scale=2, **options, dtype=jnp.bfloat16, rngs=Shapes(), **SMALL)(x, guide)

    shapes = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((1, 2, 3, 5), (1, 4, 6, 3)))
    y = nnx.eval_shape(run, *shapes)
    assert (y.shape, y.dtype) == ((1, 4, 6, 5), jnp.bfloat16)


@pytest.mark.thorough
def test_kernels_give_the_outputs():
    up, _ = drawn(nn.ReSFU, 4, 3, scale=2, form="official", **SMALL)
    x, guide = random(1, 4, 5, 4), random(1, 8, 10, 3)
    kernels, scores, out = nnx.jit(lambda m, *xs: (m.kernels(*xs), m.scores(*xs), m(*xs)))(up, x, guide)
    average = jax.jit(partial(ops.fine_neighbour_attention, scale=2, kernel_size=3))
    assert_close(average(x, kernels), out, 1e-5)
    inside = np.s_[:, 2:-2, 2:-2]  # where all neighbours count
    expected = jax.nn.softmax(np.asarray(scores["semantic"]) + np.asarray(scores["detail"]), axis=-1)
    assert_close(np.asarray(kernels)[inside], np.asarray(expected)[inside], 1e-5)


def test_what_ablations_leave_out():
    """Without semantic scores there is no key; inner products have no parameters."""
    build = partial(abstract, nn.ReSFU, 6, 5, scale=2, **SMALL)
    parts = lambda module: {path[0] for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}  # noqa: E731
    projections = {"norm_x", "norm_guide", "query", "key"}
    assert parts(build()) == projections | {"semantic_scores", "detail_scores"}
    assert parts(build(semantic=False)) == {"norm_guide", "query", "detail_scores"}
    assert parts(build(detail=False)) == projections | {"semantic_scores"}
    assert parts(build(similarity="inner")) == projections
    with pytest.raises(ValueError, match="semantic: expected True, for a key, got False"):
        nnx.eval_shape(lambda m: m.query_and_key(random(1, 2, 2, 6), random(1, 4, 4, 5)), build(semantic=False))


@pytest.mark.parametrize("kept", ["key", "query"])
def test_groups_of_the_plain_convolution_see_both_maps(kept):
    block, _ = drawn(PCDCBlock, 8, dilation=1, groups=4, norm_groups=4, paired=False)
    maps = {name: random(1, 3, 4, 8) for name in ("key", "query")}
    changed = maps | {kept: maps[kept] + random(1, 3, 4, 8)[::-1] ** 2}
    run = jax.jit(block._joined)
    joined = [np.asarray(run(y["query"], y["key"])).reshape(1, 3, 4, 4, 4) for y in (maps, changed)]
    assert (np.abs(joined[0] - joined[1]).max((0, 1, 2, 4)) > 0).all()


def test_without_norms_projection_and_biases():
    options = dict(scale=2, norm_x=False, norm_guide=False, project_guide=False, use_bias=False, **SMALL)
    module = abstract(nn.ReSFU, 5, 8, **options)
    paths = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    assert {p for p in paths if not p.startswith(("semantic_scores.", "detail_scores."))} == {"key.kernel"}
    config = dict(dim_y=8, dim_x=5, scale_factor=2, embedding_dim=8, gn_dim=4, radius=2, gf_scale=1)
    config |= dict(y_conv=False, qkv_bias=False, normx=False, normy=False)
    official, _ = drawn(nn.ReSFU, 5, 8, form="official", **options)
    state_dict = interop.to_torch("ReSFU", official, config)
    assert {"q.weight", "k.bias", "norm_x.weight", "norm_y.weight"}.isdisjoint(state_dict)
    assert state_dict["k.weight"].shape == (8, 5, 1, 1)


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["paper", thorough("official")])
def test_constants_are_kept_and_extreme_scores_are_finite(form):
    module, _ = drawn(nn.ReSFU, 4, 3, scale=2, form=form, **SMALL)
    module.detail_scores.scores.bias[...] = 1e4 * jnp.sign(random(9))
    x, guide = jnp.full((1, 3, 2, 4), 2.0), jnp.asarray(random(1, 6, 4, 3))
    out, gradients = jax.jit(lambda *xs: (lambda y, pull: (y, pull(y)))(*jax.vjp(module, *xs)))(x, guide)
    assert_close(out, jnp.full((1, 6, 4, 4), 2.0), 1e-6)
    assert_finite(gradients)


@pytest.mark.parametrize("form, outputs", [("paper", 32), ("official", 128)])
def test_parameters(form, outputs):
    """As in the docstring."""
    block = (9 * 8 + 1) * outputs + 32 + (outputs // 4 + 3) * 128 + 129 * 9
    module = abstract(nn.ReSFU, 256, 64, scale=4, form=form)
    assert count(module) == (32 + 2) * 320 + 2 * 32 + 2 * block


@pytest.mark.parametrize("gradients, bound", [(False, 1.2), (True, 3.7)])
@pytest.mark.first(1)
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.ReSFU, 256, 256, scale=2, deviation=0.1)
    assert scratch(module, (1, 64, 64, 256), (1, 128, 128, 256), gradients=gradients) <= bound


def test_groups_of_the_input_norms():
    """32, or as many as divide the channels, or one channel each."""
    for features, groups in ((64, 32), (40, 8), (33, 1), (31, 31)):
        up = abstract(nn.ReSFU, features, features, scale=2)
        assert up.norm_x.num_groups == up.norm_guide.num_groups == groups


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(form="code"), "form: expected one of 'paper', 'official', got 'code'"),
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(groups=3), "groups: expected a divisor of embedding_features = 32, got 3"),
        (dict(norm_groups=5), "norm_groups: expected a divisor of embedding_features = 32, got 5"),
        (dict(project_guide=False), "guide_features: expected embedding_features = 32 without a projection, got 3"),
        (dict(radius=-1), "radius: expected an integer >= 0, got -1"),
        (dict(similarity="cosine"), "similarity: expected one of 'pcdc', 'inner', 'conv', got 'cosine'"),
        (dict(semantic=False, detail=False), "semantic: expected True where detail is False, got False"),
        (dict(subsample=0), "subsample: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.ReSFU(**(dict(in_features=6, guide_features=3, scale=2, rngs=nnx.Rngs(0)) | options))


def test_bad_block():
    with pytest.raises(ValueError, match="the outputs of the difference convolution = 32, got 3"):
        PCDCBlock(6, dilation=2, groups=3, norm_groups=3, compressor_features=6, rngs=nnx.Rngs(0))


def test_bad_maps():
    module = abstract(nn.ReSFU, 4, 3, scale=2, **SMALL)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, \*\), got shape \(1, 4, 4, 3\)"):
        module(random(1, 2, 3, 4), random(1, 4, 4, 3))
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 2, 3, 4\), got shape \(1, 2, 3, 2\)"):
        ops.guided_filter(random(1, 2, 3, 4), random(1, 2, 3, 2), radius=1, eps=0.1, per_channel=True)


def test_state_dict_of_another_configuration():
    golden = goldens.load("resfu/module__s2_k3")
    with pytest.raises(ValueError, match=r"GF.kernel: expected shape \(8, 1, 1, 9\), got shape \(8, 1, 1, 5\)"):
        interop.from_torch("ReSFU", golden.params, golden.config | {"radius": 8})
