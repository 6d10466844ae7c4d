"""UPLiFT and NAF by strips of rows: what the whole image gives, and its gradients, at odd sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import nn
from jaxup.nn import naf, naf_strips, uplift, uplift_strips
from tests.compare import assert_close
from tests.modules import initial, random
from tests.nn.test_features import SMALL, SMALL_ENCODER

DECODER = dict(uplift.DECODER) | {f"block_{k}": {"block": "DoubleConv", "norm": "batch", "hc": (5,)} for k in (0, 1)}
KINDS = [  # grid, image, size; bytes of a map that is kept, and of strips
    pytest.param((5, 3), (21, 13), (20, 12), 2_000, 12_000, id="one kept"),
    pytest.param((5, 3), (43, 26), (37, 23), 2_000, 40_000, id="two made anew", marks=pytest.mark.slow),
    pytest.param((3, 4), (12, 16), (12, 16), 1, 1, id="single rows", marks=pytest.mark.slow),
]


def results(up, *maps, size):
    """What a new program gives: whether there are strips is decided when it is traced."""
    return jax.jit(lambda *maps: up(*maps, size=size))(*maps)


def gradients(up, *maps, size):
    """Of both maps."""
    cotangent = random(*maps[0].shape[:1], *size, maps[0].shape[3])
    return jax.jit(jax.grad(lambda *maps: jnp.sum(up(*maps, size=size) * cotangent), (0, 1)))(*maps)


def check(functions, up, maps, size, monkeypatch, *patches):
    """The whole image, and its strips."""
    whole = [function(up, *maps, size=size) for function in functions]
    for patch in patches:
        monkeypatch.setattr(*patch)
    found = [function(up, *maps, size=size) for function in functions]
    for ours, expected in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert_close(ours, expected, 2e-5)


WHAT = [pytest.param(results, id="results"), pytest.param(gradients, id="gradients", marks=pytest.mark.thorough)]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("grid, image, size, kept, strip", KINDS)
def test_uplift(what, grid, image, size, kept, strip, monkeypatch):
    """The released form, small: maps are made anew for each strip, and the last one is resized."""
    up = initial(nn.UPLiFT, in_features=8, encoder=SMALL_ENCODER, decoder=DECODER)
    up.eval()
    maps = random(1, *grid, 8), random(1, *image, 3)
    patches = (uplift, "in_strips", lambda *_: True), (uplift_strips, "_KEPT", kept), (uplift_strips, "_STRIP", strip)
    check([what], up, maps, size, monkeypatch, *patches)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("grid, size", [((3, 4), (39, 6)), pytest.param((7, 2), (33, 5), marks=pytest.mark.slow)])
def test_naf(what, grid, size, monkeypatch):
    """Norms of the whole image, keys of cells that lie in two strips, and windows shifted inside at its ends."""
    up = initial(nn.NAF, **SMALL[nn.NAF])
    maps = random(2, *grid, 8), random(2, *size, 3)
    check([what], up, maps, size, monkeypatch, (naf, "strip_rows", lambda *_: 16))


@pytest.mark.parametrize("side, strips", [(448, False), (2048, True)])
def test_memory(side, strips):
    """Large images are cut, others are not; of a small network that learns none."""
    assert bool(naf_strips.strip_rows(jnp.zeros((1, side, side, 3), jnp.int8), 256)) == strips
    up = initial(nn.UPLiFT, **SMALL[nn.UPLiFT])
    x = jax.ShapeDtypeStruct((1, side // 16, side // 16, 384), jnp.float32)
    assert not uplift_strips.in_strips(up, x, x, 4), "batch norms of training see the whole image"
    up.eval()
    assert uplift_strips.in_strips(up, x, x, 4) == strips
    assert not np.any([uplift_strips.in_strips(up, x, x, 2)])
