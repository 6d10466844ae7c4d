"""The command `pictures` of the task `segmentation`: figures of features and kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.__main__ import main
from experiments.segmentation.drawing import edge_and_plain, in_colours, ringed
from experiments.segmentation.inside import observe
from experiments.segmentation.networks import NetworkConfig
from jaxup.models.segmentation import Upsampling
from jaxup.nn import SAPA
from tests.modules import filled


@pytest.fixture(scope="module")
def network():
    return filled(lambda: NetworkConfig("segformer", "tiny", "sapa").build(8, 0))


@pytest.mark.thorough
def test_command(network, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(NetworkConfig, "build", lambda *_: nnx.clone(network))
    out = tmp_path / "out"
    assert main(["segmentation", "pictures", "--smoke", "--out", str(out)]) == 0
    sizes = {}
    for name in ("predictions", "features", "kernels"):
        with Image.open(out / f"{name}.png") as picture:
            sizes[name] = picture.width
            assert np.asarray(picture.convert("RGB")).std() > 20
    assert sizes["predictions"] == sizes["features"] < sizes["kernels"]  # 3 and 5 panels
    for arguments, message in (
        (["--out", str(out)], "exists already"),
        (["--out", "a", "--images", "1"], "images: expected numbers from 0 to 0, got 1"),
        (["--out", "a", "--pixels", *"0123456789"], "pixels: expected at most 4, got 5"),
        (["--out", "a", "--pixels", "3", "64"], "pixels: expected some inside of (48, 64), got (3, 64)"),
    ):
        assert main(["segmentation", "pictures", "--smoke", *arguments]) == 2
        assert message in capsys.readouterr().err


class Small(nnx.Module):
    """Two upsamplers; the second one has the larger factor, in two steps, of which one is under each guide."""

    def __init__(self, upsampler="sapa"):
        options = dict(in_features=2, rngs=nnx.Rngs(0))
        self.ups = nnx.List(
            [
                Upsampling(upsampler, guides=(3,), scale=2, **options),
                Upsampling(upsampler, guides=(3, 3), scale=4, **options),
            ]
        )

    def __call__(self, image):
        maps = [image, image[:, ::2, ::2], image[:, ::4, ::4]]
        x = maps[2][..., :2]
        return self.ups[1](x, maps[:2]), self.ups[0](x, maps[1:2])


@pytest.mark.slow
def test_the_largest_upsampler_is_observed():
    network, image = filled(Small), jax.random.normal(jax.random.key(0), (1, 8, 12, 3))
    seen = observe(network, image)
    x = image[:, ::4, ::4, :2]
    np.testing.assert_array_equal(seen.before, x)
    np.testing.assert_allclose(seen.after, nnx.jit(lambda m, y: m(y)[0])(network, image), rtol=1e-5, atol=1e-5)
    assert set(seen.weights) == {"similarity", "kernel"} and seen.weights["kernel"].shape == (1, 8, 12, 25)
    first, second = network.ups[1].steps
    middle = first(x, image[:, ::2, ::2])
    np.testing.assert_allclose(seen.weights["kernel"], second.kernels(middle, image), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(seen.weights["similarity"]), seen.weights["kernel"], rtol=1e-4, atol=1e-6)
    again = observe(network, image + 1)  # the classes are as they were, and the function is compiled once
    assert not hasattr(SAPA.__call__, "__wrapped__") and (again.before == x + 1).all()


@pytest.mark.thorough
def test_networks_without_kernels_or_upsamplers():
    image = jnp.ones((1, 8, 8, 3))
    assert observe(filled(lambda: Small("bilinear")), image).weights == {}
    carafe = observe(filled(lambda: Small("carafe")), image).weights
    assert set(carafe) == {"kernel"} and carafe["kernel"].shape == (1, 8, 8, 25)
    assert observe(nnx.eval_shape(lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0))), image) is None


def test_colours_are_of_one_projection():
    """The three directions with the most variance, red first; the same features have the same colours everywhere."""
    source = np.random.default_rng(0)
    strength = source.normal(size=(20, 30, 3)) * [4, 2, 1]
    basis = np.linalg.qr(source.normal(size=(5, 5)))[0][:3]
    features = strength @ basis + 7
    whole, part = in_colours(features, features[3:5, ::2])
    np.testing.assert_array_equal(part, whole[3:5, ::2])
    assert whole.min() == 0 and whole.max() == 1
    for i in range(3):
        assert abs(np.corrcoef(whole[..., i].ravel(), strength[..., i].ravel())[0, 1]) > 0.98


def test_pixels_and_rings():
    image = np.zeros((40, 60, 3))
    image[:, 40:] = 0.5
    edge, plain = edge_and_plain(image)
    assert abs(edge[1] - 40) <= 1 and abs(plain[1] - 40) > 2
    ringed_image = ringed(image, [(10, 20)])
    changed = np.argwhere((ringed_image != image).any(-1))
    distances = np.hypot(*(changed - [10, 20]).T)
    assert len(changed) > 10 and distances.min() > 2 and distances.max() < 6 and not (image == 1).any()
    assert edge_and_plain(np.zeros((2, 3, 3)))
