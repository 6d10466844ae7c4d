"""The experiment of monocular depth from the command line, its losses and scores."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.__main__ import main
from experiments.data.monocular import Frame
from experiments.data.monocular_batches import Protocol, examined, training_batches
from experiments.engine.checkpoint import split_model
from experiments.engine.config import load_config
from experiments.engine.optim import Decayed
from experiments.engine.weights import WeightsConfig
from experiments.monocular_depth import evaluation, presets
from experiments.monocular_depth.data import DataConfig, HeldOut
from experiments.monocular_depth.drawing import coloured
from experiments.monocular_depth.networks import LEAST, NetworkConfig, depth_of
from experiments.monocular_depth.paper import RESULTS, paper_cells
from experiments.monocular_depth.table import table
from experiments.monocular_depth.training import TrainConfig, loss_of, train
from jaxup import interop
from jaxup.interop.backbones import Shapes
from jaxup.interop.keys import flat_variables
from jaxup.losses import hu_depth_loss
from jaxup.models.monocular_depth import MONOCULAR_DEPTH_METHODS, make_monocular_depth_network


class Small(nnx.Module):
    """Stands for a network: at half the size, with batch statistics."""

    def __init__(self, seed=0):
        self.backbone = nnx.Conv(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(seed))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(seed))
        self.head = nnx.Conv(4, 1, (1, 1), rngs=nnx.Rngs(seed + 1))

    def __call__(self, x):
        return nnx.relu(self.head(nnx.relu(self.norm(self.backbone(x)))))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(NetworkConfig, "build", lambda _, seed: Small(seed))


def run(*arguments):
    return main(["monocular-depth", *(str(argument) for argument in arguments)])


def pairs(folder, *sizes):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}_rgb.png")
        np.save(folder / f"{i}_depth.npy", rng.uniform(1, 5, size).astype(np.float32))
    return folder


def lines(run_dir):
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "data_wait")} for line in found]


@pytest.mark.thorough
def test_table_evaluation_and_pictures(small, tmp_path):
    """Both protocols; a run alone has the numbers that it has in the table; other data, and pictures."""
    folder = tmp_path / "table"
    assert run("table", "--smoke", "--run-dir", folder, "--models", "fastdepth-shared_o2o") == 0
    results = json.loads((folder / "results.json").read_text())
    assert list(results) == ["fastdepth", "hu"] and {path.name for path in folder.glob("*.png")} == {
        "depth-fastdepth.png",
        "depth-hu.png",
    }
    for rows in results.values():
        assert [row["network"] for row in rows] == ["best constant", "fastdepth-shared_o2o, 32 features"]
        assert all(0 <= row["delta1"] <= row["delta2"] <= row["delta3"] <= 1 for row in rows)
        assert rows[1]["s/step"] > 0 and 0 < rows[1]["GiB"] < 1 and rows[1]["paper rms"] == ""
    assert results["fastdepth"][1]["rms"] != results["hu"][1]["rms"]
    assert "rms (pixels)" in (folder / "table.md").read_text()
    assert load_config(TrainConfig, folder / "fastdepth-shared_o2o").network.model == "fastdepth-shared_o2o"

    out, one = tmp_path / "out", folder / "fastdepth-shared_o2o"
    assert run("evaluate", "--run-dir", one, "--images", 2, "--cost-size", 32, 32, "--out", out) == 0
    (_, row), (_, wanted) = json.loads((out / "results.json").read_text())["fastdepth"], results["fastdepth"]
    assert row == {key: value for key, value in wanted.items() if key in row} and "rms" in row
    other = pairs(tmp_path / "pairs", (40, 60), (60, 40))
    pictures = ["pictures", "--run-dir", one, "--source", "folder", "--data-dir", other, "--images", 1, 0]
    assert run(*pictures, "--out", tmp_path / "pictures") == 0
    with Image.open(tmp_path / "pictures" / "depth.png") as image:
        assert min(image.size) > 300


@pytest.mark.thorough
def test_a_run_goes_on_bit_for_bit(small, tmp_path):
    options = ["--smoke", "--log-every", 1, "--save-every", 1, "--loss", "hu", "--manner", "hu", "--batch-size", 4]
    assert run("train", *options, "--steps", 4, "--run-dir", tmp_path / "whole") == 0
    for steps in (2, 4):
        assert run("train", *options, "--steps", steps, "--run-dir", tmp_path / "parts") == 0
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [1, 2, 3, 4]
    assert [line["learning_rate"] for line in lines(tmp_path / "whole")] == pytest.approx([0.01, 0.01, 1e-3, 1e-3])


class Given:
    """A source of these depths, as frames that the protocols do not change in size."""

    def __init__(self, *depths):
        self.depths = [np.broadcast_to(np.float32(depth), (250, 333)) for depth in depths]

    def __len__(self):
        return len(self.depths)

    def __getitem__(self, index):
        return Frame(np.zeros((250, 333, 3), np.uint8), self.depths[index], str(index))


def test_scores():
    """Half of one image is 2 m off, of 1 m; the other is right; what was not measured does not count."""
    half = np.where(np.arange(333) < 167, 1.0, 0.0)
    source, how = Given(half, 4.0), Protocol(height=16)
    exact = evaluation.scores(lambda example: np.maximum(example["depth"], LEAST), source, how)
    assert exact["rms"] == exact["rel"] == exact["log10"] == 0 and exact["delta1"] == 1
    off = lambda example: example["depth"] + np.where(example["depth"] == 1, 2.0, 0.0).astype(np.float32)  # noqa: E731
    row = evaluation.scores(off, source, how)
    counts = [int(examined(frame, how)["valid"].sum()) for frame in (source[0], source[1])]
    assert 0 < counts[0] < counts[1]
    wanted = {"rms": 1.0, "rel": 1.0, "log10": np.log10(3) / 2, "delta1": 0.5, "delta3": 0.5}
    assert row == pytest.approx(row | wanted | {"rms (pixels)": 2 * np.sqrt(counts[0] / sum(counts))}, rel=1e-5)
    assert evaluation.scores(off, source, Protocol("hu", 16))["rms"] == pytest.approx(np.sqrt(2), rel=1e-6)
    mean = evaluation.constant(source, how)(examined(source[0], how))
    np.testing.assert_allclose(mean, (counts[0] + 4 * counts[1]) / sum(counts), rtol=1e-6)


def test_a_delta_at_its_threshold_counts_for_hu_only():
    five = lambda example: np.full_like(example["depth"], 5.0)  # noqa: E731
    shares = [evaluation.scores(five, Given(4.0), Protocol(kind, 16))["delta1"] for kind in ("fastdepth", "hu")]
    assert shares == [0, 1]


@pytest.mark.thorough
def test_methods_give_depth_at_the_size_of_the_truth(small):
    """At least a millimetre, whatever the network gives."""
    own = TrainConfig(presets.smoke().run, NetworkConfig("hu"))
    network = Small()
    network.eval()
    example = {"image": np.ones((12, 20, 3), np.float32), "depth": np.ones((12, 20, 1), np.float32)}
    found = evaluation.method(evaluation.Run("a", own, network))(example)
    x = own.network.prepared(jnp.ones((1, 12, 20, 3)))
    assert found.shape == (12, 20, 1) and found.dtype == np.float32 and found.min() >= np.float32(LEAST)
    assert (x != 1).all() and network(x).shape == (1, 6, 10, 1)


def test_depth_is_enlarged_as_the_network_interpolates():
    """Hu's with aligned corners: ends stay ends."""

    class Ends:
        def __call__(self, x):
            return jnp.array([0.0, 3.0], jnp.bfloat16).reshape(1, 1, 2, 1)

    x, like = jnp.zeros((1, 1, 4, 3)), jnp.zeros((1, 1, 4, 1))
    network = Ends()
    np.testing.assert_allclose(depth_of(network, x, like).ravel(), [0, 0.75, 2.25, 3])
    network.align_corners = True
    found = depth_of(network, x, like)
    np.testing.assert_allclose(found.ravel(), [0, 1, 2, 3], atol=1e-6)
    assert found.dtype == jnp.float32


@pytest.mark.thorough
def test_losses():
    """Means over the measured pixels of all images; others have no effect and no gradient."""
    rng = np.random.default_rng(0)
    found, truth = (jnp.asarray(rng.uniform(1, 5, (2, 6, 8, 1)), jnp.float32) for _ in range(2))
    valid = jnp.asarray(rng.random((2, 6, 8, 1)) < 0.7).at[0, :3].set(False)
    batch = {"image": found, "depth": jnp.where(valid, truth, 0), "valid": valid}
    error = np.asarray(found - truth)[np.asarray(valid)]
    for kind, wanted in (("l1", np.abs(error).mean()), ("hu", hu_depth_loss(found, truth, valid=valid).mean())):
        loss = loss_of(kind, lambda x: x)
        run = jax.jit(jax.value_and_grad(lambda x, loss=loss: loss(lambda _: x, batch), has_aux=True))
        (value, metrics), gradient = run(found)
        np.testing.assert_allclose(value, wanted, rtol=1e-6)
        np.testing.assert_allclose(metrics["rms"], np.sqrt(np.mean(error**2)), rtol=1e-6)
        assert not gradient[~valid].any() and (gradient[valid] != 0).mean() > 0.5
    nothing = loss_of("l1", lambda x: x)(lambda x: x, batch | {"valid": jnp.zeros_like(valid)})
    assert nothing[0] == 0


def test_colours_as_backbones_want_them():
    x = jnp.full((1, 1, 1, 3), 0.5)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_array_equal(NetworkConfig("fastdepth-m2o").prepared(x), x)
    np.testing.assert_allclose(NetworkConfig("hu").prepared(x)[0, 0, 0], (0.5 - mean) / deviation, rtol=1e-5)
    lite = NetworkConfig("fastdepth-nnconv5", backbone="efficientnet_lite0")
    np.testing.assert_allclose(lite.prepared(x)[0, 0, 0], np.full(3, 0.5 / 128), rtol=1e-4)


def test_the_paper():
    assert len(RESULTS) == 19 + 2 and RESULTS.keys() <= MONOCULAR_DEPTH_METHODS.keys()
    assert paper_cells(NetworkConfig("fastdepth-m2o-nl-c"))["paper parameters"] == "+189.57M"
    assert paper_cells(NetworkConfig("fastdepth-unshared_o2o"))["paper rms"] == "0.556"
    assert paper_cells(NetworkConfig("hu-indexnet"))["paper delta1"] == "0.843"
    for other in (dict(features=512), dict(backbone="resnet18"), dict(resampling="a2u")):
        assert set(paper_cells(NetworkConfig(**other)).values()) == {""}
    assert set(paper_cells(NetworkConfig("hu-senet154")).values()) == {""}


def test_presets_are_the_papers():
    small, large = presets.fastdepth(), presets.hu()
    assert (small.batch_size, small.loss, small.protocol) == (16, "l1", Protocol("fastdepth"))
    assert (large.batch_size, large.loss, large.protocol) == (8, "hu", Protocol("hu"))
    for config, kind, rate, epochs, epoch in ((small, "sgd", 1e-2, 30, 2974), (large, "adam", 1e-4, 20, 6336)):
        optimizer = config.optimizer
        assert (optimizer.kind, optimizer.learning_rate, optimizer.weight_decay) == (kind, rate, 1e-4)
        assert config.run.steps == epochs * epoch and optimizer.drops == tuple(
            range(5 * epoch, epochs * epoch, 5 * epoch)
        )
        assert optimizer.momentum == 0.9 and config.data.source == "nyu" and config.network.published
    assert set(presets.fastdepth_table().models) | set(presets.hu_table().models) == RESULTS.keys()
    assert presets.short_table().training.data == DataConfig()


@pytest.mark.thorough
def test_adam_has_decay_in_its_gradient():
    """As PyTorch's: the first step is the sign of gradient and decay together; biases do not decay."""
    optimizer = Decayed("adam", 0.5, warmup=0, drops=(100,), weight_decay=0.1).build(1000)
    params = {"kernel": jnp.array([[2.0, -2.0]]), "bias": jnp.ones(1)}
    with jax.numpy_dtype_promotion("standard"):
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optimizer.update(zero | {"kernel": jnp.array([[-0.1, 0.1]])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[-0.5, 0.5]], rtol=1e-5)
    assert updates["bias"] == 0


def test_data(tmp_path):
    folder = pairs(tmp_path / "pairs", (8, 9), (8, 9))
    own = DataConfig("folder", folder, images=1)
    assert len(own.open("train")) == 1 and len(DataConfig("folder", folder, images=5).open("test")) == 2
    assert len(HeldOut(data_dir=folder).open(replace(own, data_dir=Path("gone")), 2)) == 2
    rooms, scenes = DataConfig(size=(24, 32)), HeldOut("scenes").open(DataConfig("nyu", size=(24, 32)), 3)
    assert len(rooms.open("train")) == 500 and len(rooms.open("test")) == 100 and len(scenes) == 3
    assert not np.array_equal(rooms.open("train")[0].depth, scenes[0].depth)
    np.testing.assert_array_equal(rooms.open("test")[0].depth, scenes[0].depth)
    assert len(HeldOut("folder", folder).open(rooms)) == 2
    for held_out, height in ((HeldOut(), 114), (HeldOut(height=50), 50)):
        assert held_out.protocol(Protocol(height=112), "hu") == Protocol("hu", height)
    assert HeldOut().protocol(Protocol("hu")) == Protocol("hu")


def test_near_is_bright_and_what_was_not_measured_grey():
    colours = coloured(np.array([[1.0, 2.0, 3.0]]), (1.0, 3.0), np.array([[True, True, False]]))
    assert colours[0, 0].mean() > colours[0, 1].mean() and (colours[0, 2] == 0.65).all()
    assert np.isfinite(coloured(np.full((1, 2), 4.0), (4.0, 4.0))).all()


def test_training_starts_with_weights(small, tmp_path, monkeypatch):
    """Those of the backbone, at the start only."""
    given = []
    monkeypatch.setattr(WeightsConfig, "load", lambda self, backbone, usual: given.append((self, backbone, usual)))
    monkeypatch.setattr("experiments.monocular_depth.training.fit", lambda network, *_: given.append(network))
    options = ["train", "--smoke", "--run-dir", tmp_path / "run", "--backbone-weights", "a.pth"]
    assert run(*options) == 0
    (weights, backbone, usual), network = given
    assert (
        backbone is network.backbone
        and weights.backbone_weights == Path("a.pth")
        and usual.name == "imagenet.MobileNet"
    )
    (tmp_path / "run/checkpoints/3").mkdir(parents=True)
    assert run(*options) == 0 and len(given) == 3


@pytest.mark.thorough
@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(),
        NetworkConfig("fastdepth-m2o"),
        NetworkConfig("fastdepth-skip-concat", backbone="efficientnet_lite0"),
        NetworkConfig("fastdepth-nnconv5", backbone="resnet18"),
        NetworkConfig("hu-indexnet"),
        NetworkConfig("hu-senet154"),
        NetworkConfig("hu-densenet161"),
    ],
)
def test_published_names(config):
    """The class that is meant without a name has the arrays of the network's backbone."""
    name, options = config.usual_weights
    chosen = {} if config.backbone is None else {"backbone": config.backbone}

    def both():
        network = make_monocular_depth_network(config.model, **chosen, rngs=Shapes())
        return network.backbone, interop.OPERATORS[name](dict(options))[0]

    ours, theirs = ({k: v.shape for k, v in flat_variables(m).items()} for m in nnx.eval_shape(both))
    assert ours == theirs


@pytest.mark.slow  # of a tiny network by default
def test_smoke_of_every_command(tmp_path, capsys):
    """With the network itself; a run that is over is not trained again."""
    models = ["--models", "fastdepth-shared_o2o"]
    assert run("table", "--smoke", "--run-dir", tmp_path / "table", *models) == 0
    (_, row) = json.loads((tmp_path / "table/results.json").read_text())["hu"]
    assert row["parameters"] == 7593 + 80
    before = lines(tmp_path / "table" / models[1])
    assert run("train", "--smoke", "--run-dir", tmp_path / "table" / models[1], "--model", models[1]) == 0
    assert lines(tmp_path / "table" / models[1]) == before and len(before) == 3
    assert run("evaluate", "--smoke", "--out", tmp_path / "out", "--pictures") == 0
    assert (tmp_path / "out/depth-fastdepth.png").is_file()
    assert "fastdepth-nnconv5, 32 features, untrained" in capsys.readouterr().out
    assert run("pictures", "--smoke", "--out", tmp_path / "pictures") == 0
    assert (tmp_path / "pictures/depth.png").is_file()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(resampling="a2u", features=32),
        NetworkConfig("fastdepth-skip-concat", features=32, backbone="efficientnet_lite0"),
        NetworkConfig("hu-indexnet", backbone="resnet18"),
    ],
)
@pytest.mark.parametrize("manner", ["fastdepth", "hu"])
def test_networks_have_gradients_in_both_protocols(config, manner):
    """Depth for training has the size of images, or half of it."""
    graph, params, rest = split_model(nnx.eval_shape(lambda: config.build(0)))
    examples = training_batches(Given(1.0), Protocol(manner, 32), batch_size=2, seed=0)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), next(iter(examples)))
    loss = loss_of("hu", config.prepared)
    value = lambda params, rest, batch: loss(nnx.merge(graph, params, rest, copy=True), batch)[0]  # noqa: E731
    gradient = jax.eval_shape(jax.grad(value), params, rest, batch)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


def configured(preset, run_dir, **changes):
    """A smoke preset of training with changes in its parts, by name of the part."""
    parts = {name: replace(getattr(preset, name), **values) for name, values in changes.items()}
    return replace(preset, run=replace(preset.run, run_dir=run_dir), **parts)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(network=dict(model="resnet")), "model: expected one of"),
        (dict(network=dict(model="hu")), "features: has no effect on hu"),
        (dict(network=dict(model="hu", features=None, resampling="a2u")), "resampling: has no effect on hu"),
        (dict(network=dict(features=40)), "features: expected"),
        (dict(network=dict(resampling="conv-deconv")), "resampling: expected one of"),
        (dict(data=dict(images=0)), "images: expected at least 1, got 0"),
        (dict(data=dict(data_dir=Path("a"))), "data_dir: has no effect with the source scenes"),
        (dict(data=dict(per_metre=1000.0)), "per_metre: has no effect with the source scenes"),
        (dict(data=dict(source="nyu", data_dir="pairs")), "pairs: has neither nyudepthv2/train, nyu2_train.csv"),
        (dict(data=dict(source="kitti", data_dir="pairs")), "train: no depth maps DRIVE/proj_depth"),
        (dict(data=dict(source="folder", data_dir="none")), "none: no such folder"),
        (dict(data=dict(source="folder", data_dir="pairs", images=0)), "images: expected 1 to 2, as many as there are"),
        (dict(data=dict(source="folder", data_dir="bad")), "0_depth.npy: depth of 4 x 3 pixels for an image of"),
        (dict(weights=dict(backbone_name="resnet50")), "backbone_name: has no effect without backbone_weights"),
        (dict(weights=dict(backbone_weights=Path("none.safetensors"))), "none.safetensors"),
    ],
)
def test_no_run_is_made_of_bad_input(changes, message, request, tmp_path, monkeypatch):
    if "network" not in changes:
        request.getfixturevalue("small")
    monkeypatch.chdir(tmp_path)
    pairs(tmp_path / "pairs", (20, 24), (20, 24))
    np.save(pairs(tmp_path / "bad", (20, 24)) / "0_depth.npy", np.ones((3, 4), np.float32))
    if isinstance(changes.get("data", {}).get("data_dir"), str):
        changes = {"data": changes["data"] | {"data_dir": Path(changes["data"]["data_dir"])}}
    with pytest.raises((ValueError, OSError), match=message):
        train(configured(presets.smoke(), tmp_path / "run", **changes))
    if "network" in changes:
        model = changes["network"].get("model", "fastdepth-nnconv5")
        rows = configured(
            presets.smoke(), tmp_path / "run", network=changes["network"] | {"model": NetworkConfig.model}
        )
        with pytest.raises(ValueError, match=message.replace("model:", "models:")):
            table(replace(presets.smoke_table(), training=rows, models=(model,)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            "train --smoke --manner hu --source folder --data-dir {tmp}/mixed",
            "expected the shape (32, 23) that other",
        ),
        ("table --smoke --model fastdepth-m2o", "model: has no effect beside models"),
        ("evaluate --smoke --data-dir {tmp}/mixed", "data_dir: has no effect with the source scenes"),
        ("evaluate --smoke --per-metre 1000", "per_metre: has no effect on the source of the run"),
        ("evaluate --smoke --pictures", "pictures: expected a directory for them, --out"),
        ("evaluate --run-dir {tmp}/mixed", "is not a run directory"),
        ("pictures --smoke --out {tmp}/mixed", "mixed: exists already"),
        ("pictures --smoke --out {tmp}/run --images 7", "images: expected numbers from 0 to 1, got 7"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, small, tmp_path, capsys):
    pairs(tmp_path / "mixed", (60, 40), (40, 60))
    command, *words = arguments.format(tmp=tmp_path).split()
    options = ["--run-dir", tmp_path / "run"] if command in ("train", "table") else []
    assert run(command, *options, *words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error, error
