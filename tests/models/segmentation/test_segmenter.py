"""Segmenter: its decoders, any image, where upsamplers and their guide are, and the codes that it comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop import from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models import ViT
from jaxup.models.backbones import layers
from jaxup.models.segmentation import Segmenter
from jaxup.models.segmentation.segmenter import DECODERS, GuideBlock, MaskDecoder
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.golden_cases import segmentation as cases
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.modules import call, count
from tests.registry.examples import marked, thorough

slow = pytest.mark.slow
FCN = ("segmenter/mmseg_fcn_vit_s__64x64", "mmseg.Segmenter", cases.segmenter_mmseg)
TABLES = {
    "linear": ("segmenter/official_linear_vit_s__64x64", "segm.Segmenter", cases.segmenter),
    "mask": ("segmenter/official_mask_vit_s__64x48", "segm.Segmenter", cases.segmenter),
    "fcn": FCN,
}


def small(rngs, decoder="fcn", dtype=jnp.float32, patch=16, depth=1, **options):
    sizes = dict(patch_size=patch, width=12, depth=depth, num_heads=3, image_size=2 * patch, drop_path=0.5)
    backbone = ViT(**sizes, dtype=dtype, rngs=rngs)
    return Segmenter(5, backbone=backbone, decoder=decoder, dtype=dtype, rngs=rngs, **options)


NIGHTLY = {"segmenter/official_mask_vit_s__64x48"}


@pytest.mark.parametrize("case", marked(goldens.cases("segmenter/*"), {"segmenter/guide_extractor__32x48"}, NIGHTLY))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("decoder", DECODERS)
def test_size(decoder):
    """Also the size in the docstring; with "fcn" it is printed as 22.04 M."""
    network = abstract(lambda rngs: Segmenter(150, decoder=decoder, rngs=rngs))
    assert f"{count(network):,}" in Segmenter.__doc__
    assert decoder != "fcn" or round(count(network) / 1e6, 2) == 22.04


EACH = [
    ("mask", None),
    *(pytest.param(*case, marks=slow) for case in (("linear", None), ("fcn", "sapa"), ("fcn", "resfu"))),
]


@pytest.mark.parametrize(("decoder", "upsampler"), EACH)
@pytest.mark.thorough
def test_any_size_gradients_and_types(decoder, upsampler):
    """Sides that are no multiples of 16, batch 1; every parameter has a gradient; bfloat16."""
    x, options = image(37, 50), dict(decoder=decoder, upsampler=upsampler)
    graph, params = nnx.split(filled(lambda rngs: small(rngs, **options)))
    half = nnx.split(abstract(lambda rngs: small(rngs, dtype=jnp.bfloat16, **options)))[0]

    def loss(params, x):
        logits = nnx.merge(graph, params)(x)
        return jnp.mean(jnp.sin(logits)), logits

    @jax.jit
    def run(params, x):
        return jax.grad(loss, (0, 1), has_aux=True)(params, x), nnx.merge(half, params)(x.astype(jnp.bfloat16))

    ((gradients, grad_x), logits), rounded = run(params, x)
    assert (logits.shape, logits.dtype) == ((1, 3, 4, 5) if upsampler is None else (1, 10, 13, 5), jnp.float32)
    assert (rounded.shape, rounded.dtype) == (logits.shape, jnp.bfloat16)
    assert_finite((gradients, grad_x))
    unused = {p for p, g in nnx.to_flat_state(gradients) if not np.any(g[...])}
    assert {p[-1] for p in unused} <= {"bias"}  # of keys


def test_dropped_only_with_a_source():
    graph, state = nnx.split(filled(lambda rngs: small(rngs, depth=2)))

    @jax.jit
    def run(state, x, key):
        network = nnx.merge(graph, state)
        return network(x, nnx.Rngs(key)), network(x)

    results = [run(state, image(32, 32, batch=4), jax.random.key(n)) for n in (1, 2)]
    assert_close(results[0][1], results[1][1], 0.0)
    assert np.abs(results[0][0] - results[1][0]).max() > 1e-3


@pytest.mark.slow
def test_the_mask_decoder_drops_entries():
    """Of weights, outputs of the attention and of both layers of the MLP: all of them with a source, none without."""
    options = dict(features=8, depth=1, num_heads=2, dtype=jnp.float32)
    decoders = {
        rate: filled(lambda rngs, rate=rate: MaskDecoder(6, 3, dropout=rate, rngs=rngs, **options)) for rate in (0, 0.5)
    }
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 6)), jnp.float32)
    run = nnx.jit(lambda module, x, key: (module(x), module(x, nnx.Rngs(key))))
    (plain, kept), (same, dropped) = (run(decoders[rate], x, jax.random.key(1)) for rate in (0, 0.5))
    assert_close((kept, same), (plain, plain), 0.0)
    other = run(decoders[0.5], x, jax.random.key(2))[1]
    assert np.abs(dropped - plain).max() > 0.1 and np.abs(other - dropped).max() > 0.1
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "dropout", lambda x, rate, rngs, **_: drawn.append((x.shape, rate)) or x)
        decoders[0.5](x, nnx.Rngs(0))
    assert [shape for shape, rate in drawn if rate == 0.5] == [(2, 2, 15, 15), (2, 15, 8), (2, 15, 32), (2, 15, 8)]


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_the_guide_of_each_step(patch):
    """From the block at stride 4, reduced for the coarser steps."""

    def guides():
        network = small(Shapes(), patch=patch, upsampler="sapa")
        assert len(network.up.steps) == patch.bit_length() - 3
        return network._guides(jnp.asarray(image(60, 64)))

    assert [y.shape[1:3] for y in nnx.eval_shape(guides)] == [(15, 16), (8, 8), (4, 4)][: patch.bit_length() - 3]


def test_the_classifier_stands_behind_the_upsampler():
    graph, state = nnx.split(filled(lambda rngs: small(rngs, upsampler="nearest")))

    @jax.jit
    def run(state, x):
        network = nnx.merge(graph, state)
        outputs = network.outputs(x)
        enlarged = ops.resize(outputs["features"][0], size=(10, 8), method="nearest")
        return outputs["logits"], network.decoder(enlarged)

    assert_close(*run(state, image(37, 32)), 1e-5)


def test_only_guided_upsamplers_have_a_guide():
    names = ["bilinear", "deconvolution", "stack_jbu", "dysample", "sapa", "resfu"]
    built = {name: abstract(lambda rngs, name=name: small(rngs, upsampler=name)) for name in names}
    assert {name for name, network in built.items() if network.guide is not None} == {"sapa", "resfu"}
    assert [built[n].up.plan for n in ("deconvolution", "dysample")] == [((4, 0),), ((2, 1), (2, 0))]
    assert built["dysample"].up.steps[0].style == "lp" and built["dysample"].up.steps[0].scope is not None


def test_the_border_of_the_guide_is_repeated():
    """A constant image has a constant guide."""
    y = np.asarray(
        call(filled(lambda rngs: GuideBlock(dtype=jnp.float32, rngs=rngs)), np.ones((1, 9, 14, 3), np.float32))
    )
    assert y.shape == (1, 3, 4, 32)
    assert np.ptp(y, axis=(1, 2)).max() < 1e-5


@pytest.mark.thorough
def test_positions_in_three_ways():
    """By default those of the decoder's code; those of timm by its own backbone."""
    built = {d: abstract(lambda rngs, d=d: Segmenter(3, decoder=d, rngs=rngs)).backbone for d in DECODERS}
    ways = {name: (b.position_resize, b.norm.epsilon, b.embed.bias is not None) for name, b in built.items()}
    official = ("bilinear", 1e-5, True)
    assert ways == {"fcn": ("bicubic", 1e-6, False), "linear": official, "mask": official}


@pytest.mark.thorough
@pytest.mark.parametrize("decoder", [pytest.param("linear", marks=slow), "mask", thorough("fcn")])
def test_round_trip(decoder):
    """Every tensor but those that the computation does not use."""
    case, operator, config = TABLES[decoder]
    golden = goldens.load(case)
    config = config(golden.config)
    module = from_torch(operator, golden.params, config)
    back = to_torch(operator, module, config)
    assert golden.params.keys() - back.keys() <= {"encoder.head.weight", "encoder.head.bias"}
    for name, x in back.items():
        np.testing.assert_array_equal(x, golden.params[name], err_msg=name)


@pytest.mark.thorough
def test_errors():
    build = lambda **options: abstract(lambda rngs: Segmenter(5, **options, rngs=rngs))  # noqa: E731
    with pytest.raises(ValueError, match="decoder: expected one of 'fcn', 'linear', 'mask', got 'masks'"):
        build(decoder="masks")
    with pytest.raises(ValueError, match="backbone: expected one of 'vit_ti', 'vit_s', 'vit_b', 'vit_l', got 'mit_b0'"):
        build(backbone="mit_b0")
    with pytest.raises(ValueError, match="upsampler: expected None for the decoder 'mask', got 'resfu'"):
        build(decoder="mask", upsampler="resfu")
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        build(upsampler="resf")
    with pytest.raises(ValueError, match="backbone: expected patches of 8, 16, 32"):
        abstract(lambda rngs: small(rngs, patch=12, upsampler="resfu"))
    config = cases.segmenter(dict(variant="vit_tiny_patch16", decoder="linear", image_size=64, n_cls=6))
    tensors = {"decoder.head.weight": np.zeros((6, 192)), "decoder.head.bias": np.zeros(6)}
    with pytest.raises(ValueError, match=r"decoder.cls_emb: missing[\s\S]*decoder.head.weight: unexpected"):
        from_torch("segm.Segmenter", tensors, config | {"decoder": {"name": "mask_transformer"}})
    with pytest.raises(ValueError, match="decoder: expected one of 'linear', 'mask_transformer', got 'deeplab'"):
        from_torch("segm.Segmenter", tensors, config | {"decoder": {"name": "deeplab"}})
