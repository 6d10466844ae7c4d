"""TransUNet: against the official code, its sizes, and the places of the upsampler."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from jaxup.interop import from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models.segmentation import TransUNet
from jaxup.models.segmentation.transunet_encoder import HybridResNet, StandardConv, Transformer
from jaxup.ops import resize
from tests import goldens
from tests.compare import assert_close
from tests.models.backbones.test_backbones import filled, image
from tests.models.segmentation.networks import check_gradients, check_types
from tests.modules import call, count, random
from tests.registry.examples import marked

CASES = goldens.cases("transunet/*")


@pytest.mark.parametrize("case", marked(CASES, set(), {"transunet/r50_vit_b16__64"}))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.thorough
def test_golden_values():
    """Also the statistics after a training step."""
    golden = goldens.load("transunet/small__48_train")
    goldens.check(replace(golden, grad_inputs={}, grad_params={}), half=False)


@pytest.mark.thorough
def test_round_trip():
    """Also with the groups of the official config."""
    golden = goldens.load("transunet/small__64")
    config, tensors = golden.config, golden.params
    official = {
        "img_size": 64,
        "n_classes": 5,
        "n_skip": 3,
        "decoder_channels": config["decoder_channels"],
        "hidden_size": config["hidden"],
        "transformer": {"mlp_dim": config["mlp_dim"], "num_heads": config["heads"], "num_layers": config["layers"]},
        "resnet": {"num_layers": config["units"], "width_factor": 0.5},
    }
    back = to_torch("TransUNet", from_torch("TransUNet", tensors, official), config)
    assert back.keys() == tensors.keys()
    for name, x in back.items():
        np.testing.assert_array_equal(x, tensors[name], err_msg=name)
    with pytest.raises(ValueError, match=r"decoder.blocks.2.conv1.0.weight: expected shape \(16, 16, 3, 3\)"):
        from_torch("TransUNet", tensors, config | {"n_skip": 2})


def small(**options):
    usual = dict(image_size=32, resnet_width=8, resnet_depths=(1, 1, 1), features=12, depth=1, num_heads=2)
    return TransUNet(3, **{**usual, "hidden_features": 16, "decoder_features": (8, 8, 6, 4), **options})


@pytest.mark.thorough
def test_types():
    """Also of one channel."""
    check_types(small, (1, 37, 50, 3))
    y = nnx.eval_shape(lambda x: small(rngs=Shapes()).outputs(x), image(37, 50)[..., :1])
    assert y["logits"].shape == (1, 37, 50, 3) and y["tokens"].shape == (1, 3 * 4, 12)
    assert [z.shape[1:] for z in y["features"]] == [(6, 8, 64), (12, 16, 32), (24, 32, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("upsampler", ["bilinear", "sapa", "resfu"])
def test_gradients(upsampler):
    """A key's bias has no effect."""
    check_gradients(partial(small, upsampler=upsampler), image(37, 50), allowed=("key",))


def test_parameters():
    """105.28 M are published for the official network at 224 x 224 with 9 classes."""
    size = count(nnx.eval_shape(lambda: TransUNet(9, rngs=Shapes())))
    assert f"{size:,}" in TransUNet.__doc__ and round(size / 1e6, 2) == 105.28


def test_standardised_weights():
    layer = filled(lambda rngs: StandardConv(5, 4, 3, dtype=jnp.float32, rngs=rngs))
    x = random(1, 3, 3, 5)
    y = call(layer, x)
    w = np.asarray(layer.kernel[...], np.float64)
    w = (w - w.mean((0, 1, 2))) / np.sqrt(w.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y[0, 1, 1], np.einsum("hwc,hwco->o", x[0], w), rtol=1e-4, atol=1e-5)


def test_maps_are_padded_and_not_cut():
    """The map at stride 4 is one pixel short, where sides are no squares as well."""
    resnet = filled(lambda rngs: HybridResNet(3, 4, (1, 1, 1), dtype=jnp.float32, rngs=rngs))
    maps = call(resnet, random(1, 32, 48, 3))
    assert [y.shape[1:] for y in maps] == [(16, 24, 4), (8, 12, 16), (4, 6, 32), (2, 3, 64)]
    empty = np.abs(maps[1]).max((0, 3)) == 0
    assert empty[-1].all() and empty[:, -1].all() and not empty[:-1, :-1].any()
    assert not (np.abs(maps[2]).max((0, 3)) == 0).any()


def test_positions_of_another_grid():
    """As the official code resizes those of a checkpoint: SciPy's linear zoom, which keeps the corners."""
    options = dict(depth=0, heads=1, hidden=4, drop=0.0, dtype=jnp.float32)
    module = filled(lambda rngs: Transformer(3, 4, grid=(3, 3), **options, rngs=rngs))
    table = np.asarray(module.positions[...]).reshape(3, 3, 4)
    zoomed = ndimage.zoom(table, (5 / 3, 5 / 3, 1), order=1)
    x = np.zeros((1, 5, 5, 3), np.float32)
    y = module.norm(zoomed[None] + np.asarray(module.embed.bias[...]))
    assert_close(call(module, x), y, 1e-5)


@pytest.mark.thorough
def test_steps_of_the_upsampler():
    """Three, under the skips' maps; ReSFU's guide is the finest at each of the sizes; the last step is bilinear."""
    seen = []

    class Recorded(nnx.Module):
        def __call__(self, x, guide):
            seen.append(guide.shape)
            return resize(x, size=guide.shape[1:3], method="nearest")

    x = jnp.zeros((1, 32, 48, 3))
    build = lambda in_features, guide_features, scale, rngs: Recorded()  # noqa: E731
    for skips in (0, 3):  # guides are there without skips, too
        assert nnx.eval_shape(lambda skips=skips: small(skips=skips, upsampler=build, rngs=Shapes())(x)).shape[1:] == (
            32,
            48,
            3,
        )
    assert seen == 2 * [(1, 4, 6, 64), (1, 8, 12, 32), (1, 16, 24, 8)]
    refreshed = nnx.eval_shape(lambda: small(upsampler="resfu", rngs=Shapes()))
    assert [(up.in_features, up.guides) for up in refreshed.ups] == [(512, (8,)), (8, (8,)), (8, (8,))]
    assert len(nnx.eval_shape(lambda: small(rngs=Shapes())).ups) == 0


def test_dropout_only_with_a_source():
    options = dict(grid=(2, 2), depth=1, heads=2, hidden=8, drop=0.5, dtype=jnp.float32)
    module = filled(lambda rngs: Transformer(3, 8, **options, rngs=rngs))
    run = nnx.jit(lambda module, x, key: (module(x), module(x, rngs=nnx.Rngs(key))))
    (plain, dropped), (again, other) = (run(module, random(1, 2, 2, 3), jax.random.key(i)) for i in (1, 2))
    assert_close(again, plain, 0.0)
    assert np.abs(dropped - plain).max() > 0.1 and np.abs(dropped - other).max() > 0.1


def test_errors():
    for options, message in [
        (dict(image_size=40), "image_size|stride"),
        (dict(skips=4), "skips: expected 0 to 3, got 4"),
        (dict(resnet_depths=(1, 2)), "resnet_depths: expected three"),
        (dict(decoder_features=(4, 4)), "decoder_features: expected four"),
        (dict(num_heads=5), "num_heads: expected a divisor of features = 12, got 5"),
        (dict(upsampler="nothing"), "upsampler: expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            nnx.eval_shape(lambda options=options: small(**options, rngs=Shapes()))
    with pytest.raises(ValueError, match="x: expected shape"):
        nnx.eval_shape(lambda: small(rngs=Shapes())(jnp.ones((1, 32, 32, 2))))
