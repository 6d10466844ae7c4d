"""SegNet: values, the sizes that Index Networks print, and every way to pool and upsample."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop import from_torch
from jaxup.models.resampling import RESAMPLINGS
from jaxup.models.segmentation import SegNet
from tests import goldens
from tests.compare import assert_close
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.models.segmentation.networks import check_gradients, check_round_trip, check_types
from tests.modules import count
from tests.registry.examples import marked

slow = pytest.mark.slow
NIGHTLY = {"segnet/original_w64__64x32", "segnet/reduce_first_w64__32x64"}
QUICK = {"segnet/original_w8__50x67_odd"}
SMALL = dict(features=2, decoder="reduce_first")


@pytest.mark.parametrize("case", marked(goldens.cases("segnet/*"), QUICK, NIGHTLY))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("case", ["original_w8__50x67_odd", "reduce_first_w8__64x64_train"])
@pytest.mark.first(1)
def test_checkpoints(case):
    golden = goldens.load(f"segnet/{case}")
    check_round_trip("SegNet", golden.params, golden.config)
    other = {"original": "reduce_first", "reduce_first": "original"}[golden.config["variant"]]
    with pytest.raises(ValueError, match=r"decoder.1.0.weight: expected shape"):
        from_torch("SegNet", golden.params, golden.config | {"variant": other})


# Index Networks, Table 8: what rows add to SegNet, and half a unit of the last digit: linear, nonlinear, with context.
TABLE = {
    "max-carafe": [(25.35e6 - 24_964_645, 5e3)],
    "holistic": [(23.55e3, 5), (4.90e6, 5e3), (19.55e6, 5e3)],
    "modelwise_o2o": [(16, 0), (56, 0), (152, 0)],
    "shared_o2o": [(80, 0), (280, 0), (760, 0)],
    "unshared_o2o": [(0.02e6, 5e3), (0.08e6, 5e3), (0.22e6, 5e3)],
    "m2o": [(9.76e6, 6e3), (24.44e6, 5e3), (83.02e6, 6e3)],
}
KINDS = ((False, False), (True, False), (True, True))


def test_size():
    """Also those in the docstring."""
    sizes = {decoder: count(abstract(partial(SegNet, 37, decoder=decoder))) for decoder in ("original", "reduce_first")}
    assert sizes == {"original": 29_464_357, "reduce_first": 24_964_645}
    assert all(f"{size:,}" in SegNet.__doc__ for size in sizes.values())


@pytest.mark.thorough
@pytest.mark.parametrize("method", marked(TABLE, {"holistic"}))
def test_printed_sizes(method):
    options = dict(decoder="reduce_first")
    for (nonlinear, context), (added, half) in zip(KINDS, TABLE[method], strict=False):
        network = abstract(partial(SegNet, 37, upsampler=method, nonlinear=nonlinear, context=context, **options))
        assert abs(count(network) - 24_964_645 - added) <= half


PAIRS = [name for name, stage in RESAMPLINGS.items() if stage.packed == 1]


@pytest.mark.thorough
@pytest.mark.parametrize("upsampler", marked([*PAIRS, "bilinear", "fade"], {"holistic-max-unpool"}))
def test_any_image(upsampler):
    """Every pair of stages, and upsamplers behind max pooling, at odd sizes."""
    run = lambda x: SegNet(5, upsampler=upsampler, **SMALL, rngs=nnx.Rngs(0)).outputs(x)  # noqa: E731
    found = nnx.eval_shape(run, jax.ShapeDtypeStruct((1, 37, 50, 3), jnp.float32))
    assert found["logits"].shape == (1, 37, 50, 5)
    up = (lambda n, s: n // s) if upsampler.endswith("max-unpool") else (lambda n, s: -(-n // s))
    assert [y.shape[1:3] for y in found["features"]] == [(up(37, s), up(50, s)) for s in (32, 16, 8, 4, 2)]


@pytest.mark.thorough  # of other networks by default
def test_types():
    check_types(partial(SegNet, 5, upsampler="holistic", **SMALL), (1, 37, 50, 5))


@slow
@pytest.mark.parametrize("upsampler", ["holistic", "max-carafe", "resfu"])
def test_gradients(upsampler):
    options = dict(features=4, decoder="reduce_first", upsampler=upsampler)
    check_gradients(partial(SegNet, 5, **options), image(37, 50))


@pytest.mark.thorough
def test_pools_and_upsamples_with_the_same_indices():
    """The last stage by hand, of a map with odd sides: extended by copies, and cut again."""
    network = filled(lambda rngs: SegNet(5, upsampler="holistic", **SMALL, rngs=rngs))
    network.eval()
    x = image(33, 34)

    @jax.jit
    def run(x):
        first = x
        for layer in network.encoder.stages[0]:
            first = layer(first)
        even = jnp.concatenate([first, first[:, -1:]], axis=1)
        index = network.resampling.down_layers[0](even)
        pooled = ops.indexed_pool(even, index.encoder)
        found = network.outputs(x)
        y = ops.indexed_upsample(found["features"][-1], index.decoder)[:, :33]
        for layer in network.decoder[-1]:
            y = layer(y)
        memory = network.resampling.down(0, network._even(first))[0]
        return (found["logits"], memory), (network.classifier(y), pooled)

    found, expected = run(x)
    assert_close(found, expected, 1e-5)


@slow
def test_max_unpool_by_name_of_the_upsampler_is_the_same():
    """Where all sides are even: both write each value to where pooling found it."""
    pair, guided = (
        filled(lambda rngs, name=name: SegNet(5, upsampler=name, **SMALL, rngs=rngs))
        for name in ("max-unpool", "max_unpool")
    )
    pair.eval()
    guided.eval()

    @jax.jit
    def run(x):
        return pair(x), guided(x)

    plain, other = run(image(32, 32))
    assert_close(plain, other, 1e-6)
    assert np.std(plain) > 0


def test_errors():
    with pytest.raises(ValueError, match="decoder: expected one of 'original', 'reduce_first', got 'mirror'"):
        SegNet(5, decoder="mirror", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="upsampler: expected a pair of stages that keeps the channels"):
        abstract(partial(SegNet, 5, upsampler="space-to-depth", **SMALL))
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        abstract(partial(SegNet, 5, upsampler="unpool", **SMALL))
