from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, initial, random, scratch
from tests.oracles.dysample import dysample as oracle
from tests.registry.examples import thorough

each_style = pytest.mark.parametrize("style", ["lp", "pl"])
each_scope = pytest.mark.parametrize("dynamic_scope", [False, True], ids=["static", "dynamic"])


@pytest.mark.parametrize("case", goldens.cases("dysample/*", quick={"lp_g4_s2", "pl_g1_s2_dyscope"}))
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize(
    "grid, scale, groups", [((3, 4), (2, 2), 4), thorough((5, 2), (2, 3), 3), ((1, 1), (3, 4), 1)], ids=str
)
@each_style
@each_scope
def test_equals_the_loops(grid, scale, groups, style, dynamic_scope):
    features = 12
    options = dict(style=style, groups=groups, dynamic_scope=dynamic_scope)
    module, params = drawn(nn.DySample, features, scale=scale, **options)
    x = random(2, *grid, features)
    assert_close(call(module, x), oracle(x, params, scale, style, groups), 1e-5)


@each_style
@each_scope
def test_starts_as_bilinear(style, dynamic_scope):
    x = random(1, 4, 5, 8)
    module = initial(nn.DySample, 8, scale=2, style=style, dynamic_scope=dynamic_scope)
    bilinear = jax.jit(partial(ops.resize, scale=2, method="bilinear"))(x)
    assert_close(call(module, x), bilinear, 0.01)
    module.offset.kernel[...] = jnp.zeros_like(module.offset.kernel[...])
    assert_close(call(module, x), bilinear, 1e-6)


def test_parameters():
    up = lambda **options: count(abstract(nn.DySample, 256, scale=2, **options))  # noqa: E731
    assert up() == 32 * 257
    assert up(dynamic_scope=True) == 32 * 257 + 32 * 256
    assert up(style="pl") == 8 * 65
    assert up(style="pl", dynamic_scope=True) == 8 * 65 + 8 * 64


@pytest.mark.parametrize("gradients, bound", [(False, 1.0), (True, 3.0)])
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.DySample, 256, scale=2)
    assert scratch(module, (1, 64, 64, 256), gradients=gradients) <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(style="lpl"), "style: expected one of 'lp', 'pl', got 'lpl'"),
        (dict(groups=4), "groups: expected a divisor of in_features = 6, got 4"),
        (dict(style="pl"), r"scale\[0\] \* scale\[1\]: expected a divisor of in_features = 6, got 4"),
        (dict(scale=(2, 0)), "scale: expected an integer >= 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.DySample(6, **(dict(scale=2, groups=2, rngs=nnx.Rngs(0)) | options))


def test_bad_input():
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 8\), got shape \(1, 3, 4, 5\)"):
        abstract(nn.DySample, 8, scale=2)(jnp.ones((1, 3, 4, 5)))


def test_state_dict_of_another_scale():
    golden = goldens.load("dysample/pl_g2_s2")
    with pytest.raises(ValueError, match=r"init_pos: expected shape \(1, 4, 1, 1\)"):
        interop.from_torch("DySample", golden.params, golden.config | {"scale": 1})
