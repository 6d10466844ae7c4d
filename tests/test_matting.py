"""Trimaps, composition and the processing around networks: golden vectors, loops, properties, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxup import _opencv, matting, ops
from tests import goldens

RNG = np.random.default_rng(4)


def picture(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def matte(height=23, width=31):
    """Smooth, with pure parts at the borders and inside."""
    noise = ndimage.gaussian_filter(RNG.standard_normal((height, width)), 3)
    return np.rint(255 * np.clip(0.5 + 8 * noise, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("case", goldens.cases("matting_pipeline/*"))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def test_intermediate_results():
    elements = goldens.load("matting_pipeline/trimap").mid
    for name, element in elements.items():
        np.testing.assert_array_equal(_opencv.ellipse(int(name.removeprefix("ellipse_"))), element)
    golden = goldens.load("matting_pipeline/composite")
    size = golden.mid["bg_resized"].shape[:2]
    np.testing.assert_array_equal(_opencv.resize_cubic(golden.inputs["bg"], size), golden.mid["bg_resized"])


@pytest.mark.parametrize("size", [1, 2, 5, 8, 40])
def test_erosion_equals_the_loops(size):
    mask = matte(14, 17) > 60
    element = _opencv.ellipse(size)
    offsets = np.argwhere(element) - size // 2
    want = np.array(
        [
            all(mask[y, x] for y, x in offsets + p if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1])
            for p in np.ndindex(mask.shape)
        ]
    )
    np.testing.assert_array_equal(_opencv.eroded(mask, size), want.reshape(mask.shape))


@pytest.mark.parametrize("radius", [0, 1, 5, 2.5, 100])
def test_trimap_by_distance_equals_the_loops(radius):
    alpha = matte(13, 11)
    seeds = np.argwhere((alpha > 0) & (alpha < 255))
    trimap = matting.trimap_by_distance(alpha, radius=radius)
    for p in np.ndindex(alpha.shape):
        near = ((seeds - p) ** 2).sum(1).min() <= radius**2
        assert trimap[p] == (128 if near else 255 if alpha[p] == 255 else 0)


def test_trimaps_of_pure_mattes():
    """Without pixels between there is nothing unknown by distance; by erosion, a seam between both."""
    half = np.zeros((6, 8), np.uint8)
    half[:, 4:] = 255
    for alpha in (half, np.zeros_like(half), np.full_like(half, 255)):
        np.testing.assert_array_equal(matting.trimap_by_distance(alpha, radius=3), alpha)
        np.testing.assert_array_equal(matting.trimap_by_erosion(alpha, foreground=1, background=1), alpha)
    seam = matting.trimap_by_erosion(half, foreground=3, background=5)[0]
    np.testing.assert_array_equal(seam, [0, 0, 128, 128, 128, 255, 255, 255])
    grey = matting.clean_trimap(np.array([[0, 1, 128, 254, 255]], np.uint8))
    np.testing.assert_array_equal(grey, [[0, 128, 128, 128, 255]])


@pytest.mark.parametrize("size", [(9, 20), (3, 2), (1, 1), (40, 5)])
@pytest.mark.parametrize("shape", [(7, 10, 3), (1, 6), (4, 1, 2)])
@pytest.mark.first(4)
def test_resizing_is_that_of_ops(size, shape):
    x = RNG.random(shape)
    batched = jnp.asarray(x.reshape(1, *shape[:2], -1), jnp.float32)
    want = jax.device_get(ops.resize(batched, size=size, method="bicubic", cubic_coefficient=-0.75))
    want = want.reshape(*size, *shape[2:])
    np.testing.assert_allclose(_opencv.resize_cubic(x, size), want, atol=1e-5)
    assert _opencv.resize_cubic(np.float32(x), size).dtype == np.float32
    coarse = _opencv.resize_cubic(np.rint(255 * x).astype(np.uint8), size)
    assert coarse.dtype == np.uint8 and np.abs(coarse - 255 * want.clip(0, 1)).max() < 1.5
    want = jax.device_get(ops.resize(batched, size=size, method="nearest")).reshape(*size, *shape[2:])
    np.testing.assert_array_equal(_opencv.resize_nearest(np.float32(x), size), want)


def test_backgrounds_cover_foregrounds():
    background = picture(20, 30, 3)
    for size in ((20, 30), (41, 30), (10, 70), (5, 4), (1, 1)):
        assert matting.covering_background(background, size=size).shape == (*size, 3)
        assert matting.covering_background(background, size=size, reduce=False).shape == (*size, 3)
    np.testing.assert_array_equal(
        matting.covering_background(background, size=(9, 9), reduce=False), background[:9, :9]
    )
    np.testing.assert_array_equal(matting.covering_background(background, size=(20, 30)), background)
    foreground, alpha = picture(6, 7, 3), picture(6, 7)
    a = alpha[..., None] / 255
    image = matting.compose(foreground, background[:6, :7], alpha)
    np.testing.assert_allclose(image, a * foreground + (1 - a) * background[:6, :7], rtol=1e-5)
    np.testing.assert_array_equal(matting.compose(foreground, foreground // 2, np.full_like(alpha, 255)), foreground)


@pytest.mark.parametrize("shape", [(16, 32), (17, 31), (1, 1), (33, 2)])
def test_networks_get_multiples_and_give_the_size_of_the_trimap(shape):
    image, trimap = picture(*shape, 3), RNG.choice(np.array([0, 128, 255], np.uint8), shape)
    for plus_one in (False, True):
        x = matting.indexnet_input(image, trimap, plus_one=plus_one)
        assert x.shape[2] == 4 and x.dtype == np.float32 and all(n % 32 == plus_one for n in x.shape[:2])
    for x, back in (
        (matting.indexnet_input(image, trimap), matting.indexnet_alpha),
        (matting.a2u_input(image, trimap), matting.a2u_alpha),
    ):
        alpha = back(np.full(x.shape[:2], 1.7), trimap)  # not clipped by the network
        np.testing.assert_array_equal(alpha, np.where(trimap == 128, 255, trimap))
        assert alpha.dtype == np.float32 and set(np.unique(x[..., 3])) <= {0, np.float32(128) / 255, 1}
    x = matting.a2u_input(image, trimap)
    assert all(n % 16 == 0 for n in x.shape[:2])
    colours = (image / 255 - np.float64([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x[: shape[0], : shape[1], :3], colours, atol=1e-5)


def test_trimaps_of_other_values():
    image, trimap = picture(16, 16, 3), np.full((16, 16), 77, np.uint8)
    output = np.full((16, 16), 0.5, np.float32)
    assert (matting.a2u_alpha(output, trimap) == 127.5).all()
    np.testing.assert_allclose(matting.a2u_input(image, trimap)[..., 3], 128 / 255)
    assert (matting.indexnet_alpha(output, trimap) == 77).all()  # as its code has it: clean it before


def test_errors():
    image, trimap = picture(4, 5, 3), np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=r"trimap: expected shape \(4, 5\) as the image, got shape \(4, 4\)"):
        matting.indexnet_input(image, trimap[:, :4])
    with pytest.raises(ValueError, match=r"image: expected uint8 \[H, W, 3\], got float64"):
        matting.a2u_input(image / 255, trimap)
    with pytest.raises(ValueError, match=r"alpha: expected uint8 \[H, W\], got float64"):
        matting.trimap_by_distance(trimap / 255, radius=2)
    with pytest.raises(ValueError, match="radius: expected a number >= 0"):
        matting.trimap_by_distance(trimap, radius=-1)
    with pytest.raises(ValueError, match="size: expected an integer >= 1, got 0"):
        matting.trimap_by_erosion(trimap, foreground=0, background=1)
    with pytest.raises(ValueError, match=r"background: expected uint8 \[H, W, 3\]"):
        matting.covering_background(trimap, size=(4, 5))
    with pytest.raises(ValueError, match=r"alpha: expected shape \(4, 5\)"):
        matting.compose(image, image, trimap[1:])
    with pytest.raises(ValueError, match=r"output: expected at least \[4, 5\]"):
        matting.a2u_alpha(np.zeros((4, 4), np.float32), trimap)
    with pytest.raises(ValueError, match="x: expected floating-point numbers or uint8"):
        _opencv.resize_cubic(np.zeros(4), (2, 2))
