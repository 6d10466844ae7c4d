"""MaskFormer: against the official code, its loss against all permutations, and the places of the upsampler."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models.segmentation import MaskFormer, class_targets, maskformer_loss, match_targets, semantic
from jaxup.models.segmentation.maskformer_pixels import PixelDecoder
from jaxup.models.segmentation.maskformer_transformer import QueryDecoder
from jaxup.ops import resize
from tests import goldens
from tests.compare import assert_close
from tests.models.backbones.test_backbones import filled, image
from tests.models.segmentation.networks import check_gradients, check_types, small_resnet
from tests.modules import count, random
from tests.registry.examples import marked

slow = pytest.mark.slow
NAME = "MaskFormerForInstanceSegmentation"
CASES = goldens.cases("maskformer/*")


@pytest.mark.parametrize("case", marked(CASES, {"maskformer/loss__2images"}))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.thorough
def test_golden_values():
    golden = goldens.load("maskformer/resnet__64x96")
    goldens.check(replace(golden, grad_inputs={}, grad_params={}), half=False)


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["resnet__64x96", pytest.param("swin__64x64", marks=slow)])
def test_round_trip(case):
    """Also from the names of the modules of transformers 5, and with the entries of a checkpoint's own config."""
    golden = goldens.load(f"maskformer/{case}")
    config, tensors = golden.config, golden.params
    official = {
        "backbone_config": {k: v for k, v in config["backbone"].items() if k != "kind"}
        | {"model_type": config["backbone"]["kind"]},
        "decoder_config": {
            "model_type": "detr",
            "d_model": config["d_model"],
            "decoder_layers": config["decoder_layers"],
            "decoder_attention_heads": config["heads"],
            "decoder_ffn_dim": config["ffn"],
            "num_queries": config["num_queries"],
        },
        "fpn_feature_size": config["fpn_feature_size"],
        "mask_feature_size": config["mask_feature_size"],
        "id2label": {str(i): f"class {i}" for i in range(config["num_labels"])},
    }
    renamed = {name.replace(".out_proj.", ".o_proj."): x for name, x in tensors.items()}
    module = from_torch(NAME, renamed, official)
    back = to_torch(NAME, module, config)
    assert back.keys() == tensors.keys()
    for name, x in back.items():
        unused = name.startswith("model.pixel_level_module.encoder.model.layernorm")
        np.testing.assert_array_equal(x, 0 * x if unused else tensors[name], err_msg=name)
    with pytest.raises(ValueError, match=r"decoder.layers.1.fc1.weight: unexpected"):
        from_torch(NAME, tensors, config | {"decoder_layers": 1})
    with pytest.raises(ValueError, match="model_type: expected one of 'swin', 'resnet', got 'vit'"):
        from_torch(NAME, tensors, {"num_labels": 5, "backbone_config": {"model_type": "vit"}})


# Table IV: millions with Swin-B and Swin-L, of 150 classes.
PRINTED = {
    "nearest": (101.83, 211.58),
    "bilinear": (101.83, 211.58),
    "stack_jbu": (101.91, 211.66),
    "carafe": (102.05, 211.80),
    "fade": (101.97, 211.72),
    "sapa": (101.88, 211.63),
    "dysample": (101.83, 211.58),
    "resfu": (101.97, 211.72),
}


@pytest.mark.thorough
@pytest.mark.parametrize("size", [0, pytest.param(1, marks=slow)])
def test_parameters(size):
    """To the last printed digit, which is more than 0.5 per cent of what the upsamplers have."""

    def pixels(upsampler):
        options = dict(image_features=3, upsampler=upsampler, dtype=jnp.float32, rngs=Shapes())
        return count(nnx.eval_shape(lambda: PixelDecoder((8, 8, 8, 8), 256, 8, **options)))

    backbone, plain = ("swin_b", "swin_l")[size], pixels("nearest")
    whole = count(nnx.eval_shape(lambda: MaskFormer(150, backbone=backbone, rngs=Shapes())))
    assert f"{whole:,}" in MaskFormer.__doc__
    for name, printed in PRINTED.items():
        assert abs(whole + pixels(name) - plain - 1e6 * printed[size]) < 5e3, name


def small(**options):
    usual = dict(features=8, pyramid_features=8, mask_features=6, num_queries=4, layers=2)
    return MaskFormer(3, backbone=small_resnet(), **{**usual, "num_heads": 2, "hidden_features": 12, **options})


@pytest.mark.thorough
def test_types():
    """Also of the logits behind the earlier layers."""
    check_types(small, (1, 10, 13, 3))
    y = nnx.eval_shape(lambda x: small(rngs=Shapes()).outputs(x), image(37, 50))
    (earlier,) = y["layers"]
    for heads in (y, earlier):
        assert (heads["mask_logits"].shape, heads["class_logits"].shape) == ((1, 10, 13, 4), (1, 4, 4))


@slow
@pytest.mark.parametrize("upsampler", ["nearest", "sapa", "resfu"])
def test_gradients(upsampler):
    """Queries start as zeros: the first layer makes of them a value's bias and no more. A key's bias has no effect."""
    check_gradients(partial(small, upsampler=upsampler), image(37, 50), allowed=("to_queries", "key"))


def targets(batch=2, number=3, size=(6, 8)):
    source = np.random.default_rng(1)
    return source.integers(0, 4, (batch, number)), source.integers(0, 2, (batch, *size, number)).astype(np.float32)


def costs(class_logits, mask_logits, classes, masks):
    """One image, pixel by pixel: [N, T]."""
    share = np.asarray(jax.nn.softmax(class_logits, axis=-1))
    table = np.zeros((mask_logits.shape[-1], len(classes)))
    for q, t in np.ndindex(table.shape):
        p = 1 / (1 + np.exp(-np.float64(mask_logits[..., q])))
        m = masks[:: masks.shape[0] // p.shape[0], :: masks.shape[1] // p.shape[1], t]
        focal = -np.where(m == 1, 0.25 * (1 - p) ** 2 * np.log(p), 0.75 * p**2 * np.log(1 - p)).mean()
        dice = 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
        table[q, t] = 20 * focal + dice - share[q, classes[t]]
    return table


def test_matching_is_the_best_of_all():
    class_logits, mask_logits = random(2, 5, 5), 2 * random(2, 3, 4, 5)
    classes, masks = targets()
    classes[1, 1] = -1  # in the middle, where also the other two must keep their places
    found = np.asarray(match_targets(class_logits, mask_logits, classes, masks))
    assert found[1, 1] == -1
    for i in range(2):
        given = np.flatnonzero(classes[i] >= 0)
        table = costs(class_logits[i], mask_logits[i], classes[i][given], masks[i][..., given])
        sums = {
            order: table[list(order), range(len(given))].sum() for order in itertools.permutations(range(5), len(given))
        }
        assert tuple(found[i, given]) == min(sums, key=sums.get)


@pytest.mark.thorough
def test_loss_does_not_see_what_fills_up():
    """Nor where it stands, nor do its gradients."""
    logits = random(1, 4, 5), 2 * random(1, 3, 4, 4)
    classes, masks = targets(batch=1, number=4)
    classes[0, 2:] = -1
    moved = classes[:, [2, 0, 3, 1]], masks[..., [2, 0, 3, 1]]
    moved[1][..., [0, 2]] = 1
    loss = jax.jit(jax.value_and_grad(lambda logits, *t: maskformer_loss(*logits, *t)["loss"]))
    assert_close(loss(logits, *moved), loss(logits, classes, masks), 1e-6)


@slow
@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_loss_of_a_sharded_batch(kind):
    logits, (classes, masks) = (random(2, 5, 5), random(2, 3, 4, 5)), targets()
    loss = jax.jit(jax.value_and_grad(lambda logits, *t: maskformer_loss(*logits, *t)["loss"]))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        spread = jax.device_put((logits, classes, masks), jax.NamedSharding(mesh, jax.P("data")))
        found = jax.tree.map(np.asarray, loss(*spread))
    assert_close(found, jax.tree.map(np.asarray, loss(logits, classes, masks)), 1e-6)


@pytest.mark.thorough
def test_more_targets_than_queries_none_and_nan():
    logits = random(2, 2, 5), random(2, 3, 4, 2)
    classes, masks = targets()
    classes[1] = -1
    found = np.asarray(match_targets(*logits, classes, masks))
    assert sorted(found[0]) == [-1, 0, 1] and (found[1] == -1).all()
    losses = maskformer_loss(*logits, np.full_like(classes, -1), masks)
    assert losses["mask"] == losses["dice"] == 0
    log = jax.nn.log_softmax(logits[0], axis=-1)[..., -1]
    np.testing.assert_allclose(losses["cross_entropy"], -log.mean(), rtol=1e-5)
    assert np.isnan(maskformer_loss(logits[0], np.nan * logits[1], classes, masks)["loss"])


def test_targets_of_labels():
    labels = np.array([[[2, 2, 0], [255, 2, 0]], [[1, 1, 1], [7, 1, 1]]], np.uint8)
    classes, masks = map(np.asarray, jax.jit(lambda x: class_targets(x, num_classes=4))(labels))
    np.testing.assert_array_equal(classes, [[2, 0, -1, -1], [1, -1, -1, -1]])
    for i, t in np.ndindex(2, 4):
        np.testing.assert_array_equal(masks[i, ..., t], (labels[i] == classes[i, t]) & (classes[i, t] >= 0))
    few = jax.jit(lambda x: class_targets(x, num_classes=3, targets=1)[0])
    assert few(labels.astype(np.int32)).tolist() == [[2], [1]]
    assert few(labels.astype(np.int32) - 256).tolist() == [[-1], [-1]]


def test_semantic():
    classes, masks = random(1, 3, 4), random(1, 2, 2, 3)
    share, inside = np.asarray(jax.nn.softmax(classes)), 1 / (1 + np.exp(-masks))
    expected = sum(share[:, None, None, q, :3] * inside[..., q, None] for q in range(3))
    np.testing.assert_allclose(semantic(classes, masks), expected, rtol=1e-5)


@pytest.mark.thorough
def test_steps_of_the_upsampler():
    """Three doublings under the map that is added; ReSFU is direct, and from the finest map alone."""
    maps = [random(1, -(-17 // n), -(-31 // n), 4) for n in (1, 2, 4, 8)]
    seen = []

    class Recorded(nnx.Module):
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, x, guide):
            seen.append((self.scale, guide.shape[1:3]))
            return resize(x, size=guide.shape[1:3], method="nearest")

    def run(upsampler):
        options = dict(image_features=3, dtype=jnp.float32, rngs=Shapes())
        module = nnx.eval_shape(lambda: PixelDecoder((4,) * 4, 6, 5, upsampler=upsampler, **options))
        assert nnx.eval_shape(lambda m, *xs: m(*xs), module, maps, random(1, 66, 122, 3)).shape == (1, 17, 31, 5)
        return module

    run(lambda in_features, guide_features, scale, rngs: Recorded(scale))
    assert seen == [(2, (6, 8)), (2, (10, 16)), (2, (18, 32))]
    assert [up.plan for up in run("resfu").ups] == [((8, 0),), ((4, 0),), ((2, 0),)]


@pytest.mark.thorough
def test_dropout_only_with_a_source():
    options = dict(queries=3, layers=1, heads=2, hidden=12, drop=0.5, dtype=jnp.float32)
    module = filled(lambda rngs: QueryDecoder(6, 8, **options, rngs=rngs))
    run = nnx.jit(lambda module, x, key: (module(x)[-1], module(x, rngs=nnx.Rngs(key))[-1]))
    (plain, dropped), (again, other) = (run(module, random(1, 3, 4, 6), jax.random.key(i)) for i in (1, 2))
    assert_close(again, plain, 0.0)
    assert np.abs(dropped - plain).max() > 0.1 and np.abs(dropped - other).max() > 0.1


def test_errors():
    logits, (classes, masks) = (random(2, 5, 5), random(2, 3, 4, 5)), targets()
    with pytest.raises(ValueError, match=r"classes: expected shape \(2, \*\), got shape \(1, 3\)"):
        maskformer_loss(*logits, classes[:1], masks)
    with pytest.raises(ValueError, match=r"masks: expected shape \(2, \*, \*, 3\)"):
        match_targets(*logits, classes, masks[..., :2])
    with pytest.raises(ValueError, match=r"mask_logits: expected shape \(2, \*, \*, 5\)"):
        semantic(logits[0], logits[1][..., :3])
    with pytest.raises(ValueError, match="num_heads: expected a divisor of features = 8, got 3"):
        nnx.eval_shape(lambda: small(num_heads=3, rngs=Shapes()))
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        nnx.eval_shape(lambda: small(upsampler="nothing", rngs=Shapes()))
    with pytest.raises(ValueError, match="x: expected shape"):
        nnx.eval_shape(lambda: small(rngs=Shapes())(jnp.ones((1, 32, 32, 4))))
