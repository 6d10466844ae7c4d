"""How any upsampler is put into a network: shapes for all names, and what reaches which step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from jaxup.interop.backbones import Shapes
from jaxup.models.backbones.layers import ConvNorm
from jaxup.models.segmentation import Upsampling
from jaxup.models.segmentation.upsampling import _RESIZED, DIRECT, fuse_resized
from tests.compare import assert_close, assert_finite
from tests.models.segmentation import test_segformer, test_segmenter
from tests.modules import abstract, call, count, drawn, initial, random
from tests.registry.examples import marked

GUIDES = {"max_unpool": (8, 8, 8)}  # for one position per channel


def pyramid(height, width, channels, batch=1):
    """Maps of an image at the strides 1, 2, ..., as convolutions with padding make them."""
    return [random(batch, -(-height // 2**n), -(-width // 2**n), c) for n, c in enumerate(channels)]


# One of each way: resized at once, blind and guided steps, directly, with a map or the image.
QUICK = {"bilinear", "carafe", "deconvolution", "max_unpool", "resfu", "jbu"}


@pytest.mark.parametrize("name", marked(nn.UPSAMPLERS, QUICK))
@pytest.mark.first(2)
def test_every_name_at_odd_sizes(name):
    """Odd sides at every step, in bfloat16; and with the image, in float32, for those that want one."""
    guides = GUIDES.get(name, (8, 6, 10))
    *maps, x = pyramid(35, 21, (*guides, 8))
    wants_image = nn.UPSAMPLERS[name].guide == "image"
    for dtype, image_features in ((jnp.bfloat16, None), (jnp.float32, 3))[: 1 + wants_image]:

        def run(x, maps, image, dtype=dtype, image_features=image_features):
            options = dict(in_features=8, guides=guides, scale=8, image_features=image_features, dtype=dtype)
            up = Upsampling(name, **options, rngs=Shapes())
            expected = 0 if name in _RESIZED else 1 if name in DIRECT else 3
            assert len(up.steps) == expected
            return up(x, maps, image)

        x, *maps, image = (jax.ShapeDtypeStruct(y.shape, dtype) for y in (x, *maps, random(1, 70, 42, 3)))
        y = nnx.eval_shape(run, x, maps, image)
        assert (y.shape, y.dtype) == ((1, 35, 21, 8), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("small", [test_segformer.small, test_segmenter.small], ids=["segformer", "segmenter"])
@pytest.mark.parametrize("name", nn.UPSAMPLERS)
def test_every_name_in_networks(name, small):
    """Of any size, to stride 4; the guide of Segmenter has other channels than its map."""

    def run(x):
        return small(Shapes(), upsampler=name, dtype=jnp.bfloat16)(x)

    x = jax.ShapeDtypeStruct((1, 70, 45, 3), jnp.bfloat16)
    if name == "max_unpool" and small is test_segmenter.small:
        with pytest.raises(ValueError, match="guide_features: expected in_features = 12"):
            nnx.eval_shape(run, x)
        return
    y = nnx.eval_shape(run, x)
    assert (y.shape, y.dtype) == ((1, 18, 12, 5), jnp.bfloat16)


@pytest.mark.thorough
def test_the_adjacent_map_guides_each_step():
    """By hand: with the guides of the step, extended by their last rows and columns, and the result cut."""
    up, _ = drawn(Upsampling, "sapa", in_features=8, guides=(4, 6), scale=4, deviation=0.2)
    fine, middle, x = pyramid(11, 6, (4, 6, 8))

    @nnx.jit
    def by_hand(up):
        first = up.steps[0](x, np.pad(middle, ((0, 0), (0, 0), (0, 1), (0, 0)), mode="edge"))[:, :, :3]
        return up.steps[1](first, np.pad(fine, ((0, 0), (0, 1), (0, 0), (0, 0)), mode="edge"))[:, :11]

    assert_close(call(up, x, (fine, middle)), by_hand(up), 1e-6)


@pytest.mark.thorough
def test_direct_under_the_finest_map():
    up, _ = drawn(Upsampling, "resfu", in_features=8, guides=(4, 6), scale=4)
    fine, middle, x = pyramid(12, 8, (4, 6, 8))
    assert up.steps[0].form == "official" and up.steps[0].scale == (4, 4)
    y = call(up, x, (fine, middle))
    assert_close(y, call(up.steps[0], x, fine), 1e-6)
    assert_close(call(up, x, (fine, 0 * middle)), y, 0.0)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
def test_interpolation_comes_to_the_size_at_once(name):
    fine, middle, x = pyramid(11, 6, (4, 6, 8))
    up = Upsampling(name, in_features=8, guides=(4, 6), scale=4, rngs=nnx.Rngs(0))
    resized = jax.jit(partial(ops.resize, size=(11, 6), method=name))
    assert_close(call(up, x, (fine, middle)), resized(x), 0.0)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_layer_of_resized_maps_is_that_of_all_joined(kernel_size):
    layer = ConvNorm(4 + 24 + 25, 3, kernel_size, dtype=jnp.float32, rngs=nnx.Rngs(0))
    maps = [random(2, 9, 7, 4), random(2, 5, 4, 24), random(2, 3, 2, 25)]
    methods = ("nearest", "bilinear", "bicubic")

    def together(*maps):
        resized = [ops.resize(y, size=(9, 7), method=m) for y, m in zip(maps, methods, strict=True)]
        return layer(jnp.concatenate(resized, axis=3))

    def apart(*maps):
        return fuse_resized(layer, maps, (9, 7), methods)

    layer.eval()
    for run in (lambda f: f(*maps), lambda f: jax.grad(lambda *maps: jnp.sum(jnp.sin(f(*maps))), (0, 1, 2))(*maps)):
        assert_close(run(apart), run(together), 1e-5)


@pytest.mark.thorough
def test_the_image_as_a_guide():
    """At the size of each step's map."""
    up = initial(Upsampling, "stack_jbu", in_features=8, guides=(4, 6), scale=4, image_features=3)
    *maps, x = pyramid(12, 8, (4, 6, 8))
    image = random(1, 24, 16, 3)
    reduced = image.reshape(1, 12, 2, 8, 2, 3).mean((2, 4))
    assert_close(call(up, x, maps, image), call(up.steps[0], x, reduced), 1e-6)
    with pytest.raises(ValueError, match="image: expected an image of 3 channels"):
        up(x, maps)


def test_deconvolution_of_the_cells():
    """Every cell becomes its own block: value times kernel, and a bias."""
    options = dict(in_features=3, guides=(1, 1), scale=4)
    iterated = abstract(Upsampling, "deconvolution", **options)
    direct, params = drawn(Upsampling, "deconvolution", **options, direct=("deconvolution",))
    assert (count(iterated), count(direct)) == (2 * (4 * 9 + 3), 16 * 9 + 3)
    *maps, x = pyramid(8, 4, (1, 1, 3))
    kernel = params["steps.0.spread.conv.kernel"][0, 0].reshape(3, 3, 4, 4)
    blocks = np.einsum("bhwi,iocd->bhcwdo", x, kernel) + params["steps.0.bias"]
    assert_close(call(direct, x, maps), blocks.reshape(1, 8, 4, 3), 1e-5)


def test_a_function_as_the_upsampler():
    """It gets the whole ratio; whether its module has a guide is seen from its call."""
    *maps, x = pyramid(7, 4, (4, 6, 8))
    for name in ("carafe", "sapa"):
        build = partial(nn.make_upsampler, name, iterated=True)
        up = abstract(Upsampling, build, in_features=8, guides=(4, 6), scale=4)
        assert isinstance(up.steps[0], nn.Iterated)
    with pytest.raises(TypeError):
        Upsampling(lambda scale: None, in_features=8, guides=(4, 6), scale=4, rngs=nnx.Rngs(0))
    up = Upsampling(_nearest, in_features=8, guides=(4, 6), scale=4, rngs=nnx.Rngs(0))
    assert_close(up(x, maps), ops.resize(x, scale=4, method="nearest")[:, :7, :4], 0.0)


def _nearest(*, in_features, guide_features, scale, rngs):
    return nn.Resize(scale=scale, method="nearest")


@pytest.mark.thorough
def test_options_and_gradients():
    """Options in the place of the usual ones; every guide and parameter has a gradient."""
    options = {"fade": {"gated": False, "embedding_features": 5}}
    up, _ = drawn(Upsampling, "fade", in_features=8, guides=(4, 6), scale=4, options=options)
    assert up.steps[0].logits.compress_x.out_features == 5
    *maps, x = pyramid(11, 6, (4, 6, 8))
    graph, state = nnx.split(up)
    loss = lambda state, x, maps: jnp.sum(jnp.sin(3 * nnx.merge(graph, state)(x, maps)))  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(state, x, maps)
    assert_finite(gradients)
    assert all(np.any(g) for g in jax.tree.leaves(gradients))


def test_errors():
    build = partial(abstract, Upsampling, in_features=8, scale=4)
    with pytest.raises(ValueError, match=r"upsampler: expected one of 'nearest', .* got 'carafes'"):
        build("carafes", guides=(4, 4))
    with pytest.raises(ValueError, match=r"upsampler: expected a name of nn\.UPSAMPLERS or a function"):
        build(None, guides=(4, 4))
    with pytest.raises(ValueError, match="guides: expected the channels of 2 maps for a scale of 4"):
        build("sapa", guides=(4,))
    with pytest.raises(ValueError, match="guide_features: expected in_features = 8"):
        build("max_unpool", guides=(4, 4))
    up, (*maps, x) = build("carafe", guides=(4, 6)), pyramid(11, 6, (4, 6, 8))
    run = lambda maps: nnx.eval_shape(lambda up: up(x, maps), up)  # noqa: E731
    with pytest.raises(ValueError, match="maps: expected 2 maps"):
        run(maps[:1])
    with pytest.raises(ValueError, match="maps: expected a map that is 2 times as large as"):
        run((maps[0][:, :4], maps[1]))
    with pytest.raises(ValueError, match="maps: expected shape"):
        run(maps[::-1])
