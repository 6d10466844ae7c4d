"""One call for every upsampler, and what it promises for all of them: shapes, scales, errors, and memory."""

import importlib
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop
from jaxup.interop.backbones import Shapes
from jaxup.nn import UPSAMPLERS, Iterated, Resize, make_upsampler
from jaxup.nn.upsampler import TWO
from tests.compare import assert_finite
from tests.modules import call, random, scratch
from tests.registry.examples import marked, thorough

GUIDED = [name for name, entry in UPSAMPLERS.items() if entry.guided]


def make(name, scale=2, features=16, guide_features=16, rngs=None, **options):
    rngs = nnx.Rngs(0) if rngs is None else rngs
    common = dict(in_features=features, guide_features=guide_features, scale=scale, rngs=rngs)
    module = make_upsampler(name, **common, **(dict(UPSAMPLERS[name].small) | options))
    module.eval()
    return module


def maps(name, grid=(2, 3), scale=(2, 2), features=16, batch=1):
    x = random(batch, *grid, features)
    guide = random(batch, grid[0] * scale[0], grid[1] * scale[1], features)
    return (x, guide) if UPSAMPLERS[name].guided else (x,)


def sources(name):
    """What is traced faster than a real source; dropout takes nothing else."""
    return nnx.Rngs(0) if "jbu" in name else Shapes()


# One for each of the sets of scales.
QUICK = {"bilinear", "carafe", "a2u", "stack_jbu"}


@pytest.mark.parametrize("name", marked(UPSAMPLERS, QUICK))
@pytest.mark.parametrize("scales", [(1, 2, 3, 4, (2, 1)), thorough((8, 16))], ids=["small", "large"])
@pytest.mark.first(12, 15)
def test_every_scale(name, scales):
    """1 to 16 and a pair, as far as the upsampler takes them: the right size, the dtype of x, finite."""
    taken = 0
    for scale in scales:
        factor = scale if isinstance(scale, tuple) else (scale, scale)
        if not UPSAMPLERS[name].allowed.fits(factor):
            with pytest.raises(ValueError, match=rf"scale: expected .* for {name}"):
                make(name, scale)
            continue
        taken += 1
        out = jax.eval_shape(lambda *xs, s=scale: make(name, s, rngs=sources(name))(*xs), *maps(name, scale=factor))
        assert out.shape == (1, 2 * factor[0], 3 * factor[1], 16) and out.dtype == jnp.float32
    assert taken or UPSAMPLERS[name].allowed is TWO


@pytest.mark.thorough
@pytest.mark.parametrize("name", UPSAMPLERS)
def test_half_precision(name):
    """bfloat16 in, bfloat16 out, within 2e-2 of the same maps in float32 and finite."""
    xs = [x.astype(jnp.bfloat16) for x in maps(name)]
    up = jax.jit(make(name))
    out = up(*xs)
    assert out.dtype == jnp.bfloat16
    assert_finite(out)
    expected = np.asarray(up(*[x.astype(jnp.float32) for x in xs]))
    assert np.abs(np.asarray(out, np.float32) - expected).max() <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["carafe", "sapa", "max_unpool"])
def test_iterated(name):
    """Doublings, each with parameters of its own; the guide is averaged to the size of each."""
    once, thrice = make(name), make(name, 8, iterated=True)
    assert isinstance(thrice, Iterated) and len(thrice.steps) == 3
    assert jax.eval_shape(thrice, *maps(name, scale=(8, 8))).shape == (1, 16, 24, 16)
    if jax.tree.leaves(nnx.state(once, nnx.Param)):
        first, second = (jax.tree.leaves(nnx.state(step, nnx.Param)) for step in thrice.steps[:2])
        assert any(np.any(a != b) for a, b in zip(first, second, strict=True))


@pytest.mark.thorough
def test_iterated_resizes_the_guide():
    x, guide = maps("sapa", scale=(4, 4))
    up = make("sapa", 4, iterated=True)
    small = guide.reshape(1, 4, 2, 6, 2, 16).mean((2, 4))
    by_hand = nnx.jit(lambda up: up.steps[1](up.steps[0](x, small), guide))(up)
    np.testing.assert_allclose(call(up, x, guide), by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in GUIDED if not UPSAMPLERS[n].any_size])
def test_guide_of_another_size(name):
    x, _ = maps(name)
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, 4, 6, (\*|16)\), got shape \(1, 6, 6, 16\)"):
        nnx.eval_shape(lambda: make(name, rngs=sources(name))(x, jnp.ones((1, 6, 6, 16))))


def test_errors():
    options = dict(in_features=8, scale=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="got 'caraffe'; did you mean 'carafe'"):
        make_upsampler("caraffe", **options)
    with pytest.raises(ValueError, match="guide_features: expected the channels of the guide, which sapa needs"):
        make_upsampler("sapa", **options)
    with pytest.raises(ValueError, match=r"options: expected those of CARAFE: kernel_size, .*, dtype, got 'window'$"):
        make_upsampler("carafe", **options, window=5)
    with pytest.raises(ValueError, match=r"options: expected those of A2UUpsample: kernel_size, .*, got 'depth'$"):
        make_upsampler("a2u", guide_features=32, depth=2, **options)
    with pytest.raises(ValueError, match="scale: expected 2 for a2u, or iterated=True for a power of two, got 4"):
        make_upsampler("a2u", guide_features=32, **(options | {"scale": 4}))
    with pytest.raises(ValueError, match="scale: expected a power of two where doublings are iterated, got 6"):
        make_upsampler("carafe", iterated=True, **(options | {"scale": 6}))
    with pytest.raises(ValueError, match="scale: expected a power of two where doublings are iterated, got \\(2, 4\\)"):
        make_upsampler("carafe", iterated=True, **(options | {"scale": (2, 4)}))
    for value in (0, 2.5, "3", True):
        with pytest.raises(ValueError, match="in_features: expected an integer >= 1"):
            make_upsampler("carafe", **(options | {"in_features": value}))
        with pytest.raises(ValueError, match="guide_features: expected an integer >= 1"):
            make_upsampler("pac", guide_features=value, **options)
    for name in ("self", "in_channels", "rng"):
        with pytest.raises(ValueError, match=f"options: expected those of Resize: method, .* got {name!r}"):
            make_upsampler("bilinear", **options, **{name: 1})
    with pytest.raises(ValueError, match="groups: expected a divisor of in_features = 8, got 3"):
        make_upsampler("carafe", groups=3, **options)


# Of the channels of map and guide each number appears with each kind of the other: odd, small, no multiple of 32.
CHANNELS = [(1, 3), (2, 1), (3, 3), (5, 24), (6, 5), (7, 3), (10, 1), (24, 24), (48, 5), (100, 24), (33, 48)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.first(8, 11)
def test_any_channels(name):
    """The defaults fit, or an error names the argument that the caller gave."""
    refused = []
    for features, guide in CHANNELS:
        make = partial(make_upsampler, name, in_features=features, guide_features=guide, scale=2)
        x, y = jnp.zeros((1, 2, 3, features)), jnp.zeros((1, 4, 6, guide))
        try:
            out = jax.eval_shape(
                lambda x, y, make=make: make(rngs=sources(name))(*((x, y) if UPSAMPLERS[name].guided else (x,))), x, y
            )
        except ValueError as error:
            assert str(error).startswith(("in_features: expected", "guide_features: expected")), error
            refused.append((features, guide))
        else:
            assert out.shape == (1, 4, 6, features)
    odd = [(f, g) for f, g in CHANNELS if f % 2]
    unequal = [(f, g) for f, g in CHANNELS if f != g]
    expected = {"attention": odd, "joint_attention": odd, "max_unpool": unequal, "fade": unequal, "fade_lite": unequal}
    assert refused == expected.get(name, [])


def test_channels_that_fit_by_an_option():
    build = partial(make_upsampler, scale=2, rngs=nnx.Rngs(0))
    x, guide = jnp.zeros((1, 2, 3, 3)), jnp.zeros((1, 4, 6, 5))
    assert build("attention", in_features=3, out_features=4)(x).shape == (1, 4, 6, 4)
    assert build("max_unpool", in_features=3, guide_features=5, holistic=True)(x, guide).shape == (1, 4, 6, 3)
    assert build("dysample", in_features=6).groups == 2
    with pytest.raises(ValueError, match=r"norm_groups: expected a divisor of .* = 24, got 32"):
        build("a2u", in_features=8, guide_features=24, norm_groups=32)


def test_entries_have_converters():
    """Every official class that an entry's file knows is there, and one of them makes its module or a part of it."""
    for name, entry in UPSAMPLERS.items():
        if entry.converter:
            operators = importlib.import_module(f"jaxup.interop.{entry.converter}").OPERATORS
            assert operators and operators.items() <= interop.OPERATORS.items(), name


def test_entries_are_documented():
    for name, entry in UPSAMPLERS.items():
        assert entry.guided == ("guide" in inspect.signature(entry.module.__call__).parameters), name
        assert entry.paper or entry.module is Resize, name
        assert bool(entry.converter) == bool(entry.official), name
        assert entry.scales


# Scratch memory at 1x64x64x256, scale 2, as a multiple of input, guide and output: (forward, with gradients). The rule
# is (4, 12); operators that cannot keep it stand here with what they need and why.
RULE = (4, 12)
EXCEPTIONS = {
    "anyup": (4, 22),  # some 50 maps of 128 channels on the image's grid, for a guide of 3 channels
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
@pytest.mark.first(12, 16)
def test_scratch_memory(name, gradients):
    guide = UPSAMPLERS[name].guide_channels(256)
    up = make_upsampler(name, in_features=256, guide_features=guide, scale=2, rngs=nnx.Rngs(0))
    up.eval()
    shapes = [(1, 64, 64, 256), (1, 128, 128, guide)] if UPSAMPLERS[name].guided else [(1, 64, 64, 256)]
    bound = EXCEPTIONS.get(name, RULE)[gradients]
    assert scratch(up, *shapes, gradients=gradients) <= bound
