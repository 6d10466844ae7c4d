import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import models, ops
from jaxup.interop.backbones import Shapes
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, check_reach, initial
from tests.registry.examples import thorough

COUNTS = {
    "SA_M1_F8": 73_241,
    "SA_M1_F16": 131_729,
    "SA_M1_F32": 326_273,
    "SA_M2_F32": 363_201,
    "DJF": 56_323,
    "DJFR": 56_323,
    "DJF+": 583_683,
    "DJFScaled+": 374_787,
}


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def small(**options):
    return initial(models.AttentionJointNetwork, features=4, mixing_layers=1, widths=(6, 5), **options)


def unfilled():
    return abstract(models.AttentionJointNetwork, features=4, mixing_layers=1, widths=(6, 5))


def small_djf(**options):
    return initial(models.DJF, widths=(4, 3), joint_widths=(4, 2), **options)


@pytest.mark.parametrize("preset", models.JOINT_PRESETS)
def test_parameter_counts_of_the_presets(preset):
    network = nnx.eval_shape(lambda: models.make_joint_network(preset, rngs=Shapes()))
    assert sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param))) == COUNTS[preset]


def test_parameter_ratio_of_the_paper():
    """FDKN "having around 1.9x more parameters" than SA_M2_F32: FDKN's layers (its Table 1) have 693,856 weights."""

    def stream(channels):
        widths = [16, 32, 32, 64, 64, 128, 128]
        convolutions = sum(9 * i * o + o for i, o in itertools.pairwise(widths))
        return convolutions + sum((128 + 1) * 16 * n * channels for n in (1, 2)) + 2 * (32 + 64 + 128)

    assert 2 * stream(9) / COUNTS["SA_M2_F32"] == pytest.approx(1.9, abs=0.05)


@pytest.mark.thorough  # scale 4 is in what the command does by default
@pytest.mark.parametrize("scale", [2, 8])
def test_one_network_serves_all_scales(scale):
    out = call(small(), random(2, 2, 3, 1), random(2, 2 * scale, 3 * scale, 3))
    assert out.shape == (2, 2 * scale, 3 * scale, 1)
    assert_finite(out)


@pytest.mark.thorough
def test_follows_algorithm_1():
    """The stages spelled out with the module's own layers."""
    network, x, guide = small(kernel_size=3), random(1, 3, 2, 1), random(1, 12, 8, 3, seed=1)

    @nnx.jit
    def algorithm(network, x, guide):
        value, guide_map = network.target_cnn(x), network.guide_cnn(guide)
        for factor in (2, 1):
            height, width = guide.shape[1] // factor, guide.shape[2] // factor
            blocks = guide_map.reshape(1, height, factor, width, factor, 4)
            mixed = jnp.concatenate([ops.zero_upsample(value, scale=2), blocks.mean((2, 4))], -1)
            mixed = network.mixing_cnn[0](mixed)
            options = dict(scale=2, kernel_size=3, positions=(network.px[...], network.py[...]))
            value = nnx.relu(ops.attention_upsample(mixed[..., :4], mixed[..., 4:], value, **options))
        return network.final_cnn(value)

    assert_close(call(network, x, guide), algorithm(network, x, guide), 1e-6)


def test_residual_of_djf_starts_as_bicubic():
    x, guide = random(1, 4, 5, 1), random(1, 16, 20, 3)
    djf = small_djf(residual=True)
    assert_close(call(djf, x, guide), jax.jit(partial(ops.resize, scale=4, method="bicubic"))(x), 1e-6)


def test_cropped_djf():
    """Two zeros around every layer of the streams, so also around the 1x1 one; six pixels less on each side."""
    x, guide = random(1, 20, 21, 1), random(1, 20, 21, 3)
    djf = small_djf(residual=True, cropped=True)
    assert_close(call(djf, x, guide), x[:, 6:-6, 6:-6], 1e-6)
    first, cut = djf.guide_cnn.convs[0], slice(2, -2)
    assert nnx.eval_shape(djf.guide_cnn, guide).shape == (1, 20, 21, 1)
    same = small_djf(residual=True)
    assert_close(call(first, guide), np.asarray(call(same.guide_cnn.convs[0], guide))[:, cut, cut], 1e-6)


@pytest.mark.thorough
def test_residual_of_attention_starts_as_an_average_of_the_input():
    x, guide = random(1, 4, 5, 1), random(1, 16, 20, 3)
    network = small(residual=True)
    out = call(network, x, guide)
    assert x.min() <= out.min() and out.max() <= x.max() and np.std(out) > 0.05
    assert_close(call(network, np.ones_like(x), guide), np.ones_like(out), 1e-6)


@pytest.mark.thorough
def test_the_guide_matters():
    x, guide = random(1, 4, 4, 1), random(1, 16, 16, 3)
    for network in (small(), small_djf()):
        assert np.abs(call(network, x, guide) - call(network, x, 1 - guide)).max() > 1e-2


REACHING = {
    "attention": (lambda: small(residual=True), 2),
    "djf": (lambda: small_djf(), 2),
}


@pytest.mark.parametrize("name", [thorough("attention"), "djf"])
def test_reach(name):
    make, scale = REACHING[name]
    check_reach(make(), scale)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: unfilled()(random(1, 2, 2, 1), random(1, 6, 6, 3)),
            r"guide: expected the batch of x and 2, 4, 8, \.\.\.",
        ),
        (lambda: unfilled()(random(1, 2, 2, 1), random(1, 4, 8, 3)), "guide: expected the batch of x"),
        (lambda: unfilled()(random(1, 2, 2, 1), random(2, 4, 4, 3)), "guide: expected the batch of x"),
        (lambda: unfilled()(random(1, 2, 2, 1), random(1, 2, 2, 3)), "guide: expected the batch of x"),
        (lambda: unfilled()(random(1, 2, 2, 2), random(1, 4, 4, 3)), r"x: expected shape \(\*, \*, \*, 1\)"),
        (lambda: small(residual=True, num_heads=2), "num_heads: expected 1 with residual"),
        (lambda: small(kernel_size=1), "kernel_size: expected at least 3"),
        (lambda: small(kernel_size=4), "kernel_size: expected an odd integer"),
        (
            lambda: small_djf(cropped=True)(random(1, 2, 2, 1), random(1, 12, 14, 3)),
            "guide: expected more than 12 rows and columns with cropped",
        ),
        (lambda: models.make_joint_network("SA_M3", rngs=nnx.Rngs(0)), "preset: expected one of 'SA_M1_F8'"),
        (lambda: models.AttentionJointNetwork(features=3, mixing_layers=1, rngs=nnx.Rngs(0)), "features: expected"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
