"""The command `jaxup depth`."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import interop
from jaxup.cli import main
from jaxup.cli.depth_networks import _fastdepth_input, _hu_input, recognise
from jaxup.files import read_depth
from jaxup.models.monocular_depth import FastDepth
from tests.interop.test_networks import shapes
from tests.models.backbones.test_backbones import filled
from tests.registry.examples import marked

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    return tmp_path


def run(*arguments, image="photo.png", weights="weights.safetensors", out="out.png"):
    return main(["depth", image, "--weights", weights, "-o", out, *arguments])


def refused(capsys, message, *arguments, **files):
    """Exit status 2, one line, no new file."""
    before = sorted(Path().iterdir())
    assert run(*arguments, **files) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert sorted(Path().iterdir()) == before


@pytest.mark.thorough
def test_depth(folder, capsys):
    """Metres, or millimetres in 16 bits, of the photograph's size."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    options = {"features": 32, "skip": "add"}
    module = filled(partial(FastDepth, **options))
    module.head.norm.bias[...] = jnp.ones(1)
    interop.save_module("weights.safetensors", module, options)
    assert run() == run(out="out.pfm") == 0
    whole, exact = read_depth(Path("out.png")), read_depth(Path("out.pfm"))
    assert (whole.dtype, exact.dtype, exact.shape) == (np.uint16, np.float32, (24, 40))
    assert np.ptp(exact) > 0 and exact.min() >= 0
    np.testing.assert_allclose(whole, 1000 * exact, atol=0.51)
    assert capsys.readouterr().out.startswith("out.png: 40 x 24, FastDepth, ")
    refused(capsys, "out.png: exists already; --force overwrites it")
    refused(capsys, "photo.png: is also an input", "--force", out="photo.png")
    refused(capsys, "out.jpg: expected a name that ends in .png", out="out.jpg")


def test_what_the_networks_see():
    """Of NYU's frames what the official codes leave in the middle, at their scale; and no more lines of larger ones."""
    x = np.random.default_rng(0).random((1, 480, 640, 3)).astype(np.float32)
    small, normal = (np.asarray(jax.jit(f)(x)) for f in (_fastdepth_input, _hu_input))
    assert small.shape == (1, 246, 245, 3) and normal.shape == (1, 240, 320, 3)
    assert np.isin(small, x).all()  # nearest pixels
    for shape in ((960, 1280), (1280, 960), (30, 40)):
        y = jax.eval_shape(_hu_input, jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32))
        assert y.shape[1:3] == ((320, 240) if shape[0] > shape[1] else (240, 320))


@pytest.mark.thorough
def test_bad_files(folder, capsys):
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    save_file({"x": np.ones(2, np.float32)}, "other.safetensors")
    save_file({"conv0.0.weight": np.ones(2), "decode_conv6.0.weight": np.ones(2)}, "half.safetensors")
    refused(capsys, "expected weights of FastDepth or of Hu", weights="other.safetensors")
    refused(capsys, "half.safetensors: not the weights of fastdepth.mobilenetskip", weights="half.safetensors")
    names = ("conv0.0.weight", "decode_conv6.0.weight", "decode_conv3.0.0.weight")
    save_file({name: np.array(1, np.float32) for name in names}, "scalars.safetensors")
    refused(capsys, "Hu et al.'s network, some tensors are missing or damaged", weights="scalars.safetensors")
    refused(capsys, "none.safetensors: No such file", weights="none.safetensors")
    Image.fromarray(np.zeros((2, 40, 3), np.uint8)).save("strip.png")
    refused(capsys, "strip.png: 40 x 2, a side is more than 8 times the other", image="strip.png")


CONFIGS = [
    ("fastdepth.MobileNet", {"decoder": "nnconv5dw"}),
    ("fastdepth.MobileNet", {"decoder": "nnconv3"}),
    ("fastdepth.MobileNet", {"decoder": "deconv3dw"}),
    ("fastdepth.MobileNet", {"decoder": "deconv5"}),
    ("fastdepth.MobileNet", {"decoder": "shuffle5"}),
    ("fastdepth.MobileNet", {"decoder": "upproj"}),
    ("fastdepth.MobileNet", {"decoder": "upconv"}),
    ("fastdepth.MobileNetSkipAdd", {}),
    ("fastdepth.MobileNetSkipConcat", {}),
    ("fastdepth.ResNet", {"layers": 18, "decoder": "nnconv5"}),
    ("fastdepth.ResNet", {"layers": 50, "decoder": "deconv4"}),
    ("fastdepth.ResNetSkipAdd", {"layers": 34}),
    ("fastdepth.ResNetSkipConcat", {"layers": 18}),
    ("hu.model", {"encoder": "resnet50"}),
    ("hu.model", {"encoder": "senet154"}),
    ("hu.model", {"encoder": "densenet161"}),
]


@pytest.mark.parametrize("case", marked(map(json.dumps, CONFIGS), {json.dumps(c) for c in CONFIGS[7:9]}))
def test_official_networks_are_recognised(case):
    operator, config = json.loads(case)
    tensors = {key: np.broadcast_to(np.float32(0), s) for key, s in shapes(operator, config).items()}
    assert recognise(tensors) == (operator, config)
