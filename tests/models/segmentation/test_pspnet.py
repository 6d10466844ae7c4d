"""PSPNet: the official code, the printed sizes, and what stands where."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch
from jaxup.models.backbones.layers import ConvNorm
from jaxup.models.segmentation import PSPNet
from jaxup.models.segmentation.heads import PyramidPooling
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
from tests.modules import call, count
from tests.registry.examples import marked

QUICK = "v1c_r18_c32__64x64_train"
SMALL = dict(backbone=small_resnet(8), features=8, auxiliary_features=6)


NIGHTLY = {"pspnet/v1c_r50_c512__64x64", "pspnet/v1c_r50_c32__64x48_train"}


@pytest.mark.parametrize("case", marked(goldens.cases("pspnet/*"), set(), NIGHTLY))
@pytest.mark.first(1, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


NIGHTLY = {"pspnet/v1c_r50_c512__64x64", "pspnet/v1c_r50_c32__64x48_train"}


@pytest.mark.thorough
@pytest.mark.parametrize("case", marked(["plain_r50_c32__49x73", QUICK], {QUICK}))
def test_checkpoints(case):
    """Both stems; another depth is an error that names the first key."""
    golden = goldens.load(f"pspnet/{case}")
    check_round_trip("PSPNet", golden.params, golden.config)
    with pytest.raises(ValueError, match=r"backbone.layer3.6.conv1.weight: missing"):
        from_torch("PSPNet", golden.params, golden.config | {"depth": 101})
    with pytest.raises(ValueError, match="stem: expected one of 'v1c', 'plain', got 'v1d'"):
        from_torch("PSPNet", golden.params, golden.config | {"stem": "v1d"})


# ReSFU, Table I, in millions: ResNet-50, ResNet-101.
TABLE = {
    "bilinear": (46.68, 65.67),
    "deconvolution": (50.87, 69.87),
    "pixel_shuffle": (50.88, 69.87),
    "stack_jbu": (46.95, 65.95),
    "carafe": (46.86, 65.85),
    "fade": (46.78, 65.77),
    "sapa": (46.72, 65.71),
    "dysample": (46.68, 65.67),
    "resfu": (46.73, 65.72),
}


SIZES = {50: 46_678_006, 101: 65_670_134}


@pytest.mark.thorough
@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_size(depth):
    network = abstract(partial(PSPNet, 150, backbone=f"resnet{depth}", auxiliary_features=None))
    assert count(network) == SIZES[depth]
    assert f"{SIZES[depth]:,}" in PSPNet.__doc__


@pytest.mark.parametrize("upsampler", TABLE)
@pytest.mark.first(3)
def test_printed_sizes(upsampler):
    """To the digits that are printed; the upsampler sees 512 channels and the stem's 64 under any backbone."""
    backbone = small_resnet(8, stem_features=64)
    network = abstract(partial(PSPNet, 150, backbone=backbone, auxiliary_features=None, upsampler=upsampler))
    added = 0 if network.upsampler is None else count(network.upsampler)
    for size, printed in zip(SIZES.values(), TABLE[upsampler], strict=True):
        assert (size + added) / 1e6 == pytest.approx(printed, abs=0.0055)


@pytest.mark.thorough
def test_any_image():
    check_types(partial(PSPNet, 5, upsampler="sapa", **SMALL), (1, 19, 25, 5))


@pytest.mark.thorough
@pytest.mark.slow
def test_gradients():
    check_gradients(partial(PSPNet, 5, upsampler="sapa", pool_scales=(3,), **SMALL), image(37, 50))


class Recorder(nnx.Module):
    """In the place of the upsampler: doubles, and remembers what it is given."""

    guides, given = (4, 4), []

    def __call__(self, *given):
        self.given[:] = given
        return 2 * given[0]


@pytest.mark.thorough
def test_what_the_upsampler_sees():
    """The features, the stem's map before and after max pooling, and the image; the classifier follows."""
    network = filled(lambda rngs: PSPNet(5, upsampler="sapa", rngs=rngs, **SMALL))
    assert network.upsampler.guides == (4, 4) and len(network.upsampler.steps) == 2
    network.upsampler = Recorder()
    network.eval()

    @jax.jit
    def run(x):
        found = network.outputs(x)
        y = network.pooling.fused(found["features"][-1], network.bottleneck)
        expected = network.classifier(2 * y), network.auxiliary(found["features"][-2])
        return found, (*Recorder.given, y), expected

    x = image(21, 24)
    found, (seen, (stem, pooled), of_image, y), (logits, auxiliary) = run(x)
    assert_close((found["logits"], found["auxiliary"], seen), (logits, auxiliary, y), 0.0)
    assert_close((stem, of_image), (found["features"][0], x), 0.0)
    padded = np.pad(stem, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-np.inf)
    corners = [[padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(6)] for i in range(6)]
    assert_close(pooled, np.asarray([[c.max((1, 2)) for c in row] for row in corners]).transpose(2, 0, 1, 3), 0.0)


@pytest.mark.parametrize("upsampler", ["deconvolution", "pixel_shuffle", "resfu"])
def test_direct(upsampler):
    assert len(abstract(lambda rngs: PSPNet(5, upsampler=upsampler, rngs=rngs, **SMALL)).upsampler.steps) == 1


@pytest.mark.thorough
def test_pooling_by_loops():
    """Cells that overlap, and more cells than pixels; the convolution before the resizing, or after it."""
    x = image(4, 7)[..., :2]
    for first in (False, True):
        pooling = filled(
            lambda rngs, first=first: PyramidPooling(2, 3, (3, 6), resize_first=first, rngs=rngs, dtype=x.dtype)
        )
        pooling.eval()
        expected = [x]
        for n, branch in zip((3, 6), pooling.branches, strict=True):
            cells = np.zeros((1, n, n, 2), np.float32)
            for i in range(n):
                for j in range(n):
                    rows, cols = slice(i * 4 // n, -(-(i + 1) * 4 // n)), slice(j * 7 // n, -(-(j + 1) * 7 // n))
                    cells[:, i, j] = x[:, rows, cols].mean((1, 2))
            resized = partial(jax.image.resize, shape=(1, 4, 7, 2 if first else 3), method="linear", antialias=False)
            expected.append(call(branch, resized(cells)) if first else resized(call(branch, cells)))
        joined = jnp.concatenate(expected, axis=3)
        assert_close(call(pooling, x), joined, 1e-5)
        layer = filled(lambda rngs: ConvNorm(8, 2, 3, rngs=rngs, dtype=x.dtype))
        layer.eval()
        assert_close(pooling.fused(x, layer), call(layer, joined), 1e-5)


@pytest.mark.thorough
def test_dropout():
    check_dropout(filled(lambda rngs: PSPNet(5, dropout=0.5, rngs=rngs, **SMALL)), image(16, 16))


@pytest.mark.thorough
def test_errors():
    build = lambda **options: nnx.eval_shape(lambda: PSPNet(5, **options, rngs=nnx.Rngs(0)))  # noqa: E731
    with pytest.raises(ValueError, match=r"backbone: expected one of 'resnet18', .* got 'mit_b0'"):
        build(backbone="mit_b0")
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        build(**SMALL, upsampler="sapas")
    with pytest.raises(ValueError, match="dropout: expected a number from 0 to below 1"):
        build(**SMALL, dropout=1.0)
    with pytest.raises(ValueError, match="x: expected shape"):
        build(**SMALL)(image()[..., :2])
