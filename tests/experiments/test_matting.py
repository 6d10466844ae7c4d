"""The task `matting`: training, evaluation, table and pictures, on a network of two layers and generated mattes."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.__main__ import main
from experiments.data.matting import Matted
from experiments.engine.checkpoint import load_model
from experiments.engine.config import load_config
from experiments.engine.trained import Trained
from experiments.engine.weights import WeightsConfig
from experiments.matting import evaluation, networks, pictures, presets, weights
from experiments.matting.evaluation import errors, examine
from experiments.matting.networks import MODELS, NORMALISATIONS, NetworkConfig, as_method, network_input
from experiments.matting.paper import COSTS, RESULTS, paper_costs, paper_errors
from experiments.matting.table import INDEXNET
from experiments.matting.training import TrainConfig, loss_of
from jaxup import interop, matting
from jaxup.files import InputError
from jaxup.interop.backbones import Shapes
from jaxup.interop.keys import flat_variables
from jaxup.models.backbones import ResNet, make_backbone
from jaxup.models.matting import A2UMatting, DeepLabMatting, MattingNetwork, make_matting_network
from jaxup.nn.norms import BatchNorm
from tests.modules import filled

RNG = np.random.default_rng(5)


class Tiny(nnx.Module):
    """Two convolutions, and norms in the place of an encoder."""

    def __init__(self, rngs):
        self.encoder = nnx.List([nnx.Conv(4, 3, (3, 3), rngs=rngs), BatchNorm(3, rngs=rngs)])
        self.last = nnx.Conv(3, 1, (1, 1), rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, rngs=None):
        for layer in self.encoder:
            x = layer(x)
        return self.last(x if rngs is None else self.dropout(x, rngs=rngs))


@pytest.fixture
def tiny(monkeypatch):
    """All networks are tiny; what they would have been built with."""
    built = []
    monkeypatch.setattr(
        networks, "make_matting_network", lambda name, rngs, **options: (built.append((name, options)), Tiny(rngs))[1]
    )
    return built


def run(*arguments):
    return main(["matting", *map(str, arguments)])


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def matted(height=20, width=27):
    alpha = RNG.integers(0, 256, (height, width), np.uint8)
    trimap = np.full((height, width), 128, np.uint8)
    trimap[:3], trimap[-3:] = alpha[:3], alpha[-3:] = 0, 255
    return Matted(RNG.integers(0, 256, (height, width, 3), np.uint8), trimap, alpha, "noise")


@pytest.fixture
def folder(tmp_path):
    """One image in the layout of alphamatting.com's, in a folder of its own."""
    image, trimap, alpha, _ = matted(48, 48)
    for kind, pixels in (("image", image), ("trimap", trimap), ("alpha", alpha)):
        save(tmp_path / f"data/alphamatting/GT01_{kind}.png", pixels)
    return tmp_path / "data"


@pytest.mark.thorough
def test_a_table_of_a_tiny_network(tiny, folder, tmp_path, capsys):
    """Training, errors on two sets, pictures; then evaluation and pictures of one of the runs."""
    place = tmp_path / "table"
    options = ["--models", "B4", "--tests", "generated", "alphamatting", "--data-dir", folder, "--run-dir", place]
    assert run("table", "--smoke", *options) == 0
    printed = capsys.readouterr().out
    results = json.loads((place / "results.json").read_text())
    for test in ("generated", "alphamatting"):
        rows = results[test]["table"]
        assert [row["method"] for row in rows] == ["trimap", "B4, width 0.0625"]
        assert all(row[name] >= 0 for row in rows for name in ("SAD", "MSE", "Grad", "Conn"))
        assert rows[1]["paper SAD"] == "122.4" and "params. paper" in rows[1] and rows[1]["params. paper"] == ""
        assert rows[1]["parameters"] == 4 * 3 * 9 + 3 + 6 + 3 + 1 and rows[1]["s/step"] > 0
        assert (place / f"{test}.png").is_file() and f"{test}, by the Python evaluation" in printed
    (name, values), *_ = results["alphamatting"]["images"]["trimap"].items()
    assert name == "GT01" and values["matlab"]["SAD"] == results["alphamatting"]["table"][0]["SAD"]
    out, runs = tmp_path / "out", ["--run-dir", place / "B4"]
    assert run("evaluate", *runs, "--tests", "alphamatting", "--data-dir", folder, "--out", out) == 0
    again = json.loads((out / "results.json").read_text())["alphamatting"]
    assert again["table"][1]["SAD"] == results["alphamatting"]["table"][1]["SAD"]
    assert run("pictures", *runs, "--test", "alphamatting", "--data-dir", folder, "--out", tmp_path / "p") == 0
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["mattes.png"]
    capsys.readouterr()
    assert run("evaluate", *runs, "--out", out) == run("pictures", *runs, "--out", out) == 2
    assert capsys.readouterr().err.count("exists already") == 2


@pytest.mark.thorough
def test_training_goes_on_where_it_stopped(tiny, tmp_path):
    """To the same bits, dropout and statistics of norms included."""
    train = ["train", "--smoke", "--drops", "3"]
    assert run(*train, "--run-dir", tmp_path / "whole", "--steps", "4") == 0
    for steps in ("2", "4"):
        assert run(*train, "--run-dir", tmp_path / "parts", "--steps", steps) == 0
    config = load_config(TrainConfig, tmp_path / "whole")
    whole, parts = (flat_variables(load_model(tmp_path / name, config.build())) for name in ("whole", "parts"))
    for key, variable in whole.items():
        np.testing.assert_array_equal(variable[...], parts[key][...], err_msg=key)


def test_what_networks_are_built_with(tiny):
    for model, width, options in (
        ("B11", 1.0, {"multiplier": 1.0}),
        ("B11-1.4", 0.5, {"multiplier": 0.7}),
        ("B3", 0.25, {"features": 16}),
        ("A2U", 1 / 64, {"features": 2}),
        ("A2U", 1.0, {"features": 64}),
    ):
        NetworkConfig(model, width).build(0)
        assert tiny.pop() == (model, options)
    NetworkConfig("m2o-nl-c-softmax+sigmoid", backbone="efficientnet_lite0").build(0)
    normalisations = {"encoder_normalization": "softmax+sigmoid", "decoder_normalization": "softmax"}
    assert tiny.pop() == ("m2o-nl-c", {"multiplier": 1.0, "backbone": "efficientnet_lite0", **normalisations})
    assert NetworkConfig("B11", 0.5, "efficientnet_lite0").label == "B11, width 0.5, efficientnet_lite0"


def test_the_paper():
    assert (
        set(MODELS) == set(RESULTS)
        and set(COSTS) < set(RESULTS)
        and set(RESULTS) - set(INDEXNET)
        == {
            "A2U",
            "A2U-unshared",
        }
    )
    assert all(len(row) == 4 for row in RESULTS.values()) and all(len(row) == 2 for row in COSTS.values())
    assert paper_errors(NetworkConfig("m2o-nl-c"))["paper Conn"] == "43.7"
    assert paper_errors(NetworkConfig("m2o"))["paper Conn"] == ""
    assert paper_costs(NetworkConfig("B11-carafe")) == {"params. paper": "4.06M", "GFLOPs paper": "5.01"}
    assert set(paper_costs(NetworkConfig("B11-carafe", 0.5)).values()) == {""}


@pytest.mark.thorough
def test_losses():
    """Half of each, over what is unknown; images without unknown pixels do not count."""
    shape = (3, 4, 5)
    batch = {name: RNG.uniform(0, 1, (*shape, 3)).astype(np.float32) for name in ("image", "foreground", "background")}
    batch |= {name: RNG.uniform(0, 1, (*shape, 1)).astype(np.float32) for name in ("alpha", "trimap")}
    batch["unknown"] = RNG.random((*shape, 1)) < 0.5
    batch["unknown"][1] = False
    found = RNG.uniform(0, 1, (*shape, 1)).astype(np.float32)
    model = SimpleNamespace(dropped=lambda x: jnp.asarray(found))
    mask = batch["unknown"]
    composed = found * batch["foreground"] + (1 - found) * batch["background"]
    sums = [(mask * np.abs(a - b)).sum((1, 2, 3)) for a, b in ((found, batch["alpha"]), (composed, batch["image"]))]
    for margin in (0, 1):
        each = [np.mean([s[i] / (mask[i].sum() + margin) for i in (0, 2)]) for s in sums]
        value, metrics = loss_of(margin)(model, batch)
        np.testing.assert_allclose(value, np.mean(each), rtol=1e-4)
        np.testing.assert_allclose([metrics["alpha_loss"], metrics["composition_loss"]], each, rtol=1e-4)
    batch["unknown"] = np.zeros_like(mask)
    slope = jax.grad(lambda y: loss_of(0)(SimpleNamespace(dropped=lambda x: y), batch)[0])(jnp.asarray(found))
    assert not slope.any()


def test_networks_see_in_training_what_they_see_in_tests():
    image, trimap, _, _ = matted(32, 64)
    x = network_input(*(jnp.asarray(a[None] / np.float32(255), jnp.float32) for a in (image, trimap[..., None])))
    np.testing.assert_allclose(x[0], matting.indexnet_input(image, trimap), atol=1e-5)
    np.testing.assert_allclose(x[0], matting.a2u_input(image, trimap), atol=1e-5)


@pytest.mark.parametrize("kind, size", [(A2UMatting, (32, 32)), (DeepLabMatting, (33, 33)), (MattingNetwork, (32, 32))])
def test_mattes_are_made_as_the_official_code_does(kind, size):
    class Fixed(kind):
        def __init__(self):
            pass

        def __call__(self, x):
            assert x.shape == (1, *size, 4)
            return x[..., 3:] + 0.3

    _, trimap, _, _ = sample = matted()
    matte = as_method(Trained(Fixed(), 0))(sample.image, trimap)
    known = trimap != 128
    np.testing.assert_array_equal(matte[known], trimap[known])
    np.testing.assert_allclose(matte[10, 10], 255 * (128 / 255 + 0.3), atol=1e-3)


@pytest.mark.thorough
def test_norms_that_are_fixed():
    for fixed in (False, True):
        network = Trained(Tiny(nnx.Rngs(0)), 0, ("encoder",) if fixed else ())
        network.train()
        dropped = nnx.jit(lambda network, x: network.dropped(x))(network, jnp.ones((2, 4, 4, 4)))
        norm = network.network.encoder[1]
        assert norm.use_running_average == fixed == bool((norm.mean[...] == 0).all())
        assert dropped.shape == (2, 4, 4, 1) and not network.network.dropout.deterministic
        network.eval()
        assert network.network.dropout.deterministic and norm.use_running_average


@pytest.mark.thorough
def test_errors():
    sample = matted()
    truth = sample.alpha.astype(np.float32)
    perfect = errors(truth + 0.4, sample)["matlab"]  # 8 bits are cut, not rounded
    assert set(perfect.values()) == {0} and errors(truth + 0.4, sample)["python"]["SAD"] < 1e-5
    brighter = errors(truth.clip(0, 254) + 1, sample)["matlab"]
    unknown = sample.trimap == 128
    expected = (truth.clip(0, 254) + 1 - truth)[unknown].sum() / 255 / 1000
    np.testing.assert_allclose(brighter["SAD"], expected, rtol=1e-5)
    with pytest.raises(InputError, match="noise: has no unknown pixels"):
        errors(truth, sample._replace(trimap=sample.alpha // 128 * 255))
    drawn = []
    scores = examine(
        {"truth": lambda image, trimap: sample.alpha, "trimap": lambda image, trimap: trimap}, [sample] * 2, 1, drawn
    )
    assert scores["truth"] == {"noise": errors(truth, sample)} and len(drawn) == 1
    assert drawn[0].errors["trimap"] == scores["trimap"]["noise"]["matlab"]["SAD"] > 0


@pytest.mark.slow
def test_index_maps_of_index_networks():
    """Of the first stage, before and after training."""
    build = lambda: MattingNetwork(upsampler="m2o", multiplier=0.1, rngs=Shapes())  # noqa: E731
    learned, random = (Trained(filled(build, seed), 0) for seed in (0, 1))
    learned.eval()
    image = matted(33, 40)
    given = SimpleNamespace(network=learned, label="a", config=SimpleNamespace(build=lambda: random))
    other = SimpleNamespace(network=SimpleNamespace(network=Tiny(nnx.Rngs(0))))
    (found,) = pictures.index_maps([given, other], image)
    assert found.label == "a" and found.learned.encoder.shape == found.random.decoder.shape == (64, 64, 3)
    cells = np.asarray(found.learned.encoder).reshape(32, 2, 32, 2, 3)
    np.testing.assert_allclose(cells.sum((1, 3)), 1, rtol=1e-5)
    assert (found.learned.encoder != found.random.encoder).any()


@pytest.mark.thorough
def test_weights_of_colours(monkeypatch):
    """EfficientNet-Lite0 sees the same with the colours of other networks; the trimap has no part in it."""
    lite = filled(lambda: make_backbone("efficientnet_lite0", rngs=Shapes()))
    monkeypatch.setattr(WeightsConfig, "read", lambda *_: ("file", lite))
    config = NetworkConfig("B11", backbone="efficientnet_lite0")
    network = nnx.eval_shape(lambda: make_matting_network("B11", backbone=config.backbone, rngs=Shapes()))
    weights.load(WeightsConfig(), network, config)
    pixels = RNG.integers(0, 256, (3, 3, 3), np.uint8)
    seen = matting.indexnet_input(pixels, np.zeros((3, 3), np.uint8), multiple=3)
    seen[..., 3] = RNG.normal(size=(3, 3))

    def first(layer, x):
        y = np.einsum("hwc,hwck->k", x, np.asarray(layer.conv.kernel[...]))
        return (y - layer.norm.mean[...]) / np.sqrt(layer.norm.var[...] + 1e-3)

    wanted = first(lite.stem, (pixels.astype(np.float32) - 127) / 128)
    np.testing.assert_allclose(first(network.encoder.stem, seen), wanted, rtol=1e-4, atol=1e-4)
    block, given = (m.blocks[5].depthwise.conv.kernel[...] for m in (network.encoder, lite))
    np.testing.assert_array_equal(block, given)


@pytest.mark.thorough
def test_a2u_takes_the_blocks_of_a_resnet(monkeypatch):
    options = dict(bottleneck=False, widths=(4, 8, 16, 32), stem_features=4, rngs=Shapes())
    resnet = filled(lambda: ResNet(depth=(3, 4, 6, 1), **options))
    monkeypatch.setattr(WeightsConfig, "read", lambda *_: ("file", resnet))
    network = nnx.eval_shape(lambda: A2UMatting(features=4, upsampler="max-unpool", rngs=Shapes()))
    weights.load(WeightsConfig(), network, NetworkConfig("A2U"))
    kernel = network.stem.conv.kernel[...]
    np.testing.assert_array_equal(kernel[:, :, :3], resnet.stem[0].conv.kernel[...])
    assert not kernel[:, :, 3].any()
    for i, j in ((0, 2), (1, 0), (2, 3)):
        ours, theirs = network.stages[i][j], resnet.stages[i][j]
        np.testing.assert_array_equal(ours.second.conv.kernel[...], theirs.convs[1].conv.kernel[...])
        np.testing.assert_array_equal(ours.first.norm.var[...], theirs.convs[0].norm.var[...])
    np.testing.assert_array_equal(
        network.stages[1][0].shortcut.norm.mean[...], resnet.stages[1][0].shortcut.norm.mean[...]
    )
    few = filled(lambda: ResNet(depth=(3, 4, 3, 1), **options))
    monkeypatch.setattr(WeightsConfig, "read", lambda *_: ("file", few))
    with pytest.raises(InputError, match=r"file: expected the backbone's first\.conv\.kernel, which"):
        weights.load(WeightsConfig(), network, NetworkConfig("A2U"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("train --model B12", "model: expected one of"),
        ("train --width 0", "width: expected a number above 0"),
        ("train --model A2U --backbone efficientnet_lite0", "backbone: has no effect on A2U"),
        ("train --model B11 --backbone vgg", "backbone: expected one of"),
        ("train --data-dir {tmp}", "data_dir: has no effect with the source generated"),
        ("train --source adobe --data-dir {tmp}", "has no Training_set"),
        ("train --source folder --data-dir {tmp}/none", "none: no such folder"),
        ("train --fixed-norms", "fixed_norms: expected backbone_weights"),
        ("train --width 0.5 --backbone-weights {tmp}/a.pth", "backbone_weights: expected a network of the usual width"),
        ("train --backbone-name mobilenet_v2", "backbone_name: has no effect without backbone_weights"),
        ("train --width 1 --backbone-weights {tmp}", "has none of mobilenet_v2.safetensors"),
        ("train --width 1 --backbone-weights {tmp}/a.pth", "a.pth"),
        ("train --batch-size 0", "batch_size: expected an integer >= 1"),
        ("train --images 0", "count: expected an integer >= 1"),
        ("table --models B3 B12", "model: expected one of"),
        ("table --model B4", "model: has no effect beside models"),
        ("table --data-dir {tmp}", "data_dir: has no effect"),
        ("table --tests adobe --data-dir {tmp}", "has no Test_set"),
        ("table --tests generated foo", "tests: expected one of"),
        ("evaluate --tests alphamatting --data-dir {tmp}", "has neither input_training_lowres nor images"),
        ("evaluate --images 0", "images: expected at least 1, got 0"),
        ("evaluate --baselines knn", "baselines: expected one of"),
        ("evaluate --data-dir {tmp}", "data_dir: has no effect on the tests generated"),
        ("evaluate --pictures", "pictures: expected a directory for them, --out"),
        ("evaluate --run-dir {tmp}", "is not a run directory"),
        ("pictures --images 30 --out {tmp}/run", "images: expected numbers from 0 to 29, got 30"),
        ("pictures --test foo --out {tmp}/run", "tests: expected one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tiny, tmp_path, capsys):
    command, *words = arguments.format(tmp=tmp_path).split()
    options = ["--run-dir", tmp_path / "run"] if command in ("train", "table") else []
    assert run(command, "--smoke", *options, *words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


def test_presets_are_the_papers():
    indexnet, a2u = presets.indexnet(), presets.a2u()
    for config, epoch, crop in ((indexnet, 43_100 // 16, 320), (a2u, 6000, 512)):
        assert config.run.steps == 30 * epoch and config.optimizer.drops == (20 * epoch, 26 * epoch)
        assert (config.batch_size, config.augmentation.crop, config.optimizer.learning_rate) == (16, crop, 0.01)
        assert config.network.width == 1 and config.fixed_norms and config.data.source == "adobe"
    assert a2u.augmentation.manner == a2u.network.model.lower() == "a2u" and indexnet.augmentation.manner == "indexnet"
    rows = presets.indexnet_table().models + presets.a2u_table().models
    assert set(rows) == set(RESULTS) - {"B11-1.4"} and set(NORMALISATIONS) < set(rows)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["B5", "B3", "A2U", "B1", "B2"])
def test_published_names(model):
    """The class that is meant without a name has the arrays of the encoder, and those learn a hundredth as fast."""
    config = NetworkConfig(model)
    network = nnx.eval_shape(lambda: make_matting_network(model, rngs=Shapes()))
    name, options = weights.usual(network, config)
    loaded = nnx.eval_shape(lambda: interop.OPERATORS[name](dict(options))[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nnx.state(loaded))
    nnx.update(loaded, zeros)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightsConfig, "read", lambda *_: ("file", loaded))
        weights.load(WeightsConfig(), network, config)
    given = {key for key, x in flat_variables(network).items() if isinstance(x.get_value(), jax.Array)}
    encoder = {f"{part}." for part in ("encoder", "stem", "stages")}
    assert given == {key for key in flat_variables(network) if key.startswith(tuple(encoder))}
    params = jax.tree.map(lambda p: jnp.ones(p.shape), nnx.state(network, nnx.Param))
    scaled = presets.indexnet().optimizer._scaled(params, params)
    for path, leaf in nnx.to_flat_state(scaled):
        wanted = 0.01 if path[0] in ("encoder", "stem", "stages") else 1
        assert float(leaf[...].ravel()[0]) == pytest.approx(wanted), path


@pytest.mark.slow  # of a tiny network by default
def test_smoke(tmp_path, capsys):
    assert run("table", "--smoke", "--run-dir", tmp_path / "table") == 0
    rows = json.loads((tmp_path / "table/results.json").read_text())["generated"]["table"]
    assert rows[1]["parameters"] == rows[2]["parameters"] and rows[1]["GFLOPs"] > 0.05
    assert run("evaluate", "--smoke") == 0
    assert "B4, width 0.0625, untrained" in capsys.readouterr().out
    assert run("pictures", "--smoke", "--out", tmp_path / "pictures") == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"mattes.png", "index-maps.png"}


@pytest.mark.thorough
def test_closed_form(capsys):
    pytest.importorskip("pymatting")
    alpha = np.rint(255 * np.linspace(-0.5, 1.5, 40).clip(0, 1)).astype(np.uint8)[None].repeat(30, 0)
    image = np.stack([alpha, np.zeros_like(alpha), 255 - alpha], axis=2)  # red over blue: two colours on a line
    sample = Matted(image, matting.clean_trimap(alpha), alpha, "ramp")
    methods = evaluation.baselines(("trimap", "closed-form"))
    scores = examine(methods, [sample], None)
    solved, half = (scores[name][sample.name]["matlab"]["SAD"] for name in ("closed-form", "trimap"))
    assert solved < half / 20
    faint = sample.trimap.clip(0, 128)  # without known foreground, as of smoke
    np.testing.assert_array_equal(methods["closed-form"](sample.image, faint), faint)


@pytest.mark.slow  # tests/models/matting/test_published_sizes.py has the numbers
@pytest.mark.parametrize("model", ["B11", "B11-carafe", "HMI", "holistic", "m2o-nl"])
def test_costs_are_those_of_the_paper(model):
    found = networks.costs(NetworkConfig(model))
    assert found["GFLOPs"] == pytest.approx(float(COSTS[model][1]), rel=0.05)
