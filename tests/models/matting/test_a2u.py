"""A2U matting: values, sizes, names, and what its options are for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch
from jaxup.interop.backbones import Shapes
from jaxup.models.matting import A2UMatting
from jaxup.models.matting.a2u import _Layer, _multiple
from jaxup.models.resampling import RESAMPLINGS
from tests import goldens
from tests.compare import assert_finite
from tests.interop.test_networks import shapes as names
from tests.models.backbones.test_backbones import abstract, filled
from tests.models.segmentation.networks import check_dropout, check_round_trip
from tests.modules import count, random
from tests.registry.examples import marked, thorough

slow = pytest.mark.slow
OPTIONS = dict(dtype=jnp.float32, rngs=nnx.Rngs(0))
SMALL = dict(features=4, aspp=False)
OFFICIAL = dict(stride=16, aspp=True, decoder_conv_operator="residual_conv", decoder_kernel_size=3) | dict(
    up_kernel_size=3, encode_kernel_size=6, downupsample_group=1, share=True
)


@pytest.mark.thorough
@pytest.mark.parametrize("case", goldens.cases("a2u_matting/*"))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.slow
def test_checkpoint():
    golden = goldens.load("a2u_matting/a2u_share__os16_aspp")
    check_round_trip("resnetmat", golden.params, golden.config)
    for changed in ({"stride": 32}, {"decoder_block_num": 1}):  # which change no shape
        from_torch("resnetmat", golden.params, golden.config | changed)
    with pytest.raises(ValueError, match=r"dconv_pp.aspp1.atrous_conv.0.weight: unexpected"):
        from_torch("resnetmat", golden.params, golden.config | {"aspp": False})


@pytest.mark.thorough
def test_size():
    """Also those in the docstring, and of the golden vectors' second network."""
    size = lambda **options: count(abstract(partial(A2UMatting, **options)))  # noqa: E731
    network = abstract(A2UMatting)
    assert (count(network), count(network.resampling)) == (8_089_235, 40_232)
    assert size(shared=False) == 8_269_451
    assert size(aspp=False, decoder_kernel_size=5, encoder_kernel_size=5) == 9_405_347
    assert all(text in A2UMatting.__doc__ for text in ("8,089,235", "40,232", "8,269,451"))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changed, shapes",
    [
        ({"up_kernel_size": 5, "share": False}, {"bilinear0.bconv_UP.1": (100, 64), "bilinear1.bconv_U.1": (64, 64)}),
        thorough({"downupsample_group": 2}, {"layer2_1.bilinear.bconv_DP.1": (72, 128)}),
        thorough({"decoder_conv_operator": "std_conv", "aspp": False}, {"decoder_layer4.dconv1.0": (128, 128, 3, 3)}),
        thorough(
            {"decoder_conv_operator": "dep_sep_conv"}, {"decoder_layer1.dconv.0": (64, 1, 3, 3), "pred.1": (1, 1, 3, 3)}
        ),
    ],
    ids=str,
)
@pytest.mark.first(1, 2)
def test_configs(changed, shapes):
    """Names and shapes of the official network."""
    found = names("resnetmat", OFFICIAL | changed)
    for name, shape in shapes.items():
        assert found[f"{name}.weight"][: len(shape)] == shape
    assert ("dconv_pp.bottleneck_conv.0.weight" in found) == (OFFICIAL | changed)["aspp"]


def test_sizes_that_are_no_multiples_of_16():
    """Mirrored at the bottom and right, whatever the size, and a matte of the size that came."""
    for height, width in ((14, 32), (1, 15)):
        x = random(2, height, width, 4)
        expected = np.pad(x, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(jax.jit(_multiple)(x), expected)


@pytest.mark.parametrize("upsampler", ["max-unpool", thorough("a2u")])
@pytest.mark.slow
def test_types(upsampler):
    for inside, dtype in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        network = abstract(partial(A2UMatting, features=4, upsampler=upsampler, dtype=inside))
        y = nnx.eval_shape(lambda network, x: network(x), network, jax.ShapeDtypeStruct((1, 37, 50, 4), dtype))
        assert (y.shape, y.dtype) == ((1, 37, 50, 1), dtype)


PAIRS = [name for name, stage in RESAMPLINGS.items() if stage.packed == 1]


@pytest.mark.thorough
@pytest.mark.parametrize("upsampler", marked(PAIRS, {"max-unpool"}, set(PAIRS) - {"max-bilinear", "holistic", "m2o"}))
def test_any_pair_of_stages(upsampler):
    run = lambda x: A2UMatting(upsampler=upsampler, **SMALL, rngs=Shapes())(x)  # noqa: E731
    assert nnx.eval_shape(run, jax.ShapeDtypeStruct((1, 16, 32, 4), jnp.float32)).shape == (1, 16, 32, 1)


def test_initial_values():
    """Xavier's with the gain of the leaky ReLU, also of the depthwise convolutions, whose fan-out is of all filters."""
    for layer, fans in ((_Layer(8, 64, 3, **OPTIONS), 9 * 72), (_Layer(64, 64, 5, depthwise=True, **OPTIONS), 25 * 65)):
        kernel = np.asarray(layer.conv.kernel[...])
        deviation = np.sqrt(2 / (1 + 0.01**2)) * np.sqrt(2 / fans)
        assert abs(kernel.std() / deviation - 1) < 5 / np.sqrt(2 * kernel.size)
        assert np.abs(kernel).max() > 2.5 * deviation  # not truncated


@slow
def test_gradients():
    """Every parameter has one, and all are finite."""
    graph, params, rest = nnx.split(filled(partial(A2UMatting, features=4, groups=2)), nnx.Param, ...)

    @jax.jit
    def gradients(params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        return jnp.mean(jnp.sin(network(x)))

    found = jax.grad(gradients)(params, random(1, 16, 32, 4))
    assert_finite(found)
    assert [path for path, g in nnx.to_flat_state(found) if not np.any(g[...])] == []


@slow
def test_dropout_is_asked_for():
    check_dropout(filled(partial(A2UMatting, features=4)), random(1, 16, 16, 4))


def test_errors():
    for options, message in (
        (dict(decoder="dense"), "decoder: expected one of 'residual', 'plain', 'separable', got 'dense'"),
        (dict(features=5), "features: expected"),
        (dict(upsampler="space-to-depth"), "upsampler: expected a pair of stages that keeps the channels"),
        (dict(decoder_kernel_size=4), "decoder_kernel_size: expected an odd integer, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            abstract(partial(A2UMatting, **options))
    with pytest.raises(ValueError, match="decoder_conv_operator: expected one of"):
        from_torch("resnetmat", {}, OFFICIAL | {"decoder_conv_operator": "conv"})
    with pytest.raises(ValueError, match="stride: expected one of"):
        from_torch("resnetmat", {}, OFFICIAL | {"stride": 4})
