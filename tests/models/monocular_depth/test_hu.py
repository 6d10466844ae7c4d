"""Hu et al.'s depth network: golden vectors, sizes, and index networks in the place of interpolation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop import from_torch, to_torch
from jaxup.interop.convert import _build
from jaxup.models.backbones.layers import ConvNorm
from jaxup.models.monocular_depth import HuDepthNetwork, make_monocular_depth_network
from jaxup.models.monocular_depth.layers import UpProjection, fit
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import abstract, filled, image, official
from tests.models.segmentation.networks import check_types, small_resnet
from tests.modules import count, random, randomised
from tests.registry.examples import marked, thorough

SMALL = dict(backbone=small_resnet(widths=(8, 12, 16, 64)))


@pytest.mark.parametrize("case", goldens.cases("hu_depth/hu_*", quick={"hu_loss"}))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("outputs", [2, 33])
def test_two_convolutions_of_one_map_are_one_where_outputs_are_few(outputs):
    project = UpProjection(ConvNorm, 3, outputs, dtype=jnp.float32, rngs=nnx.Rngs(0))
    randomised(project)
    project.eval()
    x = random(1, 5, 6, 3)
    apart = nnx.relu(project.second(project.first(x)) + project.shortcut(x))
    assert_close(project(x), apart, 1e-6)
    program = str(jax.make_jaxpr(lambda x: project(x))(x))
    assert program.count("conv_general_dilated[") == (2 if outputs == 2 else 3)


SIZES = {"hu": 67_569_473, "hu-senet154": 157_101_425, "hu-densenet161": 77_101_151}
SIZES |= {"hu-indexnet": 67_569_473 + 44_193_536}


@pytest.mark.thorough
@pytest.mark.parametrize("name", marked(SIZES, {"hu"}))
def test_size(name):
    """Also those in the docstring."""
    assert count(abstract(partial(make_monocular_depth_network, name))) == SIZES[name]
    assert f"{SIZES[name] - (SIZES['hu'] if name == 'hu-indexnet' else 0):,}" in HuDepthNetwork.__doc__


BACKBONES = ["resnet50", thorough("senet154"), thorough("densenet161")]


@pytest.mark.parametrize("encoder", BACKBONES)
@pytest.mark.slow
def test_checkpoints(encoder):
    """Both ways, in every spelling of the names, under what saving a parallel model puts before them."""
    config = {"encoder": encoder}
    tensors = official("hu.model", config)
    spelled = [tensors]
    if encoder == "densenet161":
        assert {"E.features.denseblock1.denselayer1.norm.1.weight", "E.features.norm5.bias"} <= tensors.keys()
        for n in ("{}{}", "{}_dot_{}"):
            names = {f"{kind}.{i}": n.format(kind, i) for kind in ("norm", "conv") for i in (1, 2)}
            spelled.append({_replaced(key, names): x for key, x in tensors.items()})
    for given in spelled:
        module = from_torch("hu.model", {f"module.{key}": x for key, x in given.items()}, config)
        assert module.align_corners and not module.index_networks
    assert to_torch("hu.model", module, config).keys() == tensors.keys()


def _replaced(key, names):
    for old, new in names.items():
        key = key.replace(f".{old}.", f".{new}.")
    return key


@pytest.mark.thorough
def test_config():
    with pytest.raises(
        ValueError, match="encoder: expected one of 'resnet50', 'senet154', 'densenet161', got 'resnet1"
    ):
        _build("hu.model", {"encoder": "resnet18"})
    module, _ = _build("hu.model", {"align_corners": False})
    assert not module.align_corners


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upsampler", "size", "shape"), [("bilinear", (37, 50), (20, 26)), thorough("indexnet", (33, 34), (18, 18))]
)
def test_any_size_and_type(upsampler, size, shape):
    """Twice the size of the map at stride 4."""
    check_types(partial(HuDepthNetwork, upsampler=upsampler, **SMALL), (1, *shape, 1), size)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["senet154", "densenet161"])
def test_any_size_of_other_backbones(backbone):
    """Twice the size of the first map: 35 x 50 -> 18 x 25 -> 9 x 12 by SENet's pooling without padding, 9 x 13 else."""
    sides = {"senet154": (18, 24), "densenet161": (18, 26)}[backbone]
    for upsampler in ("bilinear", "indexnet"):
        check_types(partial(HuDepthNetwork, backbone=backbone, upsampler=upsampler), (1, *sides, 1), (35, 50))


@pytest.mark.slow
def test_gradients():
    """Of every parameter, index networks included, at odd sizes."""
    graph, params, rest = nnx.split(filled(partial(HuDepthNetwork, upsampler="indexnet", **SMALL)), nnx.Param, ...)
    params = jax.tree.map(lambda x: x if x.ndim < 2 else x * (4 / np.prod(x.shape[:-1]) ** 0.5), params)

    def loss(params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        return jnp.mean(jnp.sin(network(x)))

    gradients, grad_x = jax.jit(jax.grad(loss, (0, 1)))(params, image(33, 50))
    assert_finite((gradients, grad_x))
    assert [path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])] == []


@pytest.mark.thorough
def test_enlarges_step_by_step():
    """By the index maps of all maps between, as Fig. 13 of Index Networks has it."""
    network = filled(partial(HuDepthNetwork, upsampler="indexnet", **SMALL))
    network.eval()
    maps = [
        image(h, w)[..., :1] * np.linspace(1, 2, c, dtype=np.float32)
        for h, w, c in ((17, 16, 4), (9, 8, 8), (5, 4, 12))
    ]

    @jax.jit
    def run(maps):
        stem, quarter, eighth = maps
        indices = network._indices([*maps, eighth])[:2]
        even = jnp.concatenate([stem, stem[:, -1:]], axis=1), jnp.concatenate([quarter, quarter[:, -1:]], axis=1)
        by_hand = [net(x).decoder for net, x in zip(network.index_networks, even, strict=False)]
        y = ops.indexed_upsample(eighth, by_hand[1])[:, :9]
        y = ops.indexed_upsample(y, by_hand[0])
        return (indices, network._enlarge(lambda y: y, eighth, [(18, 16), (9, 8)], indices)), (by_hand, y)

    found, expected = run(maps)
    assert_close(found, expected, 1e-6)


def test_fit():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(fit(x, (5, 2))[0, :, :, 0], [[0, 1], [4, 5], [8, 9], [8, 9], [8, 9]])


@pytest.mark.thorough
def test_errors():
    with pytest.raises(ValueError, match="upsampler: expected one of 'bilinear', 'indexnet', got 'carafe'"):
        HuDepthNetwork(upsampler="carafe", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="backbone: expected one with maps at the strides 2, 4, 8, 16 and 32"):
        abstract(partial(HuDepthNetwork, backbone="mit_b0"))
    with pytest.raises(ValueError, match="x: expected shape"):
        abstract(partial(HuDepthNetwork, **SMALL))(image()[..., :2])
