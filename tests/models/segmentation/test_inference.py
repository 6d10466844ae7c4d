"""Logits from overlapping windows: against loops, compiled once, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.models.backbones import ViT
from jaxup.models.segmentation import Segmenter, slide, whole
from jaxup.ops import resize
from tests import goldens

X = np.random.default_rng(5).normal(size=(2, 13, 17, 2)).astype(np.float32)

SMALL = dict(image_size=16, patch_size=4, width=4, depth=1, num_heads=1, rngs=nnx.Rngs(0))


def strided(x):
    """Its logits depend on the window that a pixel is in."""
    return x[:, ::2, ::3] + x.mean((1, 2), keepdims=True)


@pytest.mark.parametrize("case", goldens.cases("slide/*"))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def by_loops(fn, x, crop, stride):
    """Windows from the top left, the last ones shifted back."""
    total, count = np.zeros(x.shape), np.zeros(x.shape[1:3])
    top = 0
    while True:
        left, y = 0, min(top, max(x.shape[1] - crop[0], 0))
        while True:
            z = min(left, max(x.shape[2] - crop[1], 0))
            window = x[:, y : y + crop[0], z : z + crop[1]]
            size = window.shape[1:3]
            total[:, y : y + size[0], z : z + size[1]] += resize(jnp.asarray(fn(window)), size=size, method="bilinear")
            count[y : y + size[0], z : z + size[1]] += 1
            if left + crop[1] >= x.shape[2]:
                break
            left += stride[1]
        if top + crop[0] >= x.shape[1]:
            break
        top += stride[0]
    return total / count[None, :, :, None]


@pytest.mark.parametrize(
    "crop, stride", [((6, 7), (4, 5)), ((13, 5), (13, 5)), ((20, 8), (3, 3)), ((5, 30), (1, 30)), ((13, 17), (2, 2))]
)
@pytest.mark.first(1)
def test_slide_equals_the_loops(crop, stride):
    want = by_loops(strided, X, crop, stride)
    np.testing.assert_allclose(slide(strided, X, crop=crop, stride=stride), want, atol=2e-6)
    jitted = jax.jit(lambda x: slide(strided, x, crop=crop, stride=stride))
    np.testing.assert_allclose(jitted(X), want, atol=2e-6)


def test_one_window_is_the_whole_image():
    np.testing.assert_allclose(slide(strided, X, crop=32, stride=16), whole(strided, X), atol=1e-6)
    assert whole(strided, X).shape == X.shape


@pytest.mark.thorough
def test_cells_beyond_the_image():
    """A patch of 4 pixels has one logit, the last of a row the patch that zeros complete: enlarged, then cut."""

    def patches(x):
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 4), (0, -x.shape[2] % 4), (0, 0)))
        return x[:, 1::4, 2::4]

    want = resize(patches(X), scale=4, method="bilinear")[:, :13, :17]
    for found in (whole(patches, X, cell=4), slide(patches, X, crop=20, stride=9, cell=4)):
        np.testing.assert_allclose(found, want, atol=1e-6)
    network = Segmenter(3, in_features=2, backbone=ViT(2, **SMALL), decoder="linear", rngs=nnx.Rngs(0))
    assert network.cell == 4 and Segmenter(3, backbone=network.backbone, rngs=nnx.Rngs(0)).cell is None
    np.testing.assert_array_equal(whole(network, X), whole(lambda x: network(x), X, cell=4))
    with pytest.raises(ValueError, match=r"cell: expected cells that cover an image of \(13, 17\), got 2"):
        whole(patches, X, cell=2)


def test_a_network_is_compiled_once_for_all_images():
    traced = []

    @jax.jit
    def network(x):
        traced.append(x.shape)
        return strided(x)

    for height, width in ((13, 17), (9, 11), (6, 40)):
        slide(network, jnp.ones((1, height, width, 2)), crop=6, stride=4)
    assert traced == [(1, 6, 6, 2)]


def test_modules():
    """One of NNX runs compiled, with its weights of the time of the call, and inside of jit."""
    layer = nnx.Conv(2, 3, (3, 3), strides=2, rngs=nnx.Rngs(0))
    first = slide(layer, X, crop=8, stride=4)
    np.testing.assert_allclose(first, jax.jit(lambda m, x: slide(m, x, crop=8, stride=4))(layer, X), atol=1e-6)
    layer.bias[...] = layer.bias[...] + 1
    np.testing.assert_allclose(slide(layer, X, crop=8, stride=4), first + 1, atol=1e-6)


@pytest.mark.thorough
def test_gradients_and_half_precision():
    def loss(x):
        return jnp.sum(slide(strided, x, crop=6, stride=4) ** 2)

    x, direction = jnp.asarray(X), jnp.asarray(np.random.default_rng(1).normal(size=X.shape), jnp.float32)
    eager, compiled = jax.grad(loss)(x), jax.jit(jax.grad(loss))(x)
    np.testing.assert_allclose(eager, compiled, rtol=1e-5, atol=1e-5)
    numeric = (loss(x + direction) - loss(x - direction)) / 2  # exact: the loss is quadratic
    np.testing.assert_allclose(jnp.vdot(eager, direction), numeric, rtol=1e-4)
    half = slide(strided, X.astype(jnp.bfloat16), crop=6, stride=4)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, slide(strided, X, crop=6, stride=4), atol=0.05)


def test_errors():
    with pytest.raises(ValueError, match=r"stride: expected at most the crop \(4, 4\), got \(4, 5\)"):
        slide(strided, X, crop=4, stride=(4, 5))
    with pytest.raises(ValueError, match="x: expected"):
        slide(strided, X[0], crop=4, stride=4)
    with pytest.raises(ValueError, match="crop: expected"):
        slide(strided, X, crop=0, stride=4)
