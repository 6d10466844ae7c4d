"""SegFormer: its sizes, both heads, any image, and the three codes that it comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch, to_torch
from jaxup.models import BACKBONES, MiT
from jaxup.models.segmentation import SegFormer
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.modules import count
from tests.registry.examples import marked, thorough

slow = pytest.mark.slow
CASES = goldens.cases("segformer/*")
OPERATORS = {"nv": "nvlabs.SegFormer", "mm": "mmseg.SegFormer", "hf": "SegformerForSemanticSegmentation"}


def small(rngs, head="mmseg", dtype=jnp.float32, stages=2, **options):
    sizes = dict(widths=(4, 6, 8, 8), depths=(1,) * 4, num_heads=(1, 2, 2, 2), reductions=(2, 2, 1, 1))
    backbone = MiT(**{name: values[:stages] for name, values in sizes.items()}, drop_path=0.5, dtype=dtype, rngs=rngs)
    return SegFormer(5, backbone=backbone, head=head, features=8, dtype=dtype, rngs=rngs, **options)


@pytest.mark.parametrize("case", marked(CASES, set()))
@pytest.mark.first(1, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("head", ["mmseg", "nvlabs"])
@pytest.mark.parametrize("size", [pytest.param(i, marks=slow) if i > 1 else i for i in range(6)])
@pytest.mark.first(2)
def test_size(head, size):
    """Also the size in the docstring; B1 with the head of mmsegmentation is printed as 13.72 M, B5 as 82.01 M."""
    network = abstract(lambda rngs: SegFormer(150, backbone=f"mit_b{size}", head=head, rngs=rngs))
    assert f"{count(network):,}" in " ".join(SegFormer.__doc__.split())
    if head == "mmseg" and size in (1, 5):
        assert round(count(network) / 1e6, 2) == {1: 13.72, 5: 82.01}[size]


@pytest.mark.parametrize(("head", "stages"), [thorough("mmseg", 2), pytest.param("nvlabs", 4, marks=slow)])
def test_any_size_gradients_and_types(head, stages):
    """Sides that are no multiples of 32, batch 1; every parameter has a gradient; bfloat16."""
    x = image(50, 69)
    options = dict(head=head, stages=stages, upsampler="sapa")
    graph, params, rest = nnx.split(filled(lambda rngs: small(rngs, **options)), nnx.Param, ...)
    half = nnx.split(abstract(lambda rngs: small(rngs, dtype=jnp.bfloat16, **options)), nnx.Param, ...)[0]

    def loss(params, x):
        logits = nnx.merge(graph, params, rest, copy=True)(x)
        return jnp.mean(jnp.sin(logits)), logits

    @jax.jit
    def run(params, x):
        evaluated = nnx.merge(half, params, rest, copy=True)
        evaluated.eval()
        return jax.grad(loss, (0, 1), has_aux=True)(params, x), evaluated(x.astype(jnp.bfloat16))

    ((gradients, grad_x), logits), rounded = run(params, x)
    assert (logits.shape, logits.dtype) == ((1, 13, 18, 5), jnp.float32)
    assert (rounded.shape, rounded.dtype) == (logits.shape, jnp.bfloat16)
    assert_finite((gradients, grad_x))
    unused = {p for p, g in nnx.to_flat_state(gradients) if not np.any(g[...])}
    assert {p[-1] for p in unused} <= {"bias"}  # before a norm, or of a key


@pytest.mark.thorough
def test_dropped_only_with_a_source():
    """Channels of the fused map and paths, another choice for each key."""
    network = filled(lambda rngs: small(rngs, dropout=0.5))
    network.eval()
    graph, state = nnx.split(network)

    @jax.jit
    def run(state, x, key):
        network = nnx.merge(graph, state)
        return network(x, nnx.Rngs(key)), network(x), network.outputs(x)

    x = image(32, 32)
    first, plain, outputs = run(state, x, jax.random.key(1))
    second, again, _ = run(state, x, jax.random.key(2))
    assert_close(plain, again, 0.0)
    assert_close(plain, outputs["logits"], 0.0)
    assert [y.shape[1:] for y in outputs["features"]] == [(8, 8, 4), (4, 4, 6)]
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - plain).max() > 1e-3


@pytest.mark.parametrize("upsampler", ["resfu", "fade"])
def test_where_upsamplers_are(upsampler):
    """Three direct modules under the finest map, or six in steps; all project to the same channels."""
    network = abstract(lambda rngs: SegFormer(150, backbone="mit_b1", upsampler=upsampler, rngs=rngs))
    scales = [[step.scale for step in up.steps] if upsampler == "resfu" else len(up.steps) for up in network.up]
    assert scales == ([[(2, 2)], [(4, 4)], [(8, 8)]] if upsampler == "resfu" else [1, 2, 3])
    assert [up.guides for up in network.up] == [(256,), (256,) * 2, (256,) * 3]


def official(kind, variant="b0"):
    sizes = BACKBONES[f"mit_{variant}"][1]
    return {
        "nv": {"backbone": f"mit_{variant}", "num_classes": 5},
        "mm": {"backbone": f"mit_{variant}", "decode_head": {"num_classes": 5}},
        "hf": {"hidden_sizes": sizes["widths"], "depths": sizes["depths"], "num_labels": 5},
    }[kind]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", marked(OPERATORS, set(list(OPERATORS)[:1])))
def test_round_trip(kind):
    """Every tensor but those that the computation does not use."""
    tensors = goldens.load(f"segformer/{kind}_b0__32x64_eps").params
    module = from_torch(OPERATORS[kind], tensors, official(kind))
    back = to_torch(OPERATORS[kind], module, official(kind))
    assert tensors.keys() - back.keys() <= {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    for name, x in back.items():
        np.testing.assert_array_equal(x, tensors[name], err_msg=name)
    stage = module.backbone.stages[0]
    epsilons = (stage.norm.epsilon, stage.embed_norm.epsilon)
    assert epsilons == {"nv": (1e-6, 1e-5), "mm": (1e-6, 1e-6), "hf": (1e-5, 1e-5)}[kind]


@pytest.mark.thorough
def test_epsilons_of_a_backbone_by_name():
    for head, expected in {"mmseg": (1e-6, 1e-6), "nvlabs": (1e-6, 1e-5)}.items():
        stage = abstract(lambda rngs, head=head: SegFormer(3, head=head, rngs=rngs)).backbone.stages[0]
        assert (stage.norm.epsilon, stage.embed_norm.epsilon) == expected


@pytest.mark.thorough
def test_errors():
    build = lambda **options: abstract(lambda rngs: SegFormer(5, **options, rngs=rngs))  # noqa: E731
    with pytest.raises(ValueError, match="head: expected one of 'mmseg', 'nvlabs', got 'hf'"):
        build(head="hf")
    with pytest.raises(ValueError, match=r"backbone: expected one of 'mit_b0', .* got 'resnet18'"):
        build(backbone="resnet18")
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        build(upsampler="sapas")
    with pytest.raises(ValueError, match="dropout: expected a number from 0 to below 1, got 1"):
        build(dropout=1)
    tensors = goldens.load("segformer/nv_b0__32x64_eps").params
    with pytest.raises(ValueError, match=r"backbone.block1.2.norm1.weight: missing"):
        from_torch("nvlabs.SegFormer", tensors, official("nv", "b2"))
    with pytest.raises(ValueError, match=r"decode_head.convs.0.conv.weight: missing"):
        from_torch("mmseg.SegFormer", tensors, official("mm"))
    with pytest.raises(ValueError, match="backbone: expected 'mit_b0' to 'mit_b5', got 'mit_b7'"):
        from_torch("nvlabs.SegFormer", tensors, {"backbone": "mit_b7", "num_classes": 5})
