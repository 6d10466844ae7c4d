"""The task `probe`: squares, features, losses and scores, and runs of all commands on tiny networks."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jaxup
from experiments.__main__ import main
from experiments.engine.config import RunConfig
from experiments.probe import presets
from experiments.probe.data import DataConfig, square
from experiments.probe.features import open_features, training_batches
from experiments.probe.fitting import FitConfig, Photograph, view
from experiments.probe.fitting import training_batches as photographs_of
from experiments.probe.networks import BARE, DepthProbe, Encoder
from experiments.probe.paper import RESULTS, published
from experiments.probe.training import TrainConfig, sig_loss
from experiments.probe.upsamplers import FITS, anyup_loss, cosine_mse, crops, halves, naf_loss, pyramid, uplift_loss
from experiments.segmentation import features
from jaxup import metrics, solvers
from jaxup.files import InputError
from jaxup.ops import resize
from tests import goldens


def means(image, seen):
    """An encoder of patches of 2 x 2: their mean colours, and that of all."""
    image = (image - np.float32(seen[0][0])) / np.float32(seen[1][0])
    found = image.reshape(len(image), image.shape[1] // 2, 2, image.shape[2] // 2, 2, 3).mean((2, 4))
    return found, found.mean((1, 2))


MEANS = Encoder(means, 3, 2, BARE)


@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (12, 12), (3, 5)])
def test_square(shape):
    """The shorter side fills it, the middle stays in the middle, and labels are not mixed."""
    labels = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    found = square(labels, 12, Image.Resampling.NEAREST)
    assert found.shape == (12, 12) and set(found.ravel()) <= set(labels.ravel())
    if shape == (12, 12):
        np.testing.assert_array_equal(found, labels)
    columns = square(np.broadcast_to(np.arange(shape[1], dtype=np.float32), shape), 12, Image.Resampling.BILINEAR)
    middle, cell = (shape[1] - 1) / 2, shape[1] / 12
    assert abs(columns.mean() - middle) <= cell
    assert columns[0, 0] > 2 or shape != (20, 31), "what is cut off is on both sides"


def test_rates():
    """Falling in each step, in each of 20 epochs, or in waves of 40 steps."""
    config = TrainConfig(RunConfig("a", steps=200), learning_rate=2.0)
    rates = {name: replace(config, schedule=name).rate(np.arange(200)) for name in ("steps", "epochs", "waves")}
    expected = 1 + np.cos(np.pi * np.arange(200) / 200)
    np.testing.assert_allclose(rates["steps"], expected, atol=1e-6)
    np.testing.assert_allclose(rates["epochs"], np.repeat(expected[::10], 10), atol=1e-6)
    np.testing.assert_allclose(rates["waves"], 1 + np.cos(np.pi * np.arange(200) / 20), atol=1e-5)


def test_loss_of_depth():
    goldens.check(goldens.load("evaluation/depth_losses__a"), _depth_losses, half=False)


def _depth_losses(inputs, params):
    pred, target = inputs["pred"][..., 0], inputs["target"][..., 0]
    losses = {"siglog": sig_loss(pred, target), "siglog_warmup": sig_loss(pred, target, warm=True)}
    return {name: loss[None] for name, loss in losses.items()} | {"gradient": jnp.zeros(1, pred.dtype)}


def test_loss_of_depth_without_any():
    """No pixel counts, or one, or all are right: no NaN, also not in the gradient."""
    x, loss = jnp.full((1, 2, 2), 3.0), jax.jit(jax.value_and_grad(sig_loss))
    for truth in (jnp.zeros_like(x), jnp.full_like(x, 11), x, x.at[0, 0, 0].set(0).at[0, 1].set(0)):
        value, gradient = loss(x, truth)
        assert value == 0 and not np.asarray(gradient).any()


def test_depth_probe():
    goldens.check(goldens.load("evaluation/depth_head__c8"), _depth_head, half=False)


def _depth_head(inputs, params):
    probe = DepthProbe(8, nnx.Rngs(0))
    probe.classify.kernel.set_value(params["classifier.weight"][:, :, 0, 0].T)
    probe.classify.bias.set_value(params["classifier.bias"])
    return {"y": probe(inputs["feat"], inputs["cls"][:, 0])}


def test_loss_of_directions():
    def loss(inputs, params):
        return {"loss": cosine_mse(inputs["pred"], inputs["target"])[None]}

    goldens.check(goldens.load("evaluation/jafar_loss__a"), loss, half=False)


def test_errors_of_depth():
    """`jaxup.metrics` has the published measures."""
    golden = goldens.load("evaluation/depth_metrics__a")
    x, truth = (jnp.asarray(golden.inputs[name], jnp.float32) for name in ("pred", "gt"))
    found = metrics.depth_errors(x, truth, valid=(truth > 1e-3) & (truth < 10), convention="fastdepth")
    names = {"d1": "delta1", "d2": "delta2", "d3": "delta3", "abs_rel": "rel", "rmse": "rmse", "log_10": "log10"}
    for theirs, ours in names.items():
        np.testing.assert_allclose(found[ours][0], golden.outputs[theirs], rtol=1e-5)


class Repeat:
    """Doubles by repeating pixels, and gives what it was asked."""

    def doublings(self, x, guide, count):
        outputs = []
        for _ in range(count):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            outputs.append(x)
        return outputs

    def __call__(self, x, guide, *, size):
        return resize(x, size=size, method="nearest") + 0 * guide.mean()


def test_loss_of_uplift():
    """Each step of each level against the features of its size."""
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    batch = jax.jit(partial(pyramid, MEANS))({"image": image})
    sizes = [batch[f"level{i}"].shape[1] for i in range(len(batch) - 1)]
    assert sizes == [8, 4, 2, 1]
    levels, expected = [np.asarray(batch[f"level{i}"]) for i in range(4)], 0.0
    for start in range(1, 4):
        for target in range(start):
            times = 2 ** (start - target)
            enlarged = levels[start].repeat(times, 1).repeat(times, 2)
            expected += np.mean((enlarged - levels[target]) ** 2)
    np.testing.assert_allclose(jax.jit(partial(uplift_loss, Repeat()))(batch)[0], expected, rtol=1e-5)


def test_loss_of_naf():
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3)).astype(np.uint8)
    batch = jax.jit(partial(halves, MEANS))({"image": image})
    assert batch["features"].shape == (1, 3, 3, 3) and batch["guide"].shape == (1, 12, 12, 3)
    colours = image[0] / 255
    target, half = (colours.reshape(n, 12 // n, n, 12 // n, 3).mean((1, 3)) for n in (6, 3))
    np.testing.assert_allclose(batch["target"][0], target, atol=1e-6)
    assert batch["features"].std() < target.std() and abs(batch["features"].mean() - half.mean()) < 0.05
    expected = np.mean((np.asarray(batch["features"]).repeat(2, 1).repeat(2, 2) - np.asarray(batch["target"])) ** 2)
    np.testing.assert_allclose(jax.jit(partial(naf_loss, Repeat()))(batch)[0], expected, rtol=1e-5)


def test_loss_of_anyup():
    """Parts are compared with the same parts of the output: of smooth images these are nearly the same."""
    rows = np.linspace(50, 200, 16)[:, None, None] + np.linspace(0, 50, 16)[None, :, None] * [1, 0, -1]
    image = np.rint(rows).astype(np.uint8)[None]
    batch = {"image": image, "corners": np.array([[[0, 0], [4, 0], [0, 4], [2, 3]]]), "disturbed": image[:, ::2, ::2]}
    made = jax.jit(partial(crops, MEANS))(batch)
    loss = jax.jit(partial(anyup_loss, Repeat()))
    assert made["features"].shape == (1, 4, 4, 3) and made["target"].shape == (1, 4, 4, 4, 3)
    np.testing.assert_allclose(
        made["target"][0, 3], image[0, 4:12, 6:14].reshape(4, 2, 4, 2, 3).mean((1, 3)) / 255, atol=1e-6
    )
    (_, right), (_, wrong) = loss(made), loss(made | {"places": batch["corners"][:, ::-1]})
    assert right["guides"] < 1e-6 and right["input"] < 1e-4 and right["parts"] < wrong["parts"] / 3


def test_published_numbers():
    assert RESULTS["jafar"]["voc"] == "84.44"
    encoder, config = Encoder(means, 384, 14, BARE), presets.jafar()
    assert published(config, encoder)["mIoU"]["bilinear"] == "80.70"
    depth = published(replace(config, data=DataConfig("depth-folder")), encoder)
    assert (depth["d1"]["lift"], depth["rmse"]["jafar"]) == ("57.04", "0.62")
    stuff, streets = (replace(config, data=DataConfig(name)) for name in ("coco-stuff", "cityscapes"))
    assert published(stuff, encoder)["mIoU"]["jafar"] == "60.78"
    assert published(streets, encoder)["mIoU"]["jafar"] == "61.47"
    assert published(config, MEANS) == {} and published(presets.shapes(), encoder) == {}
    labels = {"a/jafar.pth": "jafar", "UPLIFT_s14.safetensors": "uplift", "fitted": "fitted", "b/mine.bin": "mine"}
    assert {name: replace(config, upsampler=name).label for name in labels} == labels


def test_views():
    """Squares of any photograph: mirrored or not, of any part where there is a zoom."""
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    views = [view(image, 7, 1.0, np.random.default_rng(seed)) for seed in range(20)]
    parts = [image[:, left : left + 7] for left in range(3)]
    both = [part.tobytes() for part in (*parts, *(p[:, ::-1] for p in parts))]
    assert {found.tobytes() for found in views} == set(both)
    assert view(image, 8, 3.0, np.random.default_rng(0)).shape == (8, 8, 3)
    assert view(image[:1, :1], 4, 3.0, np.random.default_rng(0)).tolist() == np.tile(image[0, 0], (4, 4, 1)).tolist()


@pytest.mark.thorough
def test_options_that_do_not_fit(tmp_path, capsys):
    folder = ["--run-dir", str(tmp_path / "a")]
    for arguments, message in (
        (["train", "--side", "0"], "side: expected at least 1, got 0"),
        (["train", "--learning-rate", "0"], "learning_rate: expected a number above 0"),
        (["train", "--source", "rooms", "--num-classes", "3"], "num_classes: has no effect with the source rooms"),
        (["train", "--data-dir", "b"], "data_dir: has no effect with the source shapes"),
        (["train", "--upsampler", "bilinaer"], "did you mean"),
        (["train", "--encoder", "dinov9"], "did you mean"),
        (["table", "--upsampler", "fitted"], "upsampler: has no effect beside upsamplers"),
        (["table", "--upsamplers", "bilinear", "bilinear"], "upsamplers: expected different names"),
        (["fit-upsampler", "--zoom", "0.5"], "zoom: expected at least 1"),
        (["fit-upsampler", "--side", "40"], "side: expected a multiple of 32 of at least 32, got 40"),
        (["fit-upsampler", "--upsampler", "naf", "--side", "80"], "at least 96, got 80"),
        (["fit-upsampler", "--photographs", str(tmp_path / "none")], "no such folder"),
    ):
        assert main(["probe", arguments[0], "--smoke", *folder, *arguments[1:]]) == 2, arguments
        assert message in capsys.readouterr().err
        assert not (tmp_path / "a" / "config.json").exists()


@pytest.fixture
def kept(tmp_path):
    data = DataConfig("shapes", images=3, side=16)
    return tmp_path, data, open_features(data, "train", MEANS, "means", tmp_path)


def test_features_are_kept(kept):
    """Of images and their mirror images; the second time they are read; a damaged file is refused."""
    folder, data, found = kept
    plain, mirrored = found[1]
    colours, _ = means(plain["image"][None] / np.float32(255), BARE)
    np.testing.assert_allclose(plain["features"], colours[0], atol=1e-3)
    np.testing.assert_allclose(mirrored["features"], colours[0][:, ::-1], atol=1e-3)
    np.testing.assert_allclose(plain["whole"], colours[0].mean((0, 1)), atol=1e-3)
    np.testing.assert_array_equal(mirrored["truth"], plain["truth"][:, ::-1])
    np.testing.assert_array_equal(mirrored["image"], plain["image"][:, ::-1])
    again = open_features(data, "train", MEANS._replace(encode=None), "means", folder)
    np.testing.assert_array_equal(again[2][0]["features"], found[2][0]["features"])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:60], whole[:-8], b""):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="features-shapes-train"):
            open_features(data, "train", MEANS, "means", folder)
    np.save(file, np.zeros((3, 2, 65, 3), np.float32))
    with pytest.raises(InputError, match="expected features of 3 images"):
        open_features(data, "train", MEANS, "means", folder)


@pytest.mark.thorough
def test_fitted_filters_are_kept(kept):
    """They give what Upsample Anything gives of the images and their mirror images."""
    folder, data, _ = kept
    found = open_features(data, "train", MEANS, "means", folder, fits=True)
    enlarge = TrainConfig(RunConfig(folder / "run"), data, "random", "fitted").open_upsampler()
    for example in found[1]:
        batch = {name: jnp.asarray(array[None]) for name, array in example.items()}
        assert batch["fit"].shape == (1, 8, 8, 4)
        image = batch["image"].astype(jnp.float32) / 255
        expected = solvers.upsample_anything(batch["features"], image)
        np.testing.assert_allclose(enlarge(batch), expected, atol=0.02)
        del batch["fit"]
        np.testing.assert_array_equal(enlarge(batch), expected)
    (file,) = folder.glob("fits-shapes-train-*")
    assert open_features(data, "train", MEANS, "means", folder, fits=True)[2][0]["fit"].any()
    np.save(file, np.zeros((3, 2, 8, 8, 3), np.float32))
    with pytest.raises(InputError, match=r"fits-shapes-train.*expected filters of 3 images"):
        open_features(data, "train", MEANS, "means", folder, fits=True)


def test_batches(kept):
    """Mirrored ones among them; their order follows from the seed, and goes on where it was."""
    *_, found = kept
    iterator = iter(training_batches(found, 2, seed=0))
    batches = [next(iterator) for _ in range(6)]
    assert batches[0]["features"].shape == (2, 8, 8, 3) and batches[0]["truth"].shape == (2, 16, 16)
    plain = {found[i][0]["image"].tobytes() for i in range(3)}
    seen = {image.tobytes() for batch in batches for image in batch["image"]}
    assert seen & plain and seen - plain
    state = iterator.get_state()
    following = next(iterator)
    again = iter(training_batches(found, 2, seed=0))
    again.set_state(state)
    np.testing.assert_array_equal(next(again)["image"], following["image"])


def test_batches_of_photographs():
    """AnyUp's have corners in cells, within the image, and a second guide."""
    config = FitConfig(RunConfig("a"), "anyup", "random", side=32, zoom=2.0, batch_size=3)
    source = [Photograph(np.random.default_rng(i).integers(0, 256, (40, 50, 3)).astype(np.uint8), "a") for i in (0, 1)]
    batch = next(iter(photographs_of(source, config, 4)))
    assert batch["image"].shape == (3, 32, 32, 3) and batch["disturbed"].shape == (3, 16, 16, 3)
    assert batch["corners"].shape == (3, 4, 2) and batch["corners"].min() >= 0 and batch["corners"].max() <= 4
    assert set(next(iter(photographs_of(source, replace(config, upsampler="naf"), 4)))) == {"image"}


@pytest.mark.thorough
def test_table(tmp_path, capsys):
    """Rows, pictures, going on, and what the other commands make of the runs."""
    run_dir = tmp_path / "run"
    arguments = ["probe", "table", "--smoke", "--run-dir", str(run_dir)]
    assert main([*arguments, "--upsamplers", "bilinear"]) == 0
    (row,) = json.loads((run_dir / "results.json").read_text())
    assert row["method"] == "bilinear" and 0 <= row["mIoU"] <= 100 and row["parameters"] == 16 * 8 + 8
    assert (run_dir / "features.png").is_file() and (run_dir / "probes.png").is_file()
    files = sorted(path.name[:20] for path in (run_dir / "features").iterdir())
    assert files == ["features-shapes-test", "features-shapes-trai"]
    run = ["--run-dir", str(run_dir / "bilinear")]
    assert main(["probe", "evaluate", *run, "--out", str(tmp_path / "out")]) == 0
    (again,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (again["mIoU"], again["accuracy"]) == (row["mIoU"], row["accuracy"])
    assert main(["probe", "pictures", *run, "--images", "1", "--out", str(tmp_path / "pictures")]) == 0
    capsys.readouterr()
    assert main(["probe", "pictures", *run, "--images", "2", "--out", str(tmp_path / "b")]) == 2
    assert "images: expected numbers from 0 to 1" in capsys.readouterr().err
    lines = (run_dir / "bilinear" / "metrics.jsonl").read_text()
    assert main([*arguments, "--upsamplers", "bilinear"]) == 0
    assert (run_dir / "bilinear" / "metrics.jsonl").read_text() == lines, "what was trained is only read"


@pytest.mark.thorough
@pytest.mark.parametrize("name", FITS)
@pytest.mark.first(1)
def test_fit_upsampler(name, tmp_path):
    """What it leaves is read by jaxup.load, for a probe of depth, too."""
    folder = tmp_path / name
    side = {"naf": "96", "uplift": "32", "anyup": "64"}[name]
    arguments = ["probe", "fit-upsampler", "--smoke", "--upsampler", name, "--side", side, "--run-dir", str(folder)]
    assert main(arguments) == 0
    module = jaxup.load(folder / f"{name}.safetensors")
    assert type(module) is FITS[name].module
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(np.isfinite(line["loss"]) for line in lines)
    probe = ["--smoke", "--upsampler", str(folder / f"{name}.safetensors"), "--run-dir", str(tmp_path / "probe")]
    assert main(["probe", "train", *probe, "--source", "rooms", "--side", "96", "--steps", "1"]) == 0
    if name == "naf":
        assert main(["probe", "evaluate", "--run-dir", str(tmp_path / "probe"), "--out", str(tmp_path / "out")]) == 0
        (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
        assert row["method"] == "naf" and row["rmse"] > 0 and 0 <= row["d1"] <= row["d2"] <= row["d3"] <= 100


@pytest.mark.thorough
def test_weights_that_are_kept(tmp_path, monkeypatch):
    """Of the default encoder: beside what a run keeps, which is opened first."""

    def pretrained(folder):
        (folder / "efficientnet-lite0.safetensors").write_bytes(b"weights")
        return features.build_backbone("random", folder)

    monkeypatch.setattr(features, "pretrained", pretrained)
    options = ["--smoke", "--encoder", "efficientnet-lite0", "--steps", "1", "--run-dir"]
    assert main(["probe", "train", *options, str(tmp_path / "a")]) == 0
    assert main(["probe", "fit-upsampler", *options, str(tmp_path / "b")]) == 0
    assert {path.parent.name for path in tmp_path.rglob("efficientnet*")} == {"features", "b"}


@pytest.mark.slow
def test_fit_upsampler_goes_on(tmp_path):
    """A run that was stopped after a step ends in the weights of one that was not."""
    arguments = ["probe", "fit-upsampler", "--smoke", "--run-dir"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--steps", "1"]) == 0
    assert main([*arguments, str(tmp_path / "parts"), "--steps", "2"]) == 0
    weights = [(tmp_path / name / "uplift.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
