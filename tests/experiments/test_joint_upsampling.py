"""The depth upsampling experiment from the command line, as its users run it."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import joint_upsampling
from experiments.__main__ import main
from experiments.joint_upsampling import DataConfig, NetworkConfig, TrainConfig

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
    path = tmp_path_factory.mktemp("run") / "tiny"
    assert train(path) == 0
    return path


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


def test_demo_smoke(tmp_path, capsys):
    assert main(["joint-upsampling", "demo", "--smoke", "--scales", "2", "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    for method in ("bicubic", "guided filter", "joint bilateral", "DJF-small", "attention"):
        assert out.count(f"| {method} ") == 2  # held-out scenes and the real pair
    with Image.open(tmp_path / "demo" / "comparison.png") as figure:
        assert figure.width > 1000
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    for table in results.values():
        assert all(0 < row["2x"] < 30 for row in table.values())
        assert table["guided filter"]["2x"] < table["bicubic"]["2x"] * 1.2


def test_training_reduces_the_loss(tmp_path):
    assert train(tmp_path / "run", "--steps", "60", "--drops", "50") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:10], lines[-10:]))
    assert last < 0.8 * first


def test_evaluate_a_checkpoint_on_a_folder(run_dir, pairs, tmp_path, capsys):
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


def test_evaluate_agrees_with_a_hand_computed_error(pairs, capsys):
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


def test_masked_loss_ignores_invalid_pixels():
    batch = {
        "target": np.zeros((1, 2, 2, 1), np.float32),
        "guide": np.zeros((1, 4, 4, 3), np.float32),
        "depth": np.full((1, 4, 4, 1), 2, np.float32),
        "valid": np.ones((1, 4, 4, 1), np.float32),
    }
    batch["depth"][0, 0] = 1e6
    batch["valid"][0, 0] = 0
    loss, metrics = joint_upsampling.masked_l2(lambda target, guide: np.zeros((1, 4, 4, 1), np.float32), batch)
    assert loss == pytest.approx(4) and metrics["rmse"] == pytest.approx(2)
    batch["valid"][:] = 0
    assert joint_upsampling.masked_l2(lambda target, guide: guide[..., :1], batch)[0] == 0


def test_presets_are_the_papers():
    nyu = joint_upsampling.nyu()
    assert (nyu.batch_size, nyu.crop, nyu.learning_rate) == (10, 256, 1e-3)
    assert (nyu.run.steps, nyu.drops) == (2000 * 100, (1200 * 100, 1600 * 100))
    assert isinstance(nyu, TrainConfig) and nyu.network == NetworkConfig("SA_M2_F32")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("evaluate --source pairs --data-dir {tmp}/none", "none: no such folder"),
        ("evaluate --source pairs --data-dir {tmp}", "no pairs <id>_rgb.* and <id>_depth.*"),
        ("evaluate --source pairs --data-dir {pairs} --scales 32", "multiple: expected at most the size of p0"),
        ("evaluate --source nyu --data-dir {tmp}", "nyu_depth_v2_labeled.mat"),
        ("evaluate --run-dir {tmp}/none", "is not a run directory"),
        ("evaluate --pictures", "pictures: expected a directory for them, --out"),
        ("evaluate --out {pairs}", "exists already"),
        ("train --run-dir {run} --preset short --steps 3", "holds a run of another configuration"),
        ("train --run-dir {pairs} --preset short", "is neither empty nor a run directory"),
        ("train --run-dir {tmp}/new --model SA_M9", "preset: expected one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, run_dir, pairs, tmp_path, capsys):
    words = arguments.format(tmp=tmp_path, pairs=pairs, run=run_dir).split()
    before = sorted(path.name for path in pairs.iterdir())
    assert main(["joint-upsampling", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert sorted(path.name for path in pairs.iterdir()) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "all invalid"])
def test_damaged_pairs(damage, pairs, capsys):
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
