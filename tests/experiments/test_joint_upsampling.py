"""The depth upsampling experiment from the command line, as its users run it."""

import json
import re

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import joint_upsampling
from experiments.__main__ import main
from experiments.joint_upsampling import ablation, evaluation
from experiments.joint_upsampling.classical import FILTERS, METHODS
from experiments.joint_upsampling.networks import NetworkConfig
from experiments.joint_upsampling.training import DataConfig
from tests.experiments.test_former_runs import unpacked
from tests.registry.examples import thorough

TINY = """
    --preset short --model SA_M1_F8 --widths 4 3 --scales 2 --scenes 4 --scene-size 32 --crop 16
    --batch-size 4 --drops 1 --steps 2 --log-every 1
"""


def train(run_dir, *options):
    return main(["joint-upsampling", "train", "--run-dir", str(run_dir), *TINY.split(), *options])


def evaluate(*options):
    return main(["joint-upsampling", "evaluate", *map(str, options)])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Long enough to learn something; the tests share it, for it takes its time to compile."""
    path = tmp_path_factory.mktemp("run") / "tiny"
    assert train(path, "--steps", "60", "--drops", "50") == 0
    return path


@pytest.fixture(scope="module")
def former_run(tmp_path_factory):
    """A run of the same network that need not be made."""
    return unpacked("joint_upsampling", tmp_path_factory.mktemp("former") / "run")


@pytest.fixture
def filters_only(monkeypatch):
    """Without the methods that compile for seconds."""
    monkeypatch.setattr(evaluation, "METHODS", FILTERS)


@pytest.fixture
def pairs(tmp_path):
    """Two pairs: a step in the depth where the colour changes, with one hole."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for index in range(2):
        depth = np.full((16, 24), 50, np.uint8)
        depth[:, 9 + index :] = 200
        depth[3, 4] = 0
        guide = np.repeat(depth[..., None], 3, axis=-1)
        Image.fromarray(guide).save(folder / f"p{index}_rgb.png")
        Image.fromarray(depth).save(folder / f"p{index}_depth.png")
    return folder


@pytest.mark.slow  # the acceptance script runs it as a command
def test_demo_smoke(tmp_path, capsys):
    assert main(["joint-upsampling", "demo", "--smoke", "--scales", "2", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    for method in (*FILTERS, "DJF-small", "attention"):
        assert out.count(f"| {method} ") == 2  # held-out scenes and the real pair
    with Image.open(tmp_path / "demo" / "comparison.png") as figure:
        assert figure.width > 1000
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    for table in results.values():
        assert all(0 < row["2x"] < 30 for row in table.values())
        assert table["guided filter"]["2x"] < table["bicubic"]["2x"] * 1.2


@pytest.mark.thorough
def test_training_reduces_the_loss(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:10], lines[-10:]))
    assert last < 0.8 * first


@pytest.mark.thorough  # of a former run by default
def test_evaluate_a_checkpoint_on_a_folder(filters_only, run_dir, pairs, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--source", "pairs", "--scales", "2", "4", "--pictures"]
    assert evaluate("--run-dir", run_dir, "--data-dir", pairs, "--out", out, *options) == 0
    assert "| SA_M1_F8 " in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"results.json", "table.md", "p0_2x.png", "p0_4x.png", "p1_2x.png", "p1_4x.png"}
    results = json.loads((out / "results.json").read_text())
    assert len(results["images"]) == 4
    mean = np.mean([row["bicubic"] for row in results["images"] if row["scale"] == "2x"])
    assert results["mean"]["bicubic"]["2x"] == pytest.approx(mean)


def test_evaluate_agrees_with_a_hand_computed_error(filters_only, pairs, capsys):
    """Bicubic at 2x of the even columns, computed on the spot with the pixels of the hole left out."""
    assert evaluate("--source", "pairs", "--data-dir", pairs, "--scales", "2") == 0
    printed = float(capsys.readouterr().out.split("| bicubic ")[1].split("|")[1])
    source = DataConfig("pairs", data_dir=pairs).open("test")
    errors = []
    for index in range(2):
        depth = source[index].depth[..., 0]
        row = np.pad(depth[0, 1::2], 2, mode="edge")
        # Keys' kernel at the two phases of half-pixel resizing by 2, a = -0.5.
        left = np.array([-0.0703125, 0.8671875, 0.2265625, -0.0234375])[::-1]
        up = np.empty(24)
        for j in range(12):
            up[2 * j] = left @ row[j : j + 4]
            up[2 * j + 1] = left[::-1] @ row[j + 1 : j + 5]
        error = np.broadcast_to(up, depth.shape) - depth
        valid = source[index].valid[..., 0]
        errors.append(np.sqrt((error[valid] ** 2).mean()))
    assert printed == pytest.approx(np.mean(errors), rel=2e-3)


@pytest.mark.slow
def test_evaluate_several_runs(run_dir, pairs, tmp_path, capsys):
    """A second run that begins with the weights of the first, and one of another network, in one table with all."""
    assert train(tmp_path / "second", "--start", str(run_dir), "--steps", "1", "--learning-rate", "0") == 0
    assert train(tmp_path / "fdkn", "--model", "FDKN", "--no-guided", "--steps", "1") == 0
    runs = [word for path in (run_dir, tmp_path / "second", tmp_path / "fdkn") for word in ("--run-dir", path)]
    assert evaluate(*runs, "--source", "pairs", "--data-dir", pairs, "--scales", "2", "--held-out", "1") == 2
    assert "held_out: " in capsys.readouterr().err
    assert evaluate(*runs, "--source", "pairs", "--data-dir", pairs, "--scales", "2", "--out", tmp_path / "out") == 0
    table = json.loads((tmp_path / "out" / "results.json").read_text())["mean"]
    names = [f"SA_M1_F8 ({run_dir.name})", "SA_M1_F8 (second)", "FDKN w/o guide"]
    assert list(table) == ["bicubic", "guided filter", "joint bilateral", "FGI", "FBS", *names]
    assert table[names[0]]["2x"] == pytest.approx(table[names[1]]["2x"], rel=1e-6)
    assert all(0 < row["2x"] < 60 for name, row in table.items() if not name.startswith("SA"))


@pytest.mark.slow
def test_deformable_networks_learn_on_whole_images(pairs, tmp_path):
    words = "--model FDKN --widths 8 8 --source pairs --scales 4 --protocol bicubic --crop None --loss l1 --steps 24"
    words += f" --data-dir {pairs} --learning-rate 3e-3 --drops 12 18 --drop-factor 5 --batch-size 4 --log-every 1"
    assert main(["joint-upsampling", "train", "--run-dir", str(tmp_path / "run"), *words.split()]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [lines[step]["learning_rate"] for step in (0, 14, 20)] == pytest.approx([3e-3, 6e-4, 1.2e-4])
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:5], lines[-5:]))
    assert last < 0.9 * first


@pytest.mark.slow
def test_ablation_prints_and_stores_every_row(tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(ablation, "train", trained.append)
    monkeypatch.setattr(ablation, "as_methods", lambda runs: {run.label: METHODS["bicubic"] for run in runs})
    words = ["--run-dir", str(tmp_path), "--widths", "4", "4", "--scenes", "1", "--scene-size", "32"]
    assert main(["joint-upsampling", "ablation", *words, "--kernel-sizes", "1", "3"]) == 0
    assert len({run.run.run_dir for run in trained}) == 14
    parts = {
        (run.network.guided, run.network.from_depth, run.network.offsets, run.network.residual)
        for run in trained
        if run.network.kernel_size == 3
    }
    plain = {(*sources, offsets, False) for sources in ((1, 0), (0, 1), (1, 1)) for offsets in (0, 1)}
    assert parts == plain | {(1, 1, 1, True)}
    assert all(nnx.eval_shape(lambda run=run: run.network.build(0)) for run in trained)
    table = json.loads((tmp_path / "results.json").read_text())
    assert list(table) == list(ablation.ROWS)
    assert len({row["1 x 1"] for row in table.values()}) == 1
    assert "| weights and offsets from both, residual " in capsys.readouterr().out


@pytest.mark.thorough
def test_ablation_of_some_rows(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(ablation, "train", trained.append)
    monkeypatch.setattr(ablation, "as_methods", lambda runs: {run.label: METHODS["bicubic"] for run in runs})
    words = ["--run-dir", str(tmp_path), "--scenes", "1", "--scene-size", "32", "--kernel-sizes", "3"]
    assert main(["joint-upsampling", "ablation", *words, "--rows", "weights from RGB", "weights from both"]) == 0
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["weights from RGB", "weights from both"]
    assert {run.network.label for run in trained} == {
        "FDKN w/o depth w/o offsets w/o residual",
        "FDKN w/o offsets w/o residual",
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", ["DMSG --scale 2", thorough("DKN-dilated"), "DKN-23"])
def test_other_networks_are_trained(model, tmp_path):
    words = TINY.replace("--model SA_M1_F8 --widths 4 3", f"--model {model} --widths None --residual None")
    assert main(["joint-upsampling", "train", "--run-dir", str(tmp_path / "run"), *words.split()]) == 0
    assert (
        evaluate(
            "--run-dir",
            tmp_path / "run",
            "--source",
            "scenes",
            "--scenes",
            "1",
            "--scene-size",
            "32",
            "--scales",
            "2",
            "--no-solvers",
        )
        == 0
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("evaluate --source pairs --data-dir {tmp}/none", "none: no such folder"),
        ("evaluate --source pairs --data-dir {tmp}", "no pairs <id>_rgb.* and <id>_depth.*"),
        ("evaluate --source pairs --data-dir {pairs} --scales 32", "multiple: expected at most the size of p0"),
        ("evaluate --source nyu --data-dir {tmp}", "nyu_depth_v2_labeled.mat"),
        ("evaluate --source sintel --data-dir {tmp}", "no depth maps SCENE/frame_*.dpt"),
        ("evaluate --source middlebury --data-dir {tmp}", "no scenes view1.* and disp1.*"),
        ("evaluate --source lu --data-dir {tmp}", "no pairs <id>_rgb.* and <id>_depth.*"),
        ("evaluate --run-dir {tmp}/none", "is not a run directory"),
        ("evaluate --pictures", "pictures: expected a directory for them, --out"),
        ("evaluate --out {pairs}", "exists already"),
        ("train --run-dir {run} --preset short --seed 3", "holds a run of another configuration"),
        ("train --run-dir {pairs} --preset short", "is neither empty nor a run directory"),
        ("train --run-dir {tmp}/new --model SA_M9", "model: expected one of"),
        ("train --run-dir {tmp}/new --model FDKN --no-guided --no-from-depth", "guide_features: expected channels"),
        ("train --run-dir {tmp}/new --scenes 4 --pairs 5", "pairs: expected 1 to 4, as many as there are, got 5"),
        ("ablation --run-dir {tmp}/new --rows depth", "rows: expected one of 'weights from RGB'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, former_run, pairs, tmp_path, capsys):
    words = arguments.format(tmp=tmp_path, pairs=pairs, run=former_run).split()
    before = sorted(path.name for path in pairs.iterdir())
    assert main(["joint-upsampling", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert sorted(path.name for path in pairs.iterdir()) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("train --model SA_M1_F8 --kernel-size 7", "kernel_size: has no effect on SA_M1_F8, only on DKN, FDKN"),
        ("train --model DJF --window-size 9", "window_size: has no effect on DJF"),
        ("train --model SA_M1_F8 --cubic-coefficient -0.5", "cubic_coefficient: has no effect on SA_M1_F8"),
        ("train --model FDKN --scaled", "scaled: has no effect on FDKN"),
        ("train --model FDKN --no-offsets --window-size 9", "window_size: has no effect on FDKN"),
        ("train --scales 6 --crop 48", "scales: expected powers of two for SA_M1_F16, got 6"),
        ("train --scales 8 0", "scales: expected an integer >= 1, got 0"),
        ("train --held-out 4", "held_out: has no effect with the source scenes"),
        ("train --data-dir {pairs}", "data_dir: has no effect with the source scenes"),
        ("train --source pairs --data-dir {pairs} --held-out 1", "held_out: expected 0 or at least 2, got 1"),
        ("train --source pairs --data-dir {pairs} --held-out -2", "held_out: expected 0 or at least 2, got -2"),
        ("train --source pairs --data-dir {pairs} --scenes 3", "scenes: has no effect with the source pairs"),
        ("evaluate --run-dir {run} --scales 2 6", "scales: expected powers of two for SA_M1_F8, got 6"),
        ("evaluate --source scenes --pairs 3", "pairs: has no effect with the source scenes in this command"),
        ("evaluate --protocol djf --protocols grid bicubic", "protocol: has no effect beside protocols"),
        ("evaluate --protocols grid noise", "protocol: noise is for the command denoise"),
        ("saliency --run-dir {run} --scale 6", "scales: expected powers of two for SA_M1_F8, got 6"),
        ("saliency --source folder --data-dir {pairs} --scenes 3", "scenes: has no effect with the source folder"),
        ("ablation --kernel-size 5", "kernel_size: has no effect in ablation"),
        ("ablation --no-guided", "guided: has no effect in ablation"),
        ("demo --scales 4 6 --out {tmp}/new", "scales: expected powers of two for SA_M1_F8, got 6"),
        ("filter --target {pairs}/p0_rgb.png --size 40 --out {tmp}/new", "size: has no effect with a target"),
    ],
)
def test_what_has_no_effect_is_refused_before_any_work(
    arguments, message, former_run, pairs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(joint_upsampling.training, "fit", lambda *_: pytest.fail("trained"))
    words = arguments.format(tmp=tmp_path, pairs=pairs, run=former_run).split()
    words += ["--run-dir", str(tmp_path / "new")] if words[0] in ("train", "ablation") else []
    assert main(["joint-upsampling", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "new").exists()


def test_labels():
    labels = {
        NetworkConfig("DJF"): "DJF",
        NetworkConfig("DJF", residual=True): "DJFR",
        NetworkConfig("DJFScaled+", residual=True): "DJFRScaled+",
        NetworkConfig("SA_M2_F32", scaled=True): "SA_M2_F32, scaled",
        NetworkConfig("DKN", residual=False, offsets=False): "DKN w/o offsets w/o residual",
    }
    assert [config.label for config in labels] == list(labels.values())
    assert NetworkConfig("DJF", residual=True).published == "DJFR"
    assert NetworkConfig("SA_M2_F32", scaled=True).published == "SA_M2_F32"
    for other in (NetworkConfig(residual=True), NetworkConfig("DKN", kernel_size=5), NetworkConfig(widths=(8, 4))):
        assert other.published == ""
    assert nnx.eval_shape(lambda: NetworkConfig("SA_M1_F8", scaled=True).build(0)).scaled


def test_the_papers_numbers_stand_beside_their_protocol(filters_only, pairs, tmp_path, capsys):
    """All three protocols in one call, and each number of the papers under one of them, or marked under all."""
    options = ["--source", "middlebury", "--data-dir", pairs, "--scales", "2", "8", "--out", tmp_path / "out"]
    assert evaluate(*options, "--protocols", "grid", "bicubic", "djf") == 0
    grid, bicubic, djf = capsys.readouterr().out.split("RMSE in ")[1:]
    assert "7.58" not in grid + bicubic and "| bicubic " in bicubic
    assert "| paper |" in djf and "7.58" in djf.split("| bicubic ")[1].splitlines()[0]
    assert re.search(r"\| FDKN +\|.* 2\.17 ", bicubic) and "FDKN" not in grid + djf
    assert all(re.search(r"\| joint bilateral +\|.* 3\.81\? ", table) for table in (grid, bicubic, djf))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == ["grid", "bicubic", "djf"] and len({str(r["mean"]) for r in results.values()}) == 3
    assert main(["joint-upsampling", "evaluate", "--preset", "smoke"]) == 0
    assert "paper: cm, on NYU Depth v2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, protocol, bicubic",
    [
        thorough("middlebury", "djf", 7.00),
        thorough("middlebury", "bicubic", 3.60),
        ("lu", "djf", 10.17),
        ("lu", "bicubic", 4.98),
    ],
)
def test_protocols_on_real_pairs(name, protocol, bicubic, shared_data):
    """RMSE of bicubic enlargement at 8x on whole images, measured once by other code."""
    source = DataConfig(name, data_dir=shared_data / "rgbd" / name).open("test")
    data = DataConfig(scales=(8,), protocol=protocol)
    compared = evaluation.compare_pairs(source, data, {"bicubic": FILTERS["bicubic"]}, border=0)
    assert np.mean([c.errors["bicubic"] for _, _, c in compared]) == pytest.approx(bicubic, abs=0.006)


@pytest.mark.thorough  # of photographs by default
def test_data_may_move_and_runs_may_grow(tmp_path, pairs):
    words = ["--source", "pairs", "--model", "SA_M1_F8", "--widths", "4", "3", "--scales", "2", "--crop", "16"]
    words += ["--batch-size", "4", "--run-dir", str(tmp_path / "run"), "--drops", "1"]
    assert main(["joint-upsampling", "train", *words, "--data-dir", str(pairs), "--steps", "1"]) == 0
    pairs.rename(tmp_path / "moved")
    assert main(["joint-upsampling", "train", *words, "--data-dir", str(tmp_path / "moved"), "--steps", "2"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "all invalid"])
def test_damaged_pairs(filters_only, damage, pairs, capsys):
    path = pairs / "p1_depth.png"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "text":
        path.write_text("no image")
    else:
        Image.fromarray(np.zeros((16, 24), np.uint8)).save(path)
    assert evaluate("--source", "pairs", "--data-dir", pairs, "--scales", "2") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "p1_" in error and "\n" not in error
