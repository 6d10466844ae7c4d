"""What upsamplers of features under an image share: official weights both ways, any size, bounded memory, errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn
from jaxup.interop import jafar, loftup, naf, uplift
from jaxup.interop.backbones import Shapes
from jaxup.nn.uplift import DECODER
from jaxup.nn.uplift_layers import NEIGHBOURS
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, count, initial, random
from tests.registry.examples import thorough

QUICK = {
    "uplift": ("attender5__x2_g7", "small_oddimage__2steps"),
    "naf": ("small__bigger_image",),
    "jafar": ("small_k3__x3_image2",),
    "loftup": ("small_learnable__x3",),
}


def cases(kind):
    pattern = {"naf": "naf/[ds]*"}.get(kind, f"{kind}/*")
    return goldens.cases(pattern, quick=QUICK[kind])


@pytest.mark.parametrize("case", [case for kind in QUICK for case in cases(kind)])
@pytest.mark.first(1, 4)
def test_golden(case):
    """LoftUp's frequencies blur what is made of images in bfloat16."""
    goldens.check(goldens.load(case), half=not case.startswith("loftup"))


OFFICIAL = {
    "uplift_dinov2s14": ("UPLiFT", {"uplift": {"enc_share": True}}, uplift, 789_521),
    "naf": ("NAF", {}, naf, 662_528),
    "jafar_v384": ("JAFAR", {}, jafar, 628_480),
    "loftup_dinov2s": ("LoftUp", {}, loftup, 4_303_894),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_names_of_published_files(name):
    """All of them, in their shapes; and what was asked for is read off them."""
    operator, config, converter, size = OFFICIAL[name]
    published = json.loads((goldens.shared("goldens") / "keymaps/state_dicts.json").read_text())[name]
    module = nnx.eval_shape(lambda: interop.OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.state(module)))
    ours = interop.to_torch(operator, module, config)
    assert {key: list(x.shape) for key, x in ours.items()} == published
    without_effect = 384 * 128 + 128**2 + 128 + 384 + 2 * 128 if name == "jafar_v384" else 0
    assert count(module) == size - without_effect
    found = converter.config_of(ours)
    again = nnx.eval_shape(lambda: interop.OPERATORS[operator](config | found)[0])
    assert jax.tree.map(jnp.shape, nnx.state(again)) == jax.tree.map(jnp.shape, nnx.state(module))


ROUND_TRIPS = {
    "uplift/vae_small__2steps": "UPLiFT",
    "uplift/lift_conv__1step": "UPLiFT",
    "naf/small__x2": "NAF",
    "jafar/small__x4": "JAFAR",
    "loftup/small__x4": "LoftUp",
    "loftup/small_learnable__x3": "LoftUp",
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_round_trip(case):
    """What has no effect comes back as zeros."""
    golden, operator = goldens.load(case), ROUND_TRIPS[case]
    module = interop.from_torch(operator, golden.params, golden.config)
    back = interop.to_torch(operator, module, golden.config)
    assert back.keys() == golden.params.keys()
    unused = ("v_proj_weight", "out_proj.weight", "out_proj.bias", "norm_v.weight") if operator == "JAFAR" else ()
    for key, x in back.items():
        used = 32 if operator == "JAFAR" and key.endswith("in_proj_bias") else None  # of the query
        expected = 0 * x if key.endswith(unused) else golden.params[key]
        np.testing.assert_array_equal(x[:used], expected[:used], err_msg=key)


SMALL_ENCODER = {
    "down_steps": 1,
    "block_0": {"block": "SingleConv", "norm": "batch", "hc": (4,)},
    "down_1": {"down_op": "none"},
    "block_1": {"block": "SingleConv", "norm": "layer", "hc": (6,)},
}
SMALL = {
    nn.UPLiFT: dict(in_features=8, encoder=SMALL_ENCODER),
    nn.NAF: dict(features=16, kernel_size=3, depth=1, rotary_heads=2),
    nn.JAFAR: dict(in_features=8, qk_features=8, num_heads=2),
    nn.LoftUp: dict(in_features=8, num_frequencies=2, depth=1),
}


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
@pytest.mark.first(1)
def test_any_size(kind):
    """Of the map, of the image and of the output, down to one pixel; the type is that of the map."""
    for grid, image, size in (((3, 2), (13, 9), (11, 7)), ((1, 1), (1, 1), None), ((2, 5), (40, 30), (20, 15))):
        x, guide = jnp.ones((2, *grid, 8), jnp.bfloat16), jnp.ones((2, *image, 3), jnp.bfloat16)
        out = nnx.eval_shape(lambda *xs, size=size: kind(**SMALL[kind], rngs=Shapes())(*xs, size=size), x, guide)
        assert out.shape == (2, *(size or image), 8) and out.dtype == jnp.bfloat16
    small = nnx.eval_shape(lambda *xs: kind(**SMALL[kind], rngs=Shapes())(*xs, size=(1, 2)), x, guide)
    assert small.shape == (2, 1, 2, 8)
    scaled = lambda *xs: kind(**SMALL[kind], scale=(2, 3), rngs=Shapes())(*xs)  # noqa: E731
    out = nnx.eval_shape(scaled, jnp.ones((1, 3, 2, 8)), jnp.ones((1, 24, 16, 3)))
    assert out.shape == (1, 6, 6, 8)


@pytest.mark.parametrize("kind", [nn.NAF, thorough(nn.UPLiFT), thorough(nn.JAFAR)], ids=lambda kind: kind.__name__)
def test_averages(kind):
    """Features are averaged: outputs stay between the least and the largest, and constants are kept."""
    up = initial(kind, **SMALL[kind])
    up.eval()
    x, guide = random(1, 4, 3, 8), random(1, 8, 6, 3)
    out = np.asarray(call(up, x, guide))
    assert np.all(out <= x.max((1, 2)) + 1e-5) and np.all(out >= x.min((1, 2)) - 1e-5)
    assert_close(call(up, 0 * x + 2, guide), np.full((1, 8, 6, 8), 2, np.float32), 1e-6)


@pytest.mark.thorough
def test_features_of_zeros_have_finite_gradients():
    """They have no direction."""
    up = initial(nn.JAFAR, **SMALL[nn.JAFAR])
    x, guide = jnp.zeros((1, 3, 2, 8)), jnp.asarray(random(1, 6, 4, 3))
    run = jax.jit(lambda *xs: (lambda y, pull: (y, pull(y + 1)))(*jax.vjp(up, *xs)))
    assert_finite(run(x, guide))


def test_noise_comes_from_a_source():
    """Of a configuration that has some; without a source it is zero, and the same again with the same one."""
    decoder = dict(DECODER) | {"ncat_c": 2, "ncat_s": 0.5}
    up = initial(nn.UPLiFT, **SMALL[nn.UPLiFT], decoder=decoder)
    up.eval()
    x, guide = random(1, 3, 2, 8), random(1, 6, 4, 3)
    run = jax.jit(lambda key: up(x, guide, rngs=nnx.Rngs(noise=key)))
    first, same, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-4


def test_neighbours_are_sorted():
    """Row by row, as the channels of scores are."""
    for number, offsets in NEIGHBOURS.items():
        assert len(set(offsets)) == number and list(offsets) == sorted(offsets)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (nn.UPLiFT, dict(neighbours=7), "neighbours: expected one of 5, 9, 13, 17, 25, got 7"),
        (nn.UPLiFT, dict(encoder=SMALL_ENCODER | {"down_1": {"down_op": "mean"}}), "down_op: expected one of"),
        (nn.NAF, dict(features=24), "features: expected a multiple of 16, got 24"),
        (nn.NAF, dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (nn.NAF, dict(rotary_heads=3), "features: expected a multiple of 4"),
        (nn.JAFAR, dict(qk_features=12), "qk_features: expected a multiple of 8, got 12"),
        (nn.LoftUp, dict(positions="none"), "positions: expected one of 'sine', 'learned', got 'none'"),
        (nn.LoftUp, dict(num_heads=3), "num_heads: expected a divisor of the width = 28, got 3"),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        abstract(kind, **(SMALL[kind] | options))


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
def test_bad_maps(kind):
    up = abstract(kind, **SMALL[kind])
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, \*, \*, \*\), got shape \(2, 4, 4, 3\)"):
        up(random(1, 2, 3, 8), random(2, 4, 4, 3))
    with pytest.raises(ValueError, match=r"guide: expected shape \(\*, \*, \*, 3\)"):
        up(random(1, 2, 3, 8), random(1, 4, 4, 1))
    with pytest.raises(ValueError, match="size: expected"):
        up(random(1, 2, 3, 8), random(1, 4, 4, 3), size=(0, 4))
