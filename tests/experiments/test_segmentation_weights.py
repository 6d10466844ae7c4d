"""Backbones of the task `segmentation` that start with weights from a file."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from experiments.__main__ import main
from experiments.engine.checkpoint import has_checkpoint
from experiments.engine.weights import WeightsConfig
from experiments.segmentation import presets
from experiments.segmentation.networks import NETWORKS, NetworkConfig
from experiments.segmentation.weights import load, usual
from jaxup import interop
from jaxup.files import InputError
from jaxup.interop.backbones import Shapes
from jaxup.interop.keys import flat_variables
from jaxup.models.backbones import MiT, ViT
from tests.modules import filled

# The backbone of the network "tiny", as Hugging Face has it.
OFFICIAL = {"hidden_sizes": [8, 8, 10, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 5, 8]}
NAME = "SegformerModel"
tiny = partial(MiT, widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), rngs=Shapes())


class Holder:
    """A network as far as it counts here."""

    def __init__(self, build):
        self.backbone = nnx.eval_shape(build)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of official names, and its backbone."""
    backbone = filled(tiny, 7)
    path = tmp_path_factory.mktemp("weights") / "mit.safetensors"
    save_file(interop.to_torch(NAME, backbone, OFFICIAL), path)
    return path, backbone


def arguments(run_dir, path, config=OFFICIAL):
    run = ["segmentation", "train", "--smoke", "--run-dir", str(run_dir), "--backbone-weights", str(path)]
    return [*run, "--backbone-name", NAME, "--backbone-config", json.dumps(config)]


@pytest.fixture
def built(monkeypatch):
    """The network that a run builds."""
    network = filled(lambda: presets.smoke().network.build(8, 0))
    monkeypatch.setattr(NetworkConfig, "build", lambda *_: nnx.clone(network))
    return network


@pytest.mark.thorough
def test_training_starts_with_weights(checkpoint, built, tmp_path, monkeypatch):
    """From the file at the start; what goes on does not read it again."""
    path, backbone = checkpoint
    seen = []
    monkeypatch.setattr("experiments.segmentation.training.fit", lambda network, *_: seen.append(network))
    assert main(arguments(tmp_path / "run", path)) == 0
    given, other = flat_variables(backbone), flat_variables(built)
    for key, variable in flat_variables(seen[0].network).items():
        wanted = given[key.removeprefix("backbone.")] if key.startswith("backbone.") else other[key]
        np.testing.assert_array_equal(variable[...], wanted[...], err_msg=key)
    (tmp_path / "run/checkpoints/3").mkdir(parents=True)
    assert has_checkpoint(tmp_path / "run") and not has_checkpoint(tmp_path)
    monkeypatch.setattr(WeightsConfig, "load", lambda *_: pytest.fail("read again"))
    assert main(arguments(tmp_path / "run", path)) == 0


@pytest.mark.thorough
def test_no_run_is_made_of_bad_weights(checkpoint, built, tmp_path, capsys):
    assert main(arguments(tmp_path / "run", checkpoint[0], OFFICIAL | {"depths": [2, 1, 1, 1]})) == 2
    found = capsys.readouterr().err
    assert str(checkpoint[0]) in found and "encoder.block.0.1." in found and " more" in found, found
    assert found.count("\n") == 1 and len(found) < 500 and not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_files_that_do_not_fit(checkpoint, tmp_path):
    """The error has the file, and the key or the shape."""
    path, _ = checkpoint
    tensors = interop.load_checkpoint(path)
    key = "encoder.patch_embeddings.1.proj.weight"
    lacking, turned = (tmp_path / f"{name}.safetensors" for name in ("lacking", "turned"))
    save_file({k: x for k, x in tensors.items() if k != key}, lacking)
    save_file({k: np.ascontiguousarray(x[..., :1]) if k == key else x for k, x in tensors.items()}, turned)
    official, config, network = json.dumps(OFFICIAL), NetworkConfig("segformer", "tiny"), Holder(tiny)
    for weights, message in (
        (WeightsConfig(lacking, NAME, official), f"{lacking}, as {NAME}: .*{key}: missing"),
        (WeightsConfig(turned, NAME, official), rf"{turned}, as {NAME}: .*{key}.*\(8, 8, 3, 1\)"),
        (WeightsConfig(path, "DySample", '{"in_channels": 4}'), f"{path}, as DySample: .*offset.weight: missing"),
        (WeightsConfig(path, "mit_b9"), "backbone_name: expected one of"),
        (WeightsConfig(path), "backbone_name: expected one of"),
        (WeightsConfig(path, NAME, "[]"), "backbone_config: expected an object"),
        (WeightsConfig(backbone_name=NAME), "backbone_name: has no effect without backbone_weights"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load(weights, network, config)
        assert "\n" not in str(error.value)
    weights = WeightsConfig(path, NAME, official)
    for options, message in (
        (dict(widths=(8, 8, 10, 18), num_heads=(1, 1, 1, 1)), r"the backbone's stages\.3\..* of shape \(18.* got \(16"),
        (dict(depths=(2, 1, 1, 1)), r"the backbone's stages\.0\.blocks\.1\..*, which is not there"),
    ):
        with pytest.raises(InputError, match=f"{path}: expected {message}"):
            load(weights, Holder(partial(tiny, **options)), config)
    deeper, depths = tmp_path / "deeper.safetensors", OFFICIAL | {"depths": [2, 1, 1, 1]}
    save_file(interop.to_torch(NAME, filled(partial(tiny, depths=(2, 1, 1, 1))), depths), deeper)
    with pytest.raises(InputError, match=rf"{deeper}: has stages\.0\.blocks\.1\..*, which the backbone has not"):
        load(WeightsConfig(deeper, NAME, json.dumps(depths)), network, config)
    with pytest.raises(InputError, match="backbone_weights: has no effect on transunet"):
        load(weights, network, NetworkConfig("transunet"))


@pytest.mark.thorough
def test_a_vit_on_another_grid(tmp_path):
    """Positions are resized; the bias of patches goes into them where the network has none. The maps are the same."""
    config = {"patch_size": 4, "embed_dims": 8, "num_layers": 1, "num_heads": 2, "img_size": 16, "patch_bias": True}
    build = partial(ViT, patch_size=4, width=8, depth=1, num_heads=2, position_resize="bicubic", rngs=Shapes())
    source = filled(partial(build, image_size=16), 1)
    save_file(interop.to_torch("VisionTransformer", source, config), tmp_path / "a.safetensors")
    network = Holder(partial(build, image_size=24, patch_bias=False))
    weights = WeightsConfig(tmp_path / "a.safetensors", "VisionTransformer", json.dumps(config))
    load(weights, network, NetworkConfig("segmenter"))
    image = jax.random.normal(jax.random.key(0), (1, 24, 24, 3))
    run = nnx.jit(lambda module, x: module(x)[0])
    np.testing.assert_allclose(run(network.backbone, image), run(source, image), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig("pspnet"),
        NetworkConfig("upernet", "mobilenet_v2"),
        NetworkConfig("segnet"),
        NetworkConfig("segformer", "mit_b1"),
        NetworkConfig("maskformer", "swin_b"),
        NetworkConfig("segmenter"),
    ],
)
def test_published_names(config):
    """The class that is meant without a name has the arrays of the network's backbone."""
    name, options = usual(config)

    def both():
        network = NETWORKS[config.model](3, **({"backbone": config.backbone} if config.backbone else {}), rngs=Shapes())
        backbone = network.encoder if config.model == "segnet" else network.backbone
        return backbone, interop.OPERATORS[name](options)[0]

    ours, theirs = ({k: v.shape for k, v in flat_variables(m).items()} for m in nnx.eval_shape(both))
    if config.model == "segmenter":
        assert theirs.pop("embed.bias") == (384,)
        assert (ours.pop("positions"), theirs.pop("positions")) == ((1 + 32**2, 384), (1 + 14**2, 384))
    assert ours == theirs
