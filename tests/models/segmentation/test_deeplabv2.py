"""DeepLab-v2: the official code, loops over pixels, sizes, and what enlarges the logits."""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models import FDKN, ResNet
from jaxup.models.segmentation import DeepLabV2
from jaxup.nn import DeepGuidedFilter
from jaxup.ops import resize
from tests import goldens
from tests.compare import assert_close
from tests.golden_files import read, shared
from tests.models.segmentation.networks import check_gradients, check_round_trip, check_types
from tests.modules import abstract, count, drawn, random
from tests.oracles import deeplab as oracle

CASE = "deeplabv2/deeplabv2_resnet101__65"


def resnet(dtype, rngs):
    sizes = dict(depth=(1,) * 4, bottleneck=True, widths=(8, 12, 8, 16), stem_features=4)
    return ResNet(**sizes, output_stride=8, contract_dilation=False, style="caffe", dtype=dtype, rngs=rngs)


SMALL = dict(backbone=resnet, dilations=(1, 3))
NETWORK = partial(DeepLabV2, 5, **SMALL)


@pytest.mark.parametrize("case", goldens.cases("deeplabv2/*"))
@pytest.mark.slow
def test_golden(case):
    golden = goldens.load(case)
    goldens.check(golden, half=False)
    check_round_trip("MS_Deeplab", golden.params, {})


def shapes(config):
    """The names and shapes of a state dict."""
    module = nnx.eval_shape(lambda: OPERATORS["MS_Deeplab"](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.state(module)))
    return {name: x.shape for name, x in to_torch("MS_Deeplab", module, config).items()}


@pytest.mark.slow
def test_names():
    """Those of the case, with other numbers of classes, and those of the deep guided filter."""
    recipes = read(shared("goldens"), CASE, generate=()).meta["param_gen"]
    assert shapes({}) == {name: tuple(recipe["shape"]) for name, recipe in recipes.items()}
    found = shapes({"NoLabels": 4, "dgf": True})
    assert found["Scale.layer5.conv2d_list.3.bias"] == (4,)
    new = {name: shape for name, shape in found.items() if not name.startswith("Scale.")}
    assert new == {
        "guided_map_conv1.weight": (64, 3, 1, 1),
        "guided_map_conv1.bias": (64,),
        "guided_map_conv2.weight": (4, 64, 1, 1),
        "guided_map_conv2.bias": (4,),
    }
    with pytest.raises(ValueError, match=r"Scale.conv1.weight: missing"):
        from_torch("MS_Deeplab", {"conv1.weight": np.ones((64, 3, 7, 7), np.float32)}, {})


SIZES = {"bilinear": 44_048_532, "dgf": 44_050_153, "fdkn": 44_751_604}


@pytest.mark.thorough
def test_size():
    """The first as the golden case states it."""
    network = abstract(partial(DeepLabV2, 21))
    added = {"bilinear": 0, "dgf": count(abstract(DeepGuidedFilter, 21, 3)), "fdkn": count(abstract(FDKN))}
    assert {name: count(network) + more for name, more in added.items()} == SIZES
    assert all(f"{size:,}" in DeepLabV2.__doc__ for size in SIZES.values())
    assert isinstance(abstract(NETWORK, upsampler="fdkn").upsampler, FDKN)
    assert isinstance(abstract(NETWORK, upsampler="dgf").upsampler, DeepGuidedFilter)


@pytest.mark.parametrize("size", [(21, 26), (9, 1)], ids=str)
@pytest.mark.first(1, 2)
def test_equals_the_loops(size):
    """Sides whose maps are even and odd; kernels are small, as activations would grow."""
    network, _ = drawn(NETWORK, deviation=0.2)
    network.eval()
    x = random(1, *size, 3)
    found = nnx.jit(lambda network, x: network.outputs(x))(network, x)
    params = {".".join(map(str, path)): np.float64(v[...]) for path, v in nnx.to_flat_state(nnx.state(network))}
    expected = oracle.scales(np.float64(x[0]), params, (1, 3))
    assert len(found["scales"]) == 3
    for y, want in zip(found["scales"], expected, strict=True):
        assert_close(y[0], want, 1e-4)
    coarse = oracle.coarse(expected)
    assert_close(found["coarse"][0], coarse, 1e-4)
    assert_close(found["logits"][0], oracle.enlarged(coarse, size), 1e-4)


@pytest.mark.thorough
def test_sizes_of_maps():
    """Those of the official formula, which rounds up at the pooling."""
    for side in (1, 34, 64):
        maps = nnx.eval_shape(lambda n=side: resnet(jnp.float32, Shapes())(jnp.ones((1, n, n + 5, 3))))
        for axis, length in ((1, side), (2, side + 5)):
            after_stem = (length + 1) // 2
            assert maps[0].shape[axis] == after_stem
            assert maps[-1].shape[axis] == (-(-(after_stem + 1) // 2) + 1) // 2


@pytest.mark.thorough
@pytest.mark.parametrize("upsampler", ["fdkn", "bilinear", "dgf"])
@pytest.mark.first(1, 2)
def test_any_image(upsampler):
    check_types(partial(NETWORK, upsampler=upsampler, scales=(1.0, 0.5)), (1, 37, 50, 5))


@pytest.mark.thorough
def test_a_guide_of_its_own():
    """Its size is that of the logits."""
    run = lambda x, guide: NETWORK(upsampler="dgf", scales=(1.0,), rngs=Shapes())(x, guide)  # noqa: E731
    images = [jax.ShapeDtypeStruct((2, *size, 3), jnp.float32) for size in ((17, 20), (41, 38))]
    assert nnx.eval_shape(run, *images).shape == (2, 41, 38, 5)


class Recorder(nnx.Module):
    """In the place of the upsampler: remembers what it is given."""

    given: ClassVar = []

    def __init__(self, **options):
        self.options = {name: options[name] for name in ("in_features", "guide_features")}

    def __call__(self, *given):
        self.given[:] = given
        return given[0]


@pytest.mark.thorough
def test_what_the_upsampler_sees():
    """The coarse logits and the image; FDKN the same logits enlarged, each channel by itself."""
    network, _ = drawn(NETWORK, upsampler=Recorder, scales=(1.0, 0.5))
    assert network.upsampler.options == {"in_features": 5, "guide_features": 3}
    network.eval()
    x = random(1, 17, 12, 3)

    @jax.jit
    def run(x):
        found = network.outputs(x)
        return found, tuple(Recorder.given)

    found, (coarse, image) = run(x)
    assert_close((coarse, image, found["logits"]), (found["coarse"], x, coarse), 0.0)
    fdkn, _ = drawn(FDKN, deviation=0.1)
    fdkn.eval()

    network.upsampler = fdkn

    @jax.jit
    def enlarged(coarse, x):
        y = resize(coarse, size=(17, 12), method="bilinear", align_corners=True)
        return network._enlarged(coarse, x), jnp.concatenate([fdkn(y[..., i : i + 1], x) for i in (0, 4)], axis=3)

    found, expected = enlarged(coarse, x)
    assert found.shape == (1, 17, 12, 5)
    assert_close(found[..., jnp.array([0, 4])], expected, 1e-5)


@pytest.mark.parametrize("upsampler", ["dgf", "fdkn"])
@pytest.mark.slow
def test_gradients(upsampler):
    check_gradients(partial(NETWORK, upsampler=upsampler, scales=(1.0, 0.5)), random(1, 21, 18, 3))


@pytest.mark.thorough
def test_errors():
    with pytest.raises(ValueError, match=r"backbone: expected one of 'resnet18', .* got 'mit_b0'"):
        abstract(partial(DeepLabV2, 5, backbone="mit_b0"))
    for options, message in (
        ({"upsampler": "sapa"}, "upsampler: expected one of 'bilinear', 'dgf', 'fdkn', got 'sapa'"),
        ({"scales": (0.5, 1.0)}, "scales: expected 1, and then numbers above 0 and below 1"),
        ({"scales": (1.0, 1.5)}, "scales: expected 1, and then numbers"),
        ({"dilations": ()}, "dilations: expected at least one"),
        ({"dilations": (0,)}, "dilations: expected an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            abstract(partial(NETWORK, **options))
    network = abstract(NETWORK)
    with pytest.raises(ValueError, match="x: expected shape"):
        network(random(1, 9, 9, 2))
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, \*, \*, \*\)"):
        network(random(1, 9, 9, 3), random(2, 9, 9, 3))
