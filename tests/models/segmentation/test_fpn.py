"""Feature pyramids and Semantic FPN: the official codes, extra levels, and what the upsamplers see."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn as jn
from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.models.segmentation import FPN, FPNHead, SemanticFPN
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

QUICK = {"fpn/torchvision__p6p7_odd", "fpn/mm__bn_train", "fpn/fpnhead__even"}
CASES = goldens.cases("fpn/*")
WIDTHS = (4, 6, 8)
MAPS = [random(1, 13, 10, 4), random(1, 7, 5, 6), random(1, 4, 3, 8)]
NAMES = {"torchvision": "FeaturePyramidNetwork", "mm": "FPN", "fpnhead": "FPNHead"}


@pytest.mark.parametrize("case", marked(CASES, QUICK))
@pytest.mark.first(2)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("case", CASES)
def test_checkpoints(case):
    golden = goldens.load(case)
    check_round_trip(NAMES[case.split("/")[1].split("__")[0]], golden.params, golden.config)


def zeros(operator, config):
    """A state dict of the right shapes."""
    module = nnx.eval_shape(lambda: OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.state(module)))
    return to_torch(operator, module, config)


def extra(**options):
    """A pyramid with two levels more."""
    network = filled(lambda rngs: FPN(WIDTHS, features=5, num_outputs=5, rngs=rngs, **options))
    network.eval()
    return network


@pytest.mark.parametrize("source", ["on_input", "on_lateral", "on_output"])
def test_extra_levels(source):
    """By hand: of the last input, of its lateral, of the last output; with or without ReLU before the second."""
    for relu in (False, True):
        network = extra(extra=source, relu_before_extra=relu)
        *_, last, first, second = call(network, MAPS)
        seen = {"on_input": MAPS[-1], "on_lateral": call(network.laterals[-1], MAPS[-1]), "on_output": last}[source]
        assert_close(first, call(network.extra_layers[0], seen), 1e-6)
        assert_close(second, call(network.extra_layers[1], nnx.relu(first) if relu else first), 1e-6)
        assert [y.shape[1:3] for y in (last, first, second)] == [(4, 3), (2, 2), (1, 1)]


def test_pooled_levels_and_skipped_inputs():
    network = filled(lambda rngs: FPN((3, *WIDTHS), features=5, start=1, num_outputs=5, norm=True, rngs=rngs))
    network.eval()
    outputs = call(network, [random(1, 2, 2, 3), *MAPS])
    assert [y.shape[1:3] for y in outputs] == [(13, 10), (7, 5), (4, 3), (2, 2), (1, 1)]
    assert_close(outputs[3], outputs[2][:, ::2, ::2], 0.0)
    assert_close(outputs[4], outputs[2][:, ::4, ::4], 0.0)


@pytest.mark.thorough
def test_the_finer_map_is_the_guide():
    """By hand, of sizes that are not half of each other: the map that the upsampled one is added to, before that."""
    network = extra(upsampler="sapa")

    @jax.jit
    def by_hand(maps):
        laterals = [layer(y) for layer, y in zip(network.laterals, maps, strict=True)]
        middle = laterals[1] + network.upsamplers[1](laterals[2], (laterals[1],))
        fine = laterals[0] + network.upsamplers[0](middle, (laterals[0],))
        return [layer(y) for layer, y in zip(network.smooth, (fine, middle, laterals[2]), strict=True)]

    assert isinstance(network.upsamplers[0].steps[0], jn.SAPA)
    assert_close(list(call(network, MAPS)[:3]), by_hand(MAPS), 1e-6)


CONFIG = {"in_channels": WIDTHS, "out_channels": 5, "num_outs": 5}


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"add_extra_convs": "on_input", "start_level": 1}, {"fpn_convs.2.conv.weight": (5, 8, 3, 3)}),
        ({"add_extra_convs": True, "norm_cfg": {"type": "BN"}}, {"fpn_convs.4.bn.running_var": (5,)}),
        ({"add_extra_convs": True, "extra_convs_on_inputs": True}, {"fpn_convs.3.conv.weight": (5, 8, 3, 3)}),
        ({"add_extra_convs": "on_lateral"}, {"fpn_convs.3.conv.bias": (5,)}),
        ({}, {"fpn_convs.2.conv.weight": (5, 5, 3, 3)}),
    ],
)
def test_names_of_mmdetection(options, keys):
    tensors = zeros("FPN", CONFIG | options)
    assert {name: tensors[name].shape for name in keys} == keys
    used = 3 - options.get("start_level", 0)
    assert len({name for name in tensors if name.startswith("fpn_convs") and name.endswith("conv.weight")}) == (
        5 if options else used
    )


def test_names_of_torchvision():
    """No norm behind the extra convolutions, and of which map the first of them is."""
    for features, source in ((8, "on_output"), (5, "on_input")):
        config = {"in_channels": WIDTHS, "out_channels": features, "extra": "p6p7", "norm": "BN"}
        tensors = zeros("FeaturePyramidNetwork", config)
        module = from_torch("FeaturePyramidNetwork", tensors, config)
        assert module.extra == source and module.relu_before_extra
        assert tensors["inner_blocks.1.1.running_mean"].shape == (features,)
        assert {name for name in tensors if "extra" in name} == {
            f"extra_blocks.{p}.{kind}" for p in ("p6", "p7") for kind in ("weight", "bias")
        }


@pytest.mark.thorough
def test_head_of_sizes_that_are_not_halves():
    network = filled(lambda rngs: FPNHead(WIDTHS, 3, features=5, rngs=rngs))
    network.eval()

    @jax.jit
    def by_hand(maps):
        y, z = network.levels[1][0](maps[1]), maps[2]
        double = partial(jax.image.resize, method="linear")
        for layer in network.levels[2]:
            z = layer(z)
            z = double(z, (1, 2 * z.shape[1], 2 * z.shape[2], 5))
        fit = lambda y: jax.image.resize(y, (1, 13, 10, 5), "linear", antialias=False)  # noqa: E731
        return network.classifier(network.levels[0][0](maps[0]) + fit(double(y, (1, 14, 10, 5))) + fit(z))

    assert_close(call(network, MAPS), by_hand(MAPS), 1e-5)


SMALL = dict(backbone=small_resnet(), features=8, head_features=6)


@pytest.mark.thorough  # of other networks by default
def test_any_image():
    check_types(partial(SemanticFPN, 5, upsampler="carafe", **SMALL), (1, 10, 13, 5))


@pytest.mark.slow
def test_gradients():
    check_gradients(partial(SemanticFPN, 5, upsampler="carafe", **SMALL), image(37, 50))


def test_size():
    network = abstract(partial(SemanticFPN, 150))
    assert count(network) == 28_495_574 and f"{count(network):,}" in SemanticFPN.__doc__


@pytest.mark.thorough
def test_dropout():
    check_dropout(filled(lambda rngs: SemanticFPN(5, dropout=0.5, rngs=rngs, **SMALL)), image(16, 16))


def test_errors():
    build = lambda **options: nnx.eval_shape(lambda: FPN(WIDTHS, **options, rngs=nnx.Rngs(0)))  # noqa: E731
    run = lambda maps, **options: nnx.eval_shape(lambda: FPN(WIDTHS, **options, rngs=nnx.Rngs(0))(maps))  # noqa: E731
    with pytest.raises(ValueError, match="extra: expected one of 'pool', 'on_input'"):
        build(extra="p6p7")
    with pytest.raises(ValueError, match="num_outputs: expected at least the 3 inputs from `start` on, got 2"):
        build(num_outputs=2)
    with pytest.raises(ValueError, match="num_outputs: expected at least the 1 inputs"):
        build(start=3)
    with pytest.raises(ValueError, match=r"maps: expected maps of \(4, 6, 8\) channels, got \(4, 6\)"):
        run(MAPS[:2])
    with pytest.raises(ValueError, match="maps: expected a map that is 2 times as large"):
        run([jnp.ones((1, 20, 10, 4)), *MAPS[1:]], upsampler="carafe")
    with pytest.raises(ValueError, match=r"fpn_convs.3.conv.weight: unexpected"):
        from_torch("FPN", zeros("FPN", CONFIG | {"add_extra_convs": True}), CONFIG)
