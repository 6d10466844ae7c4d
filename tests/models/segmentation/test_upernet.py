"""UperNet: the three official codes, and the pyramid's and the fusion's upsamplers."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from jaxup import nn as jn
from jaxup import ops
from jaxup.interop import from_torch
from jaxup.models.segmentation import UperNet, UperNetHead
from tests import goldens
from tests.compare import assert_close
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.models.segmentation.networks import (
    check_dropout,
    check_gradients,
    check_round_trip,
    check_types,
    small_resnet,
)
from tests.modules import call, count, random
from tests.registry.examples import marked

QUICK: set[str] = set()  # they take seconds each, and the heads of other networks are built of the same pieces
CASES = [case for kind in ("mm__*", "hf__*", "csail__*") for case in goldens.cases(f"upernet/{kind}")]
NAMES = {"mm": "UPerHead", "hf": "UperNetHead", "csail": "UPerNet"}
WIDTHS = (4, 6, 8)
MAPS = [random(1, 13, 10, 4), random(1, 7, 5, 6), random(1, 4, 3, 8)]


@pytest.mark.parametrize("case", marked(CASES, QUICK))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("case", CASES)
def test_checkpoints(case):
    golden = goldens.load(case)
    check_round_trip(NAMES[case.split("/")[1].split("__")[0]], golden.params, golden.config)


def test_names_of_other_codes():
    golden = goldens.load("upernet/mm__even")
    with pytest.raises(ValueError, match=r"conv_last.1.weight: missing"):
        from_torch("UPerNet", golden.params, {"fpn_inplanes": (8, 12, 16, 20), "fpn_dim": 16, "num_class": 5})


def head(upsampler, fusion_upsampler):
    options = dict(features=5, pool_scales=(2,), upsampler=upsampler, fusion_upsampler=fusion_upsampler)
    module = filled(lambda rngs: UperNetHead(WIDTHS, 3, **options, rngs=rngs))
    module.eval()
    return module


def by_hand(module, pyramid, fusion):
    """`pyramid(i, y, laterals)` brings y to level i, `fusion(i, y, laterals)` level i to the finest."""

    @jax.jit
    def run(maps):
        laterals = [layer(y) for layer, y in zip(module.laterals, maps[:-1], strict=True)]
        coarse = module.bottleneck(module.pooling(maps[-1]))
        middle = laterals[1] + pyramid(1, coarse, laterals)
        fine = laterals[0] + pyramid(0, middle, laterals)
        fine, middle = module.smooth[0](fine), module.smooth[1](middle)
        parts = [fine, fusion(1, middle, laterals), fusion(2, coarse, laterals)]
        return module.classifier(module.fuse(jax.numpy.concatenate(parts, axis=3)))

    return run(MAPS)


def bilinear(i, y, laterals):
    return ops.resize(y, size=laterals[i].shape[1:3], method="bilinear")


@pytest.mark.slow
def test_guided_upsamplers():
    """Under the projected maps: in the pyramid that of the level, in the fusion step by step those of all levels."""
    module = head("sapa", "sapa")

    def fusion(i, y, laterals):
        return module.fusion_upsamplers[i - 1](y, laterals[:i])

    expected = by_hand(module, lambda i, y, laterals: module.upsamplers[i](y, laterals[i : i + 1]), fusion)
    assert_close(call(module, MAPS), expected, 1e-5)
    assert [len(up.steps) for up in module.fusion_upsamplers] == [1, 2]


BOTH = ("indexnet", "indexnet")


@pytest.mark.thorough
@pytest.mark.parametrize("places", marked([BOTH, ("indexnet", "bilinear"), ("bilinear", "indexnet")], {BOTH}))
def test_index_maps(places):
    """Figure 13: linear holistic networks on the backbone's maps, and the same index maps in both places."""
    pyramid, fusion = places
    module = head(pyramid, fusion)
    kinds = [(n.in_features, n.family, n.columns[0].norm, n.columns[0].kernel.shape[0]) for n in module.index_networks]
    assert kinds == [(4, "holistic", None, 2), (6, "holistic", None, 2)]
    even = [np.pad(y, ((0, 0), (0, y.shape[1] % 2), (0, y.shape[2] % 2), (0, 0)), mode="edge") for y in MAPS]

    def indexed(i, y):
        index = module.index_networks[i](even[i]).decoder
        return ops.indexed_upsample(y, index)[:, : MAPS[i].shape[1], : MAPS[i].shape[2]]

    def step_by_step(i, y, laterals):
        for level in reversed(range(i)):
            y = indexed(level, y)
        return y

    to_level = (lambda i, y, _: indexed(i, y)) if pyramid == "indexnet" else bilinear
    to_finest = step_by_step if fusion == "indexnet" else lambda i, y, laterals: bilinear(0, y, laterals)
    assert_close(call(module, MAPS), by_hand(module, to_level, to_finest), 1e-5)


# Index Networks, Table 9, which prints no sizes: (FPN, MFF) and what they add.
ROWS = {
    ("bilinear", "bilinear"): 0,
    ("indexnet", "bilinear"): 16 * (24 + 32 + 96),
    ("bilinear", "indexnet"): 16 * (24 + 32 + 96),
    ("indexnet", "indexnet"): 16 * (24 + 32 + 96),
    ("carafe", "bilinear"): 3 * 90_532,
    ("bilinear", "carafe"): 6 * 90_532,
    ("carafe", "carafe"): 9 * 90_532,
}


@pytest.mark.thorough
def test_rows_of_table_9():
    """Three linear holistic networks at most; in the fusion a map that grows 8 times has three steps of its own."""
    features = (16, 24, 32, 96, 320)
    sizes = {
        row: count(abstract(partial(UperNetHead, features[-4:], 150, upsampler=row[0], fusion_upsampler=row[1])))
        for row in ROWS
    }
    assert {row: size - sizes["bilinear", "bilinear"] for row, size in sizes.items()} == ROWS
    network = abstract(partial(UperNet, 150, backbone="mobilenet_v2", upsampler="indexnet", auxiliary_features=None))
    assert count(network.backbone) == 1_811_712
    assert count(network.head) == sizes["indexnet", "indexnet"]


SMALL = dict(backbone=small_resnet(), features=8, auxiliary_features=6)


@pytest.mark.thorough  # of other networks by default
def test_any_image():
    check_types(partial(UperNet, 5, upsampler="indexnet", **SMALL), (1, 10, 13, 5))


@pytest.mark.slow
@pytest.mark.parametrize("upsampler", ["indexnet", "resfu"])
def test_gradients(upsampler):
    check_gradients(partial(UperNet, 5, upsampler=upsampler, pool_scales=(2,), **SMALL), image(37, 50))


@pytest.mark.thorough
def test_auxiliary_and_dropout():
    network = filled(lambda rngs: UperNet(5, dropout=0.5, rngs=rngs, **SMALL))
    check_dropout(network, image(16, 16))
    found = nnx.eval_shape(lambda n, x: n.outputs(x), network, image(40, 50))
    assert found["auxiliary"].shape == (1, 3, 4, 5)
    assert [y.shape[1:] for y in found["features"]] == [(10, 13, 8), (5, 7, 8), (3, 4, 8), (2, 2, 8)]


def test_errors():
    build = lambda **options: nnx.eval_shape(lambda: UperNetHead(WIDTHS, 3, **options, rngs=nnx.Rngs(0)))  # noqa: E731
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        build(fusion_upsampler="bilinaer")
    with pytest.raises(ValueError, match="features: expected an integer >= 1, got 0"):
        build(features=0)
    with pytest.raises(ValueError, match=r"maps: expected maps of \(4, 6, 8\) channels"):
        build()(MAPS[1:])
    assert isinstance(build(upsampler="carafe").fusion_upsamplers[1].steps[0], jn.CARAFE)
