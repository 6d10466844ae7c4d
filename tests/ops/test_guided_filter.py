"""The guided filter against loops, where float32 is short of digits, and by what it must leave unchanged."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from tests import goldens
from tests.compare import assert_close
from tests.ops.filters import VALUES, all_filters, box, double, each_window, guided, images
from tests.oracles import filters as oracle
from tests.registry.examples import marked, thorough


@each_window
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.first(3)
def test_guided_filter_equals_loops(size, radius, channels):
    src, guide = images(2, channels, size=size)
    y = guided(src, guide, radius=radius, eps=1e-2)
    assert_close(y, oracle.guided_filter(*double(src, guide), radius, 1e-2), VALUES)


def test_guided_filter_takes_any_number_of_channels():
    src, guide = images(1, 5)
    y = guided(src, guide, radius=1, eps=1e-2)
    assert_close(y, oracle.guided_filter(*double(src, guide), (1, 1), 1e-2), VALUES)


def test_guided_filter_per_channel_golden():
    """Each channel of the source under its own channel of the guide is a grey filter, mapped over channels."""
    golden = goldens.load("resfu/guided_filter__r4_scale1")
    one = partial(ops.guided_filter, radius=golden.config["radius"], eps=golden.config["epsilon"])

    def per_channel(inputs, _):
        return jax.vmap(one, in_axes=3, out_axes=3)(inputs["p"][..., None], inputs["I"][..., None])[..., 0]

    goldens.check(golden, per_channel)


@pytest.mark.parametrize("offset", [1000.0, -30000.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_guided_filter_far_from_zero(offset, channels):
    """E[I I] - E[I]^2 without centring is wrong in the first digit here."""
    src, guide = images(1, channels, size=(12, 14), batch=1)
    src, guide = src + np.float32(offset), np.float32(0.1) * guide + np.float32(offset)
    y = guided(src, guide, radius=2, eps=1e-4)
    expected = oracle.guided_filter(*double(src, guide), (2, 2), 1e-4)
    spacing = np.spacing(np.float32(abs(offset)))
    assert np.max(np.abs(y - expected)) <= 2 * spacing


def test_guided_filter_solves_nearly_grey_colours():
    """Three almost equal channels: determinants in float32 have no correct digit left."""
    noise, base, src = images(3, 1, 1, size=(12, 14), batch=1)
    guide = base + np.float32(1e-3) * noise
    y = guided(src, guide, radius=2, eps=1e-6)
    assert_close(y, oracle.guided_filter(*double(src, guide), (2, 2), 1e-6), 1e-3)


LOW_RANK = {
    "grey": lambda g, m: g[..., [0, 0, 0]],
    "duplicated": lambda g, m: g[..., [0, 0, 1]],
    "saturated": lambda g, m: np.where(m, 255, g),
    "one saturated channel": lambda g, m: np.where(m & (np.arange(3) == 1), 255, g),
    "grey parts": lambda g, m: np.where(m, g[..., :1], g),
    "many mixtures": lambda g, m: np.concatenate([g, g @ np.arange(12.0).reshape(3, 4), g[..., :1]], axis=-1),
    "flat": lambda g, m: np.full_like(g, 200),
}


THINNED = thorough(2, 5e-3)  # fewer pixels, more of rounding


@cache
def guided_with_gradients(subsample):
    @jax.jit
    def run(x, guide):
        y, pull = jax.vjp(partial(ops.guided_filter, radius=4, eps=1e-6, subsample=subsample), x, guide)
        return y, *pull(jnp.sin(3 * y))

    return run


@pytest.mark.thorough
@pytest.mark.parametrize("kind", marked(LOW_RANK, set(LOW_RANK) - {"many mixtures"}))
@pytest.mark.parametrize(("subsample", "bound"), [(1, 1e-3), THINNED])
@pytest.mark.first(1, 4)
def test_guided_filter_under_guides_of_low_rank(kind, subsample, bound):
    """Values are those of float64, where even this eps is far above rounding, and no gradient is larger than there.

    In directions that the guide does not have, its own gradient depends on the size of eps alone.
    """
    random = np.random.default_rng(0)
    guide = np.round(random.uniform(20, 230, (1, 12, 14, 3)))
    guide = np.float32(LOW_RANK[kind](guide, np.arange(14)[None, None, :, None] > 5))
    x = np.float32(random.uniform(1, 3, (1, 12, 14, 1)))

    run = guided_with_gradients(subsample)
    y, d_x, d_guide = run(x, guide)
    with jax.enable_x64(True):
        expected = run(*double(x, guide))
    assert_close(y, expected[0], bound)
    assert_close(d_x, expected[1], 2 * bound)
    assert np.max(np.abs(d_guide)) <= 2 * np.max(np.abs(expected[2])) + 1e-3  # a NaN is not


@pytest.mark.thorough
def test_grey_as_rgb_is_grey():
    x, grey = images(1, 1, size=(12, 14), batch=1)
    grey = np.round(255 * grey)

    @jax.jit
    def run(x, guide):
        y, pull = jax.vjp(partial(ops.guided_filter, radius=3, eps=1e-6), x, guide)
        d_x, d_guide = pull(jnp.sin(3 * y))
        return y, d_x, d_guide.sum(-1)

    assert_close(run(x, np.repeat(grey, 3, -1)), run(x, grey), 1e-3)


def test_guided_filter_of_a_flat_guide_is_two_box_means():
    """A large eps, or a guide without detail, leaves a = 0 and b = mean(p)."""
    x, guide = images(1, 3, size=(4, 6))
    smooth = box(box(x, radius=2), radius=2)
    assert_close(all_filters(x, guide, 1e9)["guided"], smooth, VALUES)
    assert_close(all_filters(x, np.ones_like(guide), 1e-3)["guided"], smooth, VALUES)


def test_guided_filter_keeps_linear_functions_of_the_guide():
    (guide,) = images(3, size=(4, 6))
    x = guide @ np.float32([[2.0], [-1.0], [0.5]]) + np.float32(3)
    assert_close(all_filters(x, guide, 1e-9)["guided"], x, 1e-5)


def test_an_offset_of_the_guide_changes_nothing():
    x, guide = images(1, 3, size=(4, 6))
    guide = np.round(guide * 256) / np.float32(256)  # exact after the offset too
    assert_close(all_filters(x, guide + np.float32(512), 0.01), all_filters(x, guide, 0.01), VALUES)
