from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn, ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, drawn, initial, random, randomised, scratch
from tests.oracles.jbu import jbu, stack_jbu
from tests.registry.examples import thorough


@pytest.mark.parametrize("case", goldens.cases("jbu/*", quick={"jbu__r1", "op_adaptive_conv__k3"}))
@pytest.mark.first(1, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


@pytest.mark.parametrize("case", ["jbu__r3_default", "stack__16x"])
@pytest.mark.first(1)
def test_round_trip(case):
    golden = goldens.load(f"jbu/{case}")
    operator = golden.meta["operator"]
    module = nnx.jit(lambda params: interop.from_torch(operator, params, golden.config))(golden.params)
    back = interop.to_torch(operator, module, golden.config)
    assert set(back) == set(golden.params)
    for name, x in golden.params.items():
        np.testing.assert_array_equal(back[name], x)


@pytest.mark.parametrize(
    "grid, size, radius, fixup",
    [((3, 2), (5, 6), 1, False), ((1, 1), (3, 2), 2, True), thorough((2, 3), (1, 1), 1, False)],
    ids=str,
)
def test_equals_the_loops(grid, size, radius, fixup):
    """Any ratio, windows wider than the image, and images of one pixel."""
    module, params = drawn(nn.JBU, 4, 3, key_features=5, radius=radius, fixup=fixup, dropout=0)
    x, guide = random(2, *grid, 4), random(2, *size, 3)
    assert_close(call(module, x, guide), jbu(x, guide, params, radius), 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("fixup", [False, True])
@pytest.mark.first(1)
def test_stack_equals_the_loops(fixup):
    module = initial(nn.StackJBU, 2, 3, scale=4, radius=1, key_features=4, fixup=fixup)
    module.eval()
    params = randomised(module)
    x, guide = random(1, 1, 2, 2), random(1, 5, 9, 3)
    assert_close(call(module, x, guide), stack_jbu(x, guide, params, 2, 1), 1e-5)


def test_kernels_give_the_outputs():
    module, _ = drawn(nn.JBU, 2, 3, radius=1, key_features=4, fixup=True, dropout=0)
    x, guide = random(1, 5, 4, 2), random(1, 5, 4, 3)  # as large as the result, where nothing is interpolated
    kernels, out = nnx.jit(lambda m, x, guide: (m.kernels(guide), m(x, guide)))(module, x, guide)
    averages = jax.jit(partial(ops.reassemble, scale=1, kernel_size=3, border="reflect"))(x, kernels)
    assert_close(averages, out, 1e-5)


def test_constants_are_kept():
    """Without the fix-up the kernel is a mean."""
    module, _ = drawn(nn.JBU, 2, 3, radius=1, dropout=0)
    out = call(module, np.full((1, 2, 3, 2), 3, np.float32), random(1, 5, 4, 3))
    np.testing.assert_allclose(out, 3, rtol=1e-5)


@pytest.mark.thorough
def test_dropout_only_in_training():
    module = initial(nn.JBU, 2, 3, radius=1, dropout=0.5)
    x, guide = random(1, 2, 3, 2), random(1, 5, 4, 3)
    assert np.any(np.asarray(call(module, x, guide)) != np.asarray(call(module, x, guide)))
    module.eval()
    np.testing.assert_array_equal(call(module, x, guide), call(module, x, guide))


@pytest.mark.parametrize("temperature", [-100.0, 100.0])
def test_extreme_scores_are_finite(temperature):
    module, _ = drawn(nn.JBU, 2, 3, radius=1, dropout=0)
    module.temperature[...] = jnp.array(temperature)
    maps = jnp.asarray(random(1, 2, 3, 2)), jnp.asarray(random(1, 5, 4, 3))
    loss = lambda module, *xs: jnp.sum(module(*xs) ** 2)  # noqa: E731
    assert_finite(nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1, 2)))(module, *maps))


def test_parameters():
    count_of = lambda build, *args, **options: count(nnx.eval_shape(lambda: build(*args, rngs=nnx.Rngs(0), **options)))  # noqa: E731
    assert count_of(nn.JBU, 256, 3) == 32 * 3 + 32**2 + 2 * 32 + 2
    fixed = 1186 + 49 * 52 + 49**2 + 2 * 49
    assert count_of(nn.JBU, 256, 3, fixup=True) == fixed
    assert count_of(nn.StackJBU, 8, 3, fixup=True) == 4 * fixed + 8 * 9


@pytest.mark.parametrize("gradients, bound", [(False, 2), (True, 7)])
@pytest.mark.first(1)
def test_scratch_memory(gradients, bound):
    module, _ = drawn(nn.JBU, 256, 3, fixup=True, dropout=0)
    assert scratch(module, (1, 64, 64, 256), (1, 128, 128, 3), gradients=gradients) <= bound


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(radius=0), "radius: expected an integer >= 1, got 0"),
        (dict(key_features=0), "key_features: expected an integer >= 1, got 0"),
        (dict(scale=12), "scale: expected a power of two, got 12"),
        (dict(scale=1), "scale: expected an integer >= 2, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nn.StackJBU(4, 3, rngs=nnx.Rngs(0), **options)


def test_bad_maps():
    module = abstract(nn.JBU, 4, 3, dropout=0)
    with pytest.raises(ValueError, match=r"guide: expected shape \(2, \*, \*, \*\), got shape \(1, 4, 6, 3\)"):
        module(random(2, 2, 3, 4), random(1, 4, 6, 3))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 4\)"):
        module(random(1, 2, 3, 5), random(1, 4, 6, 3))


def test_state_dict_of_another_radius():
    golden = goldens.load("jbu/jbu__r1")
    with pytest.raises(ValueError, match=r"fixup_proj\.0\.weight: expected shape \(25, 28, 1, 1\)"):
        interop.from_torch("JBULearnedRange", golden.params, golden.config | {"radius": 2})
