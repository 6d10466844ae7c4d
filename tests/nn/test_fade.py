from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from jaxup.ops import tiling
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, random
from tests.oracles.fade import fade, semi_shift
from tests.registry.examples import thorough


@pytest.mark.parametrize("case", goldens.cases("fade/*", quick={"h2l__fade_k3", "l2h__semishiftup_k3", "l2h__lite_k5"}))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize("options", [dict(), dict(gated=False), dict(lite=True)], ids=["gated", "ungated", "lite"])
@pytest.mark.parametrize("grid, scale", [((3, 2), (2, 3)), thorough((1, 1), (3, 3))], ids=str)
def test_equals_the_loops(options, grid, scale):
    guide_features = 3 if options.get("gated") is False else 4
    sizes = dict(scale=scale, kernel_size=3, embedding_features=6)
    module, params = drawn(nn.FADE, 4, guide_features, **sizes, **options)
    x, guide = random(2, *grid, 4), random(2, scale[0] * grid[0], scale[1] * grid[1], guide_features)
    assert_close(call(module, x, guide), fade(x, guide, params, scale, 3), 1e-5)


def test_semi_shift_with_a_wide_convolution():
    module, params = drawn(nn.SemiShift, 4, 3, 7, kernel_size=5, embedding_features=6)
    x, guide = random(1, 3, 2, 4), random(1, 6, 4, 3)
    assert_close(call(module, x, guide), semi_shift(x, guide, params, (2, 2)), 1e-5)


def test_kernels_give_the_outputs():
    module, _ = drawn(nn.FADE, 4, 3, gated=False, kernel_size=3, embedding_features=6)
    x, guide = random(1, 3, 2, 4), random(1, 6, 4, 3)
    kernels, out = nnx.jit(lambda m, *xs: (m.kernels(*xs), m(*xs)))(module, x, guide)
    assert_close(jax.jit(partial(ops.reassemble, scale=2, kernel_size=3))(x, kernels), out, 1e-6)


@pytest.mark.parametrize("bias, expected", [(100.0, 1), (-100.0, 0)])
def test_gate_chooses_guide_or_upsampled(bias, expected):
    module, _ = drawn(nn.FADE, 4, 4, deviation=0.1)
    module.gate.bias[...] = jnp.array([bias])
    x, guide = jnp.full((1, 7, 7, 4), 2.0), random(1, 14, 14, 4)
    out, inside = np.asarray(call(module, x, guide)), np.s_[:, 4:-4, 4:-4]
    # Where no window leaves the image, a constant stays what it is.
    np.testing.assert_allclose(out[inside], guide[inside] if expected else 2, rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("lite", [False, True])
def test_strips_of_a_large_guide(monkeypatch, lite):
    """Values and gradients are those of the whole."""
    module, _ = drawn(nn.FADE, 4, 4, embedding_features=6, lite=lite)
    graph, state = nnx.split(module)
    inputs = state, random(2, 10, 3, 4), random(2, 20, 6, 4)

    def results():
        run = jax.jit(lambda state, *xs: nnx.merge(graph, state)(*xs))
        pulled = jax.jit(jax.grad(lambda *xs: jnp.sum(run(*xs) ** 2), argnums=(0, 1, 2)))
        return run(*inputs), pulled(*inputs)

    whole = results()
    monkeypatch.setattr(tiling, "STRIP_BYTES", 1500)  # of 20 rows of 288 bytes, or of 1200
    assert tiling.needs_strips(inputs[2], margin=1, row_bytes=288)
    for found, expected in zip(jax.tree.leaves(results()), jax.tree.leaves(whole), strict=True):
        assert_close(found, expected, 1e-5)


def test_parameter_counts():
    """As in the docstrings."""
    gated = abstract(nn.FADE, 256, 256)
    assert count(gated) == 513 * 64 + 9 * 64 * 25 + 25 + 257
    lite = abstract(nn.FADE, 256, 128, gated=False, lite=True)
    assert count(lite) == (256 + 128 + 2 + 9) * 25


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(guide_features=3), "guide_features: expected in_features = 4 where there is a gate, got 3"),
        (dict(kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (dict(scale=0), "scale: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        nn.FADE(**(dict(in_features=4, guide_features=4, rngs=nnx.Rngs(0)) | change))


def test_bad_maps():
    module = abstract(nn.FADE, 4, 4)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, \*\), got shape \(1, 4, 4, 4\)"):
        module(random(1, 2, 3, 4), random(1, 4, 4, 4))


def test_state_dict_of_another_form():
    golden = goldens.load("fade/l2h__fade_k3")
    params = {k: v for k, v in golden.params.items() if k != "ker_generator.compressor_de.weight"}
    with pytest.raises(ValueError, match=r"ker_generator\.compressor_de\.weight: missing"):
        interop.from_torch("FADE", params, golden.config)
