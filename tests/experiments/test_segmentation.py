"""The task `segmentation`: training, evaluation, table and prediction, on a tiny network and generated shapes."""

import json
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from experiments.__main__ import main
from experiments.data.segmentation import IGNORED
from experiments.engine.config import load_config
from experiments.segmentation import networks, presets
from experiments.segmentation.drawing import palette
from experiments.segmentation.evaluation import Inference, scores, with_crf
from experiments.segmentation.networks import NETWORKS, normalised
from experiments.segmentation.training import TrainConfig
from jaxup import interop
from jaxup.models.backbones import MiT, ViT
from jaxup.models.segmentation import SegFormer, Segmenter, Upsampling, whole
from jaxup.ops import resize


class Tiny(nnx.Module):
    """A convolution and an upsampler, in the place of SegFormer."""

    def __init__(self, num_classes, *, upsampler="bilinear", rngs, **_):
        self.backbone = nnx.Conv(3, 8, (4, 4), 2, rngs=rngs)
        self.up = Upsampling(upsampler, in_features=8, guides=(8,), scale=2, rngs=rngs)
        self.head = nnx.Conv(8, num_classes, (1, 1), rngs=rngs)

    def __call__(self, x, rngs=None):
        features = self.backbone(x)
        return self.head(self.up(features[:, ::2, ::2], [features], x))

    def outputs(self, x, rngs=None):
        return {"logits": self(x)}


@contextmanager
def tiny():
    """SegFormer compiles for half a minute; the commands are the same with any network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "segformer", Tiny)
        patch.setattr(networks, "_tiny", lambda rngs: None)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    with tiny():
        assert main(["segmentation", "table", "--smoke", "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def tiny_network():
    with tiny():
        yield


@pytest.mark.thorough
def test_table(table):
    rows = json.loads((table / "results.json").read_text())
    assert [row["network"].split(", ")[-1] for row in rows] == ["bilinear", "deconvolution"]
    assert rows[1]["params (M)"] > rows[0]["params (M)"] and rows[1]["GMACs"] > rows[0]["GMACs"]
    assert all(0 < row["GiB"] < 1 and row["s/step"] > 0 for row in rows)
    assert all(0 <= row[name] <= 100 for row in rows for name in ("mIoU", "mAcc", "bIoU"))
    assert (table / "predictions.png").is_file() and "bIoU" in (table / "table.md").read_text()
    assert load_config(TrainConfig, table / "deconvolution").network.upsampler == "deconvolution"


@pytest.mark.thorough
def test_evaluate_and_predict(table, tiny_network, tmp_path, capsys):
    runs = ["--run-dir", str(table / "bilinear")]
    windows = ["--window", "32", "32", "--images", "1", "--cost-size", "32", "32"]
    out = tmp_path / "out"
    assert main(["segmentation", "evaluate", *runs, *windows, "--out", str(out)]) == 0
    (row,) = json.loads((out / "results.json").read_text())
    assert row["network"] == "segformer, tiny, bilinear" and len(row["IoU"]) == 8
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 45, 3), np.uint8)).save(image)
    predict = ["segmentation", "predict", "--image", str(image), *runs]
    assert main([*predict, "--out", str(tmp_path / "labels.png")]) == 0
    with Image.open(tmp_path / "labels.png") as labels:
        assert labels.mode == "P" and labels.size == (45, 37) and np.asarray(labels).max() < 8
    capsys.readouterr()
    for arguments, message in (
        ([*predict, "--out", str(image)], f"{image}: exists already"),
        ([*predict, "--out", "a.png", "--checkpoint", "b"], "run_dir: has no effect beside a checkpoint"),
        (predict[:4] + ["--out", "a.png", "--checkpoint", "b"], "name: expected the class of the checkpoint"),
        (["segmentation", "evaluate", *runs, "--stride", "8", "8"], "stride: has no effect without a window"),
        (["segmentation", "train", "--smoke", "--run-dir", "r", "--upsampler", "sappa"], "upsampler: expected one of"),
        (
            ["segmentation", "train", "--smoke", "--run-dir", "r", "--model", "segnet"],
            "backbone: has no effect on",
        ),
        (["segmentation", "train", "--smoke", "--run-dir", "r", "--data-dir", "d"], "data_dir: has no effect"),
        (
            ["segmentation", "train", "--smoke", "--run-dir", "r", "--targets", "9"],
            "targets: has no effect on segformer",
        ),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.thorough
def test_memory(tiny_network, tmp_path, capsys):
    """More pixels take more, and gradients more than none."""
    sizes = {}
    for side in ("32", "64"):
        out = tmp_path / side
        assert main(["segmentation", "memory", "--smoke", "--size", side, side, "--out", str(out)]) == 0
        (sizes[side],) = json.loads((out / "results.json").read_text())
        assert 0 < sizes[side]["forward"] < sizes[side]["with gradients"]
    assert sizes["32"]["with gradients"] < sizes["64"]["with gradients"]
    assert main(["segmentation", "memory", "--smoke", "--upsampler", "carafe"]) == 2
    assert "upsampler: has no effect beside upsamplers" in capsys.readouterr().err


@pytest.mark.thorough
def test_official_colours_and_small_images(tmp_path, capsys):
    """Segmenter's checkpoints see colours of -1 to 1, and logits of whole patches are cut; an error names the image."""
    config = {"image_size": 32, "patch_size": 16, "d_model": 4, "n_heads": 1, "n_layers": 1, "n_cls": 3}
    config |= {"decoder": {"name": "linear"}}
    sizes = dict(image_size=32, width=4, depth=1, num_heads=1, epsilon=1e-5)
    backbone = ViT(**sizes, position_resize="bilinear", rngs=nnx.Rngs(1))
    module = Segmenter(3, backbone=backbone, decoder="linear", rngs=nnx.Rngs(1))
    save_file(interop.to_torch("segm.Segmenter", module, config), tmp_path / "a.safetensors")
    image, out = np.random.default_rng(0).integers(0, 256, (21, 37, 3), np.uint8), tmp_path / "a.png"
    Image.fromarray(image).save(tmp_path / "image.png")
    predict = ["segmentation", "predict", "--image", str(tmp_path / "image.png"), "--out", str(out)]
    published = ["--checkpoint", str(tmp_path / "a.safetensors"), "--name", "segm.Segmenter", "--config"]
    assert main([*predict, *published, json.dumps(config)]) == 0
    logits = resize(module(jnp.asarray(image[None] / 127.5 - 1, jnp.float32)), scale=16, method="bilinear")
    with Image.open(out) as labels:
        assert (np.asarray(labels) == np.argmax(np.asarray(logits[0, :21, :37]), -1)).mean() > 0.99
    out.unlink()
    capsys.readouterr()
    assert main([*predict, "--side", "8"]) == 2
    assert f"{tmp_path / 'image.png'}: x: expected an image whose map" in capsys.readouterr().err and not out.exists()


@pytest.mark.thorough
def test_smoke_of_evaluate_and_predict(tiny_network, tmp_path, capsys):
    assert main(["segmentation", "evaluate", "--smoke"]) == 0
    assert "segformer, tiny, untrained" in capsys.readouterr().out
    assert main(["segmentation", "predict", "--smoke", "--out", str(tmp_path / "a.png")]) == 0
    with Image.open(tmp_path / "a.png") as labels:
        assert labels.size == (64, 64)


@pytest.mark.thorough
def test_predict_with_a_published_checkpoint(tmp_path, capsys):
    """Tensors by the names of the official code, and its configuration as JSON."""
    config = {
        "backbone": {"embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
        "decode_head": {"num_classes": 3, "channels": 16},
    }
    backbone = MiT(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), rngs=nnx.Rngs(3))
    module = SegFormer(3, backbone=backbone, features=16, rngs=nnx.Rngs(3))
    save_file(interop.to_torch("mmseg.SegFormer", module, config), tmp_path / "a.safetensors")
    arguments = ["segmentation", "predict", "--smoke", "--out", str(tmp_path / "a.png")]
    arguments += ["--checkpoint", str(tmp_path / "a.safetensors")]
    assert main([*arguments, "--name", "mmseg.SegFormer", "--config", json.dumps(config)]) == 0
    module.eval()
    top, left = ((n - 64) // 2 for n in skimage.data.coffee().shape[:2])
    image = skimage.data.coffee()[None, top : top + 64, left : left + 64]
    with Image.open(tmp_path / "a.png") as labels:
        logits = nnx.jit(lambda module, x: whole(module, x))(module, normalised(image))
        assert (np.asarray(labels) == np.argmax(np.asarray(logits[0]), -1)).mean() > 0.99
    (tmp_path / "a.png").unlink()
    capsys.readouterr()
    for more, message in (
        (["--name", "mmseg.SegFormer", "--config", "{"], "config: expected JSON"),
        (["--name", "mmseg.SegFormr", "--config", "{}"], "name: expected one of"),
        ([], "name: expected the class of the checkpoint"),
        (["--name", "mit_b0", "--config", "{}"], f"{tmp_path / 'a.safetensors'}, as mit_b0: state_dict: expected"),
        (
            ["--name", "mmseg.SegFormer", "--config", '{"backbone": 3, "decode_head": {}}'],
            "a.safetensors, as mmseg.SegF",
        ),
        (["--name", "SwinBackbone", "--config", '{"depths": [1, 2, "x"]}'], "a.safetensors, as SwinBackbone: "),
        (["--side", "0"], "side: expected at least 1"),
        (["--out", str(tmp_path / "a.jpg")], "a.jpg: expected a name that ends in .png"),
        (
            ["--name", "mmseg.SegFormer", "--config", json.dumps(config), "--window", "0", "8"],
            "window: expected at least",
        ),
    ):
        assert main([*arguments, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not list(tmp_path.glob("a.[pj]*"))


@pytest.mark.slow  # networks of seconds, on four devices
def test_rows_of_deeplab(tmp_path, capsys):
    """The row with a CRF has the network of the one without it, and evaluate adds the same row on request."""
    run, sizes = tmp_path / "run", ["--size", "48", "64", "--cost-size", "32", "40"]
    small = ["--backbone", "tiny", "--steps", "2", "--images", "4", "--batch-size", "4", "--crop", "32", "40"]
    preset = ["--preset", "deeplabv2-camvid", "--source", "shapes"]
    command = ["segmentation", "table", *preset, "--run-dir", str(run), *small, *sizes]
    assert main([*command, "--test-images", "1", "--models", "deeplabv2", "deeplabv2-crf", "deeplabv2-fdkn"]) == 0
    rows = json.loads((run / "results.json").read_text())
    assert [row["network"] for row in rows] == ["deeplabv2", "deeplabv2-crf", "deeplabv2-fdkn"]
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["deeplabv2", "deeplabv2-fdkn"]
    assert rows[0]["params (M)"] == rows[1]["params (M)"] < rows[2]["params (M)"] - 0.7
    evaluate = ["segmentation", "evaluate", "--run-dir", str(run / "deeplabv2"), "--crf", "--images", "1"]
    assert main([*evaluate, "--cost-size", "32", "40", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["network"] for row in found] == ["deeplabv2, tiny", "deeplabv2, tiny, CRF"]
    for row, again in zip(rows, found, strict=False):
        assert row["mIoU"] == again["mIoU"] and row["aAcc"] == again["aAcc"]
    capsys.readouterr()
    fixed = [*command[:-1], "40", "--fixed-norms"]
    assert main(fixed) == 2
    assert "fixed_norms: expected backbone_weights" in capsys.readouterr().err


@pytest.mark.thorough
def test_with_crf():
    """Noise among the logits of two plain halves is gone, and probabilities come back."""
    image = np.zeros((8, 10, 3), np.uint8)
    image[:, 5:] = 200
    logits = np.float32(np.where(image[..., :2] == 0, (1, -1), (-1, 1)))
    logits[2, 2], logits[5, 7] = (-0.5, 0.5), (0.5, -0.5)
    found = with_crf(lambda image: jnp.asarray(logits[None]))(image)
    assert np.allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.argmax(found[0], -1), np.where(image[..., 0] == 0, 0, 1))


class Perfect:
    """Knows the images of a source."""

    def __init__(self, source):
        self.known = {sample.image.tobytes(): sample.labels for sample in (source[i] for i in range(len(source)))}
        self.classes = len(source.classes)

    def __call__(self, image):
        return jax.nn.one_hot(np.where((known := self.known[image.tobytes()]) == IGNORED, 0, known)[None], self.classes)


def test_scores_of_the_truth():
    source = presets.smoke().data.open("test")
    row = scores(Perfect(source), source)
    assert row["mIoU"] == row["mAcc"] == row["aAcc"] == row["bIoU"] == 100


@pytest.mark.thorough
def test_inference_resizes_back():
    """A network that shows its input; the image is enlarged for it, and the result brought back."""

    class Shows(nnx.Module):
        def __call__(self, x):
            return x[:, ::4, ::4]

    image = np.full((20, 30, 3), 90, np.uint8)
    for inference in (Inference(), Inference(test_side=40), Inference((16, 16), (8, 8), 40)):
        logits = inference.method(Shows())(image)
        assert logits.shape == (1, 20, 30, 3)
        np.testing.assert_allclose(logits[0, 10, 10], normalised(image[None])[0, 0, 0], 1e-5)


def test_palette():
    colours = palette()
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len(np.unique(colours[:151], axis=0)) == 151
