"""The denoising experiment from the command line, and its data."""

import csv
import json
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from skimage.metrics import structural_similarity

from experiments import denoising
from experiments.__main__ import main
from experiments.data.denoising import batches, cut_patches, grey_images, noisy_patches
from experiments.denoising import evaluation, networks, table
from experiments.denoising.networks import MODELS, NetworkConfig, gflops, parameters
from experiments.denoising.paper import COSTS, RESULTS
from experiments.engine.train import squared_error
from jaxup.files import InputError
from jaxup.models import DnCNN

TINY = "--preset short --features 4 --batch-size 4 --steps 2 --log-every 1 --drops 1"


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """The layout of the data sets: two windows of train400, two images of BSD68 by a list, Set12 as a folder."""
    root = tmp_path / "data"
    for name in ("sisr", "denoise/Set12", "denoise/Train400"):
        (root / name).mkdir(parents=True)
    Image.fromarray(random_image(190, 200, 3)).save(root / "sisr" / "a.png")
    Image.fromarray(random_image(180, 180, seed=1)).save(root / "denoise" / "Train400" / "b.png")
    Image.fromarray(random_image(41, 50, seed=2)).save(root / "denoise" / "Set12" / "01.png")
    write(root / "denoise" / "train400.csv", "name,file,y,x", "t1,sisr/a.png,10,20", "t2,denoise/Train400/b.png,0,0")
    write(root / "denoise" / "bsd68.csv", "name,file", "test001,sisr/a.png")
    return root


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")


def run(*arguments):
    return main(["denoising", *(str(argument) for argument in arguments)])


def test_data_sets_by_list_and_by_folder(folder):
    train = grey_images("train400", folder, "train")
    colour = np.asarray(Image.open(folder / "sisr" / "a.png")).astype(float)
    grey = np.floor(colour @ [0.298936021293775390, 0.587043074451121360, 0.114020904255103250] + 0.5)
    np.testing.assert_array_equal(train["t1"], grey[10:190, 20:200])
    np.testing.assert_array_equal(train["t2"], random_image(180, 180, seed=1))
    np.testing.assert_array_equal(grey_images("bsd68", folder, "test")["test001"], grey)
    np.testing.assert_array_equal(grey_images("set12", folder, "test")["01"], random_image(41, 50, seed=2))
    np.testing.assert_array_equal(grey_images("folder", folder / "denoise" / "Set12", "train")["01"].shape, (41, 50))
    (folder / "denoise" / "train400.csv").unlink()
    assert list(grey_images("train400", folder, "train")) == ["b"]
    assert list(grey_images("set12", folder / "denoise", "test")) == ["01"]


def test_real_data_have_the_papers_sizes(shared_data):
    """ "Around 240,000 training samples", from lists as short as the files."""
    for name, count in (("train400", 400), ("bsd68", 68)):
        with (shared_data / "denoise" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == count
    flat = {str(index): np.zeros((180, 180), np.uint8) for index in range(400)}
    assert len(cut_patches(flat, 40, 10, (1.0, 0.9, 0.8, 0.7)).starts) == 238_400
    assert len(grey_images("set12", shared_data, "test")) == 12


def test_patches_are_windows_of_the_images_mirrored_and_turned():
    image = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24).astype(np.uint8)
    patches = cut_patches({"a": image[:9, :9], "b": image}, 8, 4, (1.0,))
    assert len(patches.starts) == 1 + 3 * 5
    make = noisy_patches(patches, 8, 1e-3, 0)
    seen = set()
    for start in range(0, 64, 16):
        batch = {"patch": np.full(16, 1 + 5 + 2, np.int32), "example": np.arange(start, start + 16, dtype=np.uint32)}
        for clean in np.rint(np.asarray(make(batch)["clean"])[..., 0] * 255):
            window = image[4:12, 8:16]
            turned = [np.rot90(m, k) for m in (window, window.T) for k in range(4)]
            seen |= {number for number, form in enumerate(turned) if np.array_equal(form, clean)} or {None}
    assert seen == set(range(8))


@pytest.mark.thorough
def test_examples_depend_on_their_numbers_only():
    """So that a run that is continued sees the same, and batches of other sizes, too."""
    patches = cut_patches({"a": random_image(24, 24)}, 16, 4, (1.0, 0.9))
    make = noisy_patches(patches, 16, 25.0, 3)

    def examples(size, count, state=None):
        iterator = iter(batches(len(patches.starts), size, seed=5))
        if state is not None:
            iterator.set_state(state)
        made = [jax.tree.map(np.asarray, make(next(iterator))) for _ in range(count)]
        return {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}, iterator.get_state()

    whole, _ = examples(6, 4)
    first, state = examples(6, 2)
    second, _ = examples(6, 2, state)
    small, _ = examples(3, 8)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([first[name], second[name]]))
        np.testing.assert_array_equal(array, small[name])
    noise = (whole["noisy"] - whole["clean"]) * 255
    assert noise.std() == pytest.approx(25, rel=0.03) and abs(noise.mean()) < 1
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.3
    other = noisy_patches(patches, 16, 25.0, 4)(next(iter(batches(len(patches.starts), 6, seed=5))))
    assert not np.array_equal(other["noisy"], whole["noisy"][:6])


def test_loss_is_the_mean_squared_error():
    batch = {"noisy": np.full((2, 3, 4, 1), 0.75, np.float32), "clean": np.full((2, 3, 4, 1), 0.5, np.float32)}
    loss, metrics = squared_error("noisy", "clean")(lambda x: x, batch)
    assert loss == pytest.approx(1 / 16) and metrics["psnr"] == pytest.approx(10 * np.log10(16))


def test_scores_equal_scikit_image():
    truth, result = (random_image(20, 24, seed=s).astype(np.float32) / 255 for s in (0, 1))
    scores = evaluation.score(result, truth)
    gaussian = dict(gaussian_weights=True, use_sample_covariance=False)
    assert scores["PSNR"] == pytest.approx(-10 * np.log10(np.mean((result - truth) ** 2)), rel=1e-5)
    assert scores["SSIM"] == pytest.approx(structural_similarity(truth, result, data_range=1, **gaussian), abs=1e-5)
    assert scores["SSIM (2)"] == pytest.approx(structural_similarity(truth, result, data_range=2), abs=1e-5)


def test_images_of_any_size():
    """481 x 321 pixels are padded by reflection, and cut again; a network without stages sees no padding."""

    class Mirror(evaluation.DnCNNSegNet):
        def __init__(self):
            pass

        def __call__(self, x):
            assert x.shape == (1, 16, 24, 1)
            return x[:, ::-1, ::-1]

    image = random_image(11, 17).astype(np.float32)
    padded = np.pad(image, ((0, 5), (0, 7)), mode="reflect")
    np.testing.assert_array_equal(evaluation.as_method(Mirror())(image), padded[::-1, ::-1][:11, :17])


@pytest.mark.thorough
def test_costs_are_those_of_the_paper():
    assert set(COSTS) == set(RESULTS) <= set(MODELS)
    assert [len(row) for row in RESULTS.values()] == [6] * 5 + [5] * 15
    for model in ("dncnn", "shared_o2o-nl"):
        assert gflops(NetworkConfig(model)) == pytest.approx(COSTS[model][1], rel=0.023)
    assert parameters(NetworkConfig("m2o-nl-c")) - parameters(NetworkConfig("max-unpool")) == 11_705_344


@pytest.mark.thorough
def test_every_name_gives_a_network():
    kernels = []
    for name in ("m2o", "m2o-nl", "m2o-nl-c"):
        network = nnx.eval_shape(lambda name=name: NetworkConfig(name, features=4).build(0))
        kernels.append(network.resampling.down_layers[0].columns[0].kernel.get_value().shape)
    assert kernels == [(2, 2, 4, 4), (2, 2, 4, 8), (4, 4, 4, 8)]
    assert len(set(MODELS)) == len(MODELS)


@pytest.mark.slow
def test_smoke_of_the_table(tmp_path, folder, monkeypatch, capsys):
    """Training of two networks with pictures, and evaluation of the same runs; DnCNN with few of its alike layers."""
    monkeypatch.setattr(networks, "DnCNN", partial(DnCNN, layers=4))
    place = tmp_path / "table"
    options = ["--models", "dncnn", "shared_o2o", "--tests", "set12", "--data-dir", folder, "--source", "train400"]
    assert run("table", "--smoke", "--run-dir", place, *options) == 0
    printed = capsys.readouterr().out
    for method in ("noisy", "total variation", "dncnn, 4 features", "shared_o2o, 4 features"):
        assert f"| {method} " in printed
    pictures = {str(path.relative_to(place / "sigma-25")) for path in (place / "sigma-25").rglob("*.png")}
    assert pictures == {"set12/01.png", "index-maps.png"}
    out = tmp_path / "out"
    assert run("evaluate", "--run-dir", place / "dncnn", "--tests", folder / "denoise" / "Set12", "--out", out) == 0
    results = json.loads((out / "results.json").read_text())["sigma 25"]
    assert [row["method"] for row in results["table"]][2:] == ["dncnn, 4 features"]
    assert results["images"]["Set12"]["noisy"]["01"]["PSNR"] == pytest.approx(20.17, abs=0.5)
    own = ("--own-statistics", "--out", tmp_path / "own")
    assert run("evaluate", "--run-dir", place / "dncnn", "--tests", folder / "denoise" / "Set12", *own) == 0
    others = json.loads((tmp_path / "own" / "results.json").read_text())["sigma 25"]["images"]["Set12"]
    assert others["noisy"] == results["images"]["Set12"]["noisy"]
    assert others["dncnn, 4 features"] != results["images"]["Set12"]["dncnn, 4 features"]
    for name in ("dncnn", "shared_o2o"):
        lines = [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4]


def test_the_papers_numbers_stand_beside_whole_networks_only():
    assert evaluation._paper(NetworkConfig("dncnn"), "set12", 25.0) == "30.42/0.9296"
    assert evaluation._paper(NetworkConfig("dncnn", features=8), "set12", 25.0) == ""
    assert evaluation._paper(NetworkConfig("m2o"), "set12", 50.0) == "" == evaluation._paper(None, "bsd68", 25.0)


def test_presets_are_the_papers():
    paper = denoising.presets.paper()
    epoch = 238_400 // 128
    assert (paper.batch_size, paper.optimizer.learning_rate, paper.data.patch, paper.data.stride) == (128, 1e-3, 40, 10)
    assert (paper.run.steps, paper.optimizer.drops) == (60 * epoch, (45 * epoch, 55 * epoch))
    assert paper.network.features == 64 and denoising.presets.paper_table().training.network.features == 64
    assert set(denoising.presets.paper_table().models) == set(RESULTS) and len(RESULTS) == 20
    assert denoising.presets.paper_table().sigmas == (15, 25, 50)
    assert denoising.presets.short().batch_size >= 48
    assert denoising.presets.short_table().training.network.features == 64


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("evaluate --tests set12 --data-dir {tmp}/none", "none: no such folder"),
        ("evaluate --tests bsd68 --data-dir {tmp}/empty", "has neither denoise/bsd68.csv nor denoise/BSD68"),
        ("evaluate --tests {tmp}/empty", "empty: no images"),
        ("evaluate --tests {tmp}/small", "expected at least 11 x 11 pixels"),
        ("evaluate --pictures", "pictures: expected a directory for them, --out"),
        ("evaluate --out {tmp}/empty", "exists already"),
        ("evaluate --run-dir {tmp}/empty", "is not a run directory"),
        ("train --source folder --data-dir {tmp}/empty", "empty: no images"),
        ("train --source folder --data-dir {tmp}/small", "dot: 10 x 9 pixels are fewer than the patch of 40"),
        ("train --model resnet", "model: expected one of"),
        ("train --model max-unpool --patch 44", "patch: expected a multiple of 8"),
        ("train --sigma 0", "sigma: expected a number above 0"),
        ("train --scales 1.5", "scales: expected numbers from 0 to 1"),
        ("table --models dncnn resnet", "models: expected one of"),
        ("table --model m2o", "model: has no effect beside models"),
        ("table --sigma 15 --sigmas 25 50", "sigma: has no effect beside sigmas"),
        ("table --sigmas 25 0 --models dncnn", "sigma: expected a number above 0"),
        ("train --data-dir {tmp}/empty", "data_dir: has no effect with the source photos"),
        ("evaluate --data-dir {tmp}/empty", "data_dir: has no effect on the tests photos"),
        ("evaluate --own-statistics", "own_statistics: has no effect without a run_dir"),
        ("evaluate --crop 0", "crop: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "_total_variation", lambda sigma: lambda x: x)
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    Image.fromarray(random_image(9, 10)).save(tmp_path / "small" / "dot.png")
    command, *words = arguments.format(tmp=tmp_path).split()
    options = ["--run-dir", tmp_path / "run"] if command != "evaluate" else []
    assert run(command, *options, *(TINY.split() if command == "train" else []), *words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("train400.csv", "name,file,y,x\nt1,sisr/none.png,0,0", "none.png: no such file"),
        ("train400.csv", "name,file,y,x\nt1,sisr/a.png,50,0", "t1: no window of 180 x 180 pixels at (50, 0)"),
        ("train400.csv", "name,file,y,x\nt1,sisr/a.png,top,0", "train400.csv: cannot be read"),
        ("train400.csv", "name,path\nt1,sisr/a.png", "train400.csv: cannot be read"),
        ("train400.csv", "name,file,y,x", "train400.csv: lists no images"),
        ("Train400/b.png", "no image", "b.png"),
    ],
)
def test_damaged_data(file, content, message, folder):
    (folder / "denoise" / file).write_text(content)
    with pytest.raises(InputError) as caught:
        grey_images("train400", folder, "train")
    assert message in str(caught.value)


@pytest.mark.thorough
def test_a_table_of_several_levels_of_noise(tmp_path, monkeypatch, capsys):
    """Each network has a directory for each level; nothing is trained here."""
    trained = []
    monkeypatch.setattr(table, "train", lambda config: (trained.append(config), config.build())[1])
    monkeypatch.setattr(evaluation, "_total_variation", lambda sigma: lambda x: x)
    monkeypatch.setattr(evaluation, "cost_cells", lambda config: {})
    words = ["--models", "dncnn", "--sigmas", "15", "50", "--no-pictures", "--run-dir", tmp_path / "table"]
    assert run("table", "--preset", "smoke", *words) == 0
    assert [(config.sigma, config.run.run_dir.name) for config in trained] == [
        (15, "dncnn-sigma-15"),
        (50, "dncnn-sigma-50"),
    ]
    printed = capsys.readouterr().out
    assert printed.count("| dncnn, 4 features ") == 2 and "sigma = 15, means" in printed and "sigma = 50" in printed
