"""The task `segmentation`: training, evaluation, table and prediction, on a tiny network and generated shapes."""

import inspect
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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
from experiments.engine.optim import Decayed
from experiments.engine.trained import Trained
from experiments.segmentation import networks, presets
from experiments.segmentation.drawing import palette
from experiments.segmentation.evaluation import Inference, scores, with_crf
from experiments.segmentation.networks import DEEPLAB, NETWORKS, NetworkConfig, costs, normalised
from experiments.segmentation.paper import RESULTS, paper_cells
from experiments.segmentation.training import TrainConfig, cross_entropy, loss_of
from jaxup import interop
from jaxup.files import InputError
from jaxup.models.backbones import MiT, ViT
from jaxup.models.segmentation import SegFormer, Segmenter, Upsampling, class_targets, maskformer_loss, whole
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
    command = ["segmentation", "table", "--preset", "deeplabv2-shapes", "--run-dir", str(run), *small, *sizes]
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


def test_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    labels = np.array([[[0, 3, IGNORED], [2, IGNORED, 1]]])
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = [-log_softmax[0, i, j, labels[0, i, j]] for i, j in ((0, 0), (0, 1), (1, 0), (1, 2))]
    run = jax.jit(jax.value_and_grad(cross_entropy))
    np.testing.assert_allclose(run(logits, labels)[0], np.mean(picked), rtol=1e-6)
    value, gradient = run(logits, np.full((1, 2, 3), IGNORED))
    assert value == 0 and not np.any(gradient)


class Fixed:
    """A network that has found its outputs."""

    def __init__(self, outputs):
        self.outputs = lambda x: outputs


@pytest.mark.thorough
def test_auxiliary_heads_have_losses():
    """They count 0.4 times."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    main_logits, other = (jnp.asarray(np.random.default_rng(i).normal(size=(1, 2, 2, 2)), jnp.float32) for i in (0, 1))

    value, metrics = loss_of(2)(Fixed({"logits": main_logits, "auxiliary": other}), batch)
    ours = labels.astype(jnp.int32)
    np.testing.assert_allclose(value, cross_entropy(main_logits, ours) + 0.4 * cross_entropy(other, ours), rtol=1e-6)
    assert 0 <= metrics["accuracy"] <= 1


def test_scales_have_losses():
    """Each as much as the logits, at the size of the labels."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    normal = np.random.default_rng(0).normal
    logits, fine, coarse = (jnp.asarray(normal(size=(1, n, n, 2)), jnp.float32) for n in (2, 2, 1))
    ours = labels.astype(jnp.int32)
    wanted = sum(cross_entropy(y, ours) for y in (logits, fine, jnp.broadcast_to(coarse, (1, 2, 2, 2))))
    value, _ = loss_of(2)(Fixed({"logits": logits, "scales": (fine, coarse)}), batch)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.thorough
def test_masks_after_each_layer_have_losses():
    """The sum over the layers of a decoder, which has the last one beside the earlier ones."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    normal = np.random.default_rng(0).normal
    shapes = {"class_logits": (1, 3, 3), "mask_logits": (1, 2, 2, 3)}
    layers = [{key: jnp.asarray(normal(size=shape), jnp.float32) for key, shape in shapes.items()} for _ in range(3)]
    outputs = {**layers[0], "logits": jnp.zeros((1, 2, 2, 2)), "layers": layers[1:]}
    classes, masks = class_targets(labels, num_classes=2)
    wanted = sum(maskformer_loss(**layer, classes=classes, masks=masks)["loss"] for layer in layers)
    np.testing.assert_allclose(loss_of(2)(Fixed(outputs), batch)[0], wanted, rtol=1e-6)
    # Of the two classes, which have two pixels and one, one place takes the larger.
    classes, masks = class_targets(labels, num_classes=2, targets=1)
    larger = sum(maskformer_loss(**layer, classes=classes, masks=masks)["loss"] for layer in layers)
    np.testing.assert_allclose(loss_of(2, targets=1)(Fixed(outputs), batch)[0], larger, rtol=1e-6)
    assert classes.tolist() == [[1]] and abs(wanted - larger) > 1e-3


@pytest.mark.thorough
def test_dropout_is_drawn_anew_and_only_in_training():
    network = Trained(presets.smoke().network.build(3, 0), 1)
    network.train()
    x = jnp.ones((1, 32, 32, 3))
    run = nnx.jit(lambda network, x: network.outputs(x)["logits"])
    assert (run(network, x) != run(network, x)).any()
    network.eval()
    still = nnx.jit(lambda network, x: network(x))
    np.testing.assert_array_equal(still(network, x), still(network, x))


def test_networks_take_what_they_are_given():
    for name, network in NETWORKS.items():
        options = inspect.signature(network.__init__).parameters
        assert "upsampler" in options and ("backbone" in options) == (name not in ("segnet", "transunet"))
    with pytest.raises(InputError, match=r"backbone: has no effect on transunet"):
        NetworkConfig("transunet", "resnet18").build(5, 0)
    with pytest.raises(InputError, match=r"fusion_upsampler: has no effect on pspnet"):
        NetworkConfig("pspnet", fusion_upsampler="carafe").build(5, 0)
    with pytest.raises(InputError, match=r"upsampler: has no effect on deeplabv2, there are deeplabv2, deeplabv2-crf"):
        NetworkConfig("deeplabv2", upsampler="fdkn").build(5, 0)
    with pytest.raises(ValueError, match="model: expected one of"):
        NetworkConfig("segfromer").build(5, 0)


def test_the_paper():
    assert len(RESULTS) == 2 * (9 + 9 + 10 + 8)
    assert paper_cells(NetworkConfig("segformer", "mit_b1", "resfu"))["paper bIoU"] == "28.06"
    assert paper_cells(NetworkConfig("segmenter", "vit_s", "carafe"))["paper GFLOPs"] == "32.96"
    assert set(paper_cells(NetworkConfig()).values()) == {""}
    assert paper_cells(NetworkConfig("upernet", "mobilenet_v2", "carafe"))["paper mIoU"] == "38.31"
    assert paper_cells(NetworkConfig("upernet", "mobilenet_v2", None, "carafe"))["paper aAcc"] == "78.51"
    printed = [paper_cells(NetworkConfig(name))["paper mIoU"] for name in DEEPLAB]
    assert printed == ["70.69", "71.98", "72.96", "73.60"]
    assert paper_cells(NetworkConfig("deeplabv2", "resnet50"))["paper mIoU"] == ""


@pytest.mark.thorough
def test_costs():
    """Of a tiny network, against the sum over its products: parameters are exact, operations near."""
    found = costs(NetworkConfig("segformer", "tiny"), 3, (64, 64))
    network = nnx.eval_shape(lambda: NetworkConfig("segformer", "tiny").build(3, 0))
    assert found["params (M)"] == sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param))) / 1e6
    assert 0.5 * 16**2 * 3 * 16 * 4 / 1e9 < found["GMACs"] < 0.1


def test_palette():
    colours = palette()
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len(np.unique(colours[:151], axis=0)) == 151


def test_presets_are_valid():
    for preset in (
        presets.camvid,
        presets.segformer,
        presets.segmenter,
        presets.pspnet,
        presets.maskformer,
        presets.upernet,
        presets.segnet,
        presets.deeplabv2,
    ):
        config = preset()
        config.network.check()
        config.optimizer.build(config.run.steps)
    for table in (presets.deeplabv2_table(), presets.deeplabv2_shapes_table()):
        assert table.models == ("deeplabv2", "deeplabv2-crf", "deeplabv2-dgf", "deeplabv2-fdkn")
    assert replace(presets.camvid_table(), pictures=False).training.run.run_dir == Path("runs/segmentation-table")


def schedule(config, steps):
    """The learning rate at each step, as the size of SGD's and AdamW's first parts shows it."""
    optimizer = config.build(steps)
    params = {"kernel": jnp.ones((2, 2))}
    sizes = []
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for _ in range(steps):
            updates, state = optimizer.update({"kernel": jnp.ones((2, 2))}, state, params)
            sizes.append(-float(updates["kernel"][0, 0]))
    return np.array(sizes)


@pytest.mark.thorough
def test_rates_rise_and_fall():
    got = schedule(Decayed("sgd", 0.5, warmup=4, power=0.9, momentum=0.0, weight_decay=0.0), 40)
    step = np.arange(40)
    np.testing.assert_allclose(
        got, np.where(step < 4, 0.5 * (step + 1) / 4, 0.5 * (1 - (step - 4) / 36) ** 0.9), rtol=1e-5
    )
    stepped = Decayed("sgd", 0.5, warmup=2, drops=(10, 15), drop_factor=5.0, momentum=0.0, weight_decay=0.0)
    wanted = [0.25, 0.5, *[0.5] * 8, *[0.1] * 5, *[0.02] * 5]
    np.testing.assert_allclose(schedule(stepped, 20), wanted, rtol=1e-5)
    with pytest.raises(InputError, match="drops: expected ascending steps"):
        Decayed(drops=(3, 2))
    got = schedule(Decayed("adamw", 0.5, warmup=2, power=1.0, weight_decay=0.0), 20)
    np.testing.assert_allclose(got[2:], 0.5 * (1 - np.arange(18) / 18), rtol=1e-3)


@pytest.mark.thorough
def test_multipliers_and_decay_by_part():
    config = Decayed("sgd", 1.0, warmup=0, momentum=0.0, weight_decay=0.1, multipliers=(("inner", 3.0), ("a", 2.0)))
    params = {
        "a": {"inner": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}, "kernel": jnp.ones((1, 1))},
        "b": jnp.ones(1),
    }
    optimizer = config.build(1000)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        ones, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert float(updates["a"]["inner"]["bias"][0]) == 0 and float(updates["a"]["kernel"][0, 0]) == pytest.approx(-0.2)
    assert float(updates["a"]["inner"]["kernel"][0, 0]) == pytest.approx(-0.3)
    assert [float(x[0]) for x in (ones["a"]["inner"]["bias"], ones["b"])] == [-3, -1]
    network = nnx.eval_shape(lambda: NetworkConfig("segformer", "tiny").build(3, 0))
    state = jax.tree.map(lambda p: np.ones(p.shape, np.float32), nnx.state(network, nnx.Param))
    scaled = Decayed(multipliers=(("classifier", 10.0),))._scaled(state, state)
    found = {str(path[0]): float(leaf[...].ravel()[0]) for path, leaf in nnx.to_flat_state(scaled)}
    assert found["classifier"] == 10 and found["backbone"] == found["fuse"] == 1
