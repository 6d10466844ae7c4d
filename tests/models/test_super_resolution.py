from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import models, ops
from jaxup.nn import UPSAMPLERS
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, drawn, initial

COUNTS = {  # Table III, in millions, to two digits
    "attention": {2: (349_569, "0.35"), 4: (694_529, "0.69"), 8: (1_039_489, "1.04")},
    "deconvolution": {2: (709_377, "0.71"), 4: (1_414_145, "1.41"), 8: (2_118_913, "2.12")},
}


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def small(**options):
    return drawn(models.SuperResolutionNetwork, **{"scale": 2, "features": 4, "deviation": 0.3, **options})[0]


def abstract_small(**options):
    return abstract(models.SuperResolutionNetwork, **{"scale": 2, "features": 4, **options})


@pytest.mark.parametrize("upsampler", COUNTS)
def test_parameter_counts_of_the_paper(upsampler):
    for scale, (exact, paper) in COUNTS[upsampler].items():
        options = {"scale": scale, "features": 128, "upsampler": upsampler}
        assert count(abstract_small(**options)) == exact
        assert f"{exact / 1e6:.2f}" == paper


@pytest.mark.thorough
def test_follows_figure_6():
    """Spelled out with the module's own layers."""

    @nnx.jit
    def spelled_out(network, x):
        y = network.first(x)
        y = jnp.where(y > 0, y, network.slope[...][None, None, None] * y)
        for block in network.blocks:
            first, second = block.convs
            y = block.up(y + second(jnp.maximum(first(y), 0)))
        assert y.shape == (1, 12, 20, 4)
        return network.last(y)

    network, x = small(scale=4), random(1, 3, 5, 1)
    assert_close(call(network, x), spelled_out(network, x), 1e-6)


@pytest.mark.parametrize("upsampler", ["carafe", "attention"])
def test_kernels_are_of_the_last_block(upsampler):
    network, x = small(scale=4, upsampler=upsampler), random(1, 3, 5, 1)

    @nnx.jit
    def both(network, x):
        first, last = network.blocks
        return network.kernels(x), last.up.kernels(last.refine(first(network.embed(x))))

    kernels, expected = both(network, x)
    assert kernels.shape[:4] == (1, 12, 20, 1)
    np.testing.assert_array_equal(kernels, expected)


@pytest.mark.parametrize("upsampler", [name for name, entry in UPSAMPLERS.items() if not entry.guided])
@pytest.mark.first(5)
def test_every_upsampler_without_guide_takes_the_place_of_attention(upsampler):
    network = small(features=8, upsampler=upsampler)
    out = call(network, random(2, 3, 4, 1))
    assert out.shape == (2, 6, 8, 1)
    assert_finite(out)


@pytest.mark.thorough
def test_a_gradient_reaches_every_parameter():
    network, x = small(scale=4), random(2, 4, 4, 1)
    graph, params = nnx.split(network)
    gradient = jax.jit(jax.grad(lambda params: jnp.mean(nnx.merge(graph, params)(x) ** 2)))(params)
    for path, leaf in nnx.to_flat_state(gradient):
        assert np.abs(leaf[...]).max() > 0, path


@pytest.mark.thorough
def test_residual_starts_as_bicubic():
    x = random(1, 4, 5, 1)
    expected = jax.jit(partial(ops.resize, scale=4, method="bicubic", cubic_coefficient=-0.5))(x)
    assert_close(call(initial(models.SuperResolutionNetwork, scale=4, features=4, residual=True), x), expected, 1e-6)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small(scale=3), "scale: expected a power of two, got 3"),
        (lambda: small(scale=1), "scale: expected an integer >= 2, got 1"),
        (lambda: small(features=5), "features: expected a multiple of 2 for attention, got 5"),
        (lambda: small(upsampler="sapa"), "upsampler: expected one without a guide: nearest, .* got 'sapa'"),
        (lambda: small(upsampler="karafe"), "did you mean 'carafe'"),
        (lambda: small(kernel_size=4), "kernel_size: expected an odd integer"),
        (
            lambda: abstract_small(upsampler="bilinear").kernels(random(1, 2, 2, 1)),
            "upsampler: expected one that averages by kernels, attention or carafe, got Resize",
        ),
        (lambda: abstract_small()(random(1, 2, 2, 3)), r"x: expected shape \(\*, \*, \*, 1\)"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
