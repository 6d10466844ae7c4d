"""The task `instances`: training, measures, table and pictures, with a stub in the place of the networks."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.__main__ import main
from experiments.data.instances import First, segments_of
from experiments.data.instances_batches import Augmentation
from experiments.data.instances_shapes import Scenes
from experiments.engine.runs import Run
from experiments.engine.trained import Trained
from experiments.instances import presets
from experiments.instances.drawing import outlined, panoptic
from experiments.instances.evaluation import Found, enlarged, method, scores
from experiments.instances.networks import NETWORKS, NetworkConfig
from experiments.instances.paper import PAPER, RESULTS, paper_cells
from experiments.instances.training import loss_of
from experiments.segmentation.drawing import palette
from jaxup.files import InputError
from jaxup.metrics import Segment
from jaxup.models.segmentation import Upsampling
from jaxup.ops import resize

TRACED = []


class Stub(nnx.Module):
    """Finds the same two objects everywhere, and stuff by colour; its losses are how far off it is, and a draw."""

    def __init__(self, num_classes, *, stuff_classes=0, upsampler, rngs, **_):
        self.backbone = nnx.Conv(3, 4, (4, 4), 4, rngs=rngs)
        self.up = Upsampling(upsampler, in_features=4, guides=(4,), scale=2, rngs=rngs)
        self.semantic = nnx.Conv(4, stuff_classes + 1, (1, 1), rngs=rngs)
        self.with_stuff = stuff_classes > 0

    def logits(self, x):
        features = self.backbone(x)
        return self.semantic(self.up(features[:, ::2, ::2], [features]))

    def losses(self, x, targets, key, *, limits, anchors_drawn, boxes_drawn):
        assert targets["boxes"].shape[1:] == (targets["masks"].shape[1], 4) and limits.shape == (len(x), 2)
        return {"semantic": jnp.mean(self.logits(x) ** 2), "drawn": jax.random.uniform(key)}

    def __call__(self, x, limits=None):
        TRACED.append(x.shape)
        boxes = jnp.array([[[8.0, 4, 24, 20], [0, 0, 8, 8], [0, 0, 0, 0]]])
        found = {"boxes": boxes, "scores": jnp.array([[0.9, 0.8, 0]]), "labels": jnp.array([[1, 0, -1]])}
        found |= {"masks": jnp.ones((1, 3, 28, 28)).at[:, 2].set(0)}
        return found | ({"semantic": self.logits(x)} if self.with_stuff else {})


@contextmanager
def stubs():
    with pytest.MonkeyPatch.context() as patch:
        for name in NETWORKS:
            patch.setitem(NETWORKS, name, Stub)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    pytest.importorskip("pycocotools")
    folder = tmp_path_factory.mktemp("instances")
    with stubs():
        assert main(["instances", "table", "--smoke", "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.thorough
def test_table(table, tmp_path, capsys):
    rows = json.loads((table / "results.json").read_text())
    assert [row["network"] for row in rows] == ["nearest", "bilinear"]
    for row in rows:
        assert all(0 <= row[name] <= 100 for name in ("AP", "AP50", "AP75", "box AP", "PQ", "PQth", "PQst", "SQ", "RQ"))
        assert row["s/step"] > 0 and row["GiB"] > 0 and set(row["box"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert (table / "objects.png").is_file() and (table / "panoptic.png").is_file()
    runs = [part for name in ("nearest", "bilinear") for part in ("--run-dir", str(table / name))]
    out = str(tmp_path / "out")
    with stubs():
        assert main(["instances", "evaluate", *runs, "--images", "2", "--out", out]) == 0
        (again, _) = json.loads((tmp_path / "out" / "results.json").read_text())
        assert all(again[name] == rows[0][name] for name in ("AP", "PQ", "SQ", "RQ", "box"))
        assert main(["instances", "pictures", *runs, "--images", "0", "3", "--out", str(tmp_path / "pictures")]) == 0
        with Image.open(tmp_path / "pictures" / "panoptic.png") as picture:
            assert picture.width > picture.height  # four panels in each of two rows
        capsys.readouterr()
        for arguments, message in (
            (["pictures", *runs, "--images", "4", "--out", "a"], "images: expected numbers from 0 to 3, got (4,)"),
            (["table", "--smoke", "--run-dir", "a", "--upsampler", "resfu"], "upsampler: has no effect beside upsampl"),
            (["table", "--smoke", "--run-dir", "a", "--upsamplers", "resfoo"], "upsampler: expected one of"),
            (["train", "--smoke", "--run-dir", "a", "--data-dir", "b"], "data_dir: has no effect on generated scenes"),
            (["train", "--smoke", "--run-dir", "a", "--fixed-norms"], "fixed_norms: expected backbone_weights"),
            (["train", "--smoke", "--run-dir", "a", "--boxes-drawn", "0"], "boxes_drawn: expected 1"),
            (["train", "--smoke", "--run-dir", "a", "--width", "1"], "width: expected"),
            (
                ["train", "--preset", "coco-1x", "--data-dir", ".", "--no-fixed-norms"],
                "has neither annotations nor coco",
            ),
        ):
            assert main(["instances", *arguments]) == 2
            assert message in capsys.readouterr().err


def test_without_pycocotools(monkeypatch, capsys, tmp_path):
    """Nothing is trained before it is missed."""
    for name in ("pycocotools", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, name, None)
    for command in (["evaluate", "--smoke"], ["table", "--smoke", "--run-dir", str(tmp_path / "run")]):
        assert main(["instances", *command]) == 2
        assert capsys.readouterr().err == 'error: this needs pycocotools: pip install "jaxup[detection]"\n'
    assert not (tmp_path / "run").exists()


class Perfect:
    """Knows the scenes of a source."""

    def __init__(self, source, shift=0):
        self.source, self.shift = source, shift
        self.known = {scene.image.tobytes(): scene for scene in (source[n] for n in range(len(source)))}

    def __call__(self, image):
        scene = self.known[image.tobytes()]
        segments, listed = segments_of(scene, len(self.source.things), len(self.source.stuff))
        objects = {"boxes": scene.boxes, "labels": scene.labels, "masks": np.roll(scene.masks, self.shift, 2)}
        objects["scores"] = np.ones(len(scene.labels))
        return Found(objects, segments, [segment._replace(crowd=False) for segment in listed])


def test_scores_of_the_truth():
    """Scenes with crowds; then all masks beside their objects, with the boxes where they are."""
    pytest.importorskip("pycocotools")
    source = Scenes(5, (48, 64), seed=8)
    assert any(source[n].crowd.any() for n in range(5))
    row = scores(Perfect(source), source)
    for name in ("AP", "AP50", "AP75", "APs", "box AP", "PQ", "PQth", "PQst", "SQ", "RQ"):
        assert row[name] == pytest.approx(100), name
    assert row["APl"] == ""
    moved = scores(Perfect(source, 32), source)
    assert moved["box AP"] == pytest.approx(100) and moved["AP"] < 5


class Bare(First):
    """Scenes of which the second has no object, only stuff."""

    def __getitem__(self, index):
        scene = super().__getitem__(index)
        if index != 1:
            return scene
        none = {name: getattr(scene, name)[:0] for name in ("boxes", "labels", "masks", "crowd", "areas")}
        return scene._replace(**none, stuff=np.zeros_like(scene.stuff), name="bare", image=255 - scene.image)


def test_images_without_objects():
    """In them there is nothing to find, and elsewhere nothing may be found."""
    pytest.importorskip("pycocotools")
    source = Bare(Scenes(3, (48, 64), seed=8), 3)
    row = scores(Perfect(source), source)
    assert [row[name] for name in ("AP", "box AP", "PQ", "PQst")] == pytest.approx([100] * 4)
    empty = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, np.int32)}
    row = scores(lambda x: Found(empty | {"masks": np.zeros((0, 48, 64), bool)}, np.zeros((48, 64), int), []), source)
    assert row["AP"] == row["box AP"] == row["PQ"] == 0


@pytest.mark.thorough
def test_images_of_all_sizes_share_one_program():
    """Boxes and masks come back to the size of the image; what is padding is neither an object nor stuff."""
    source = Scenes(2, (48, 64))
    config = replace(presets.smoke(), augmentation=Augmentation(64, padded=(64, 96), objects=8))
    with stubs():
        model = config.network.build(source, 0)
    find = method(Run("a", config, Trained(model, 0)), source, 1)
    before = len(TRACED)
    for height, width in ((32, 40), (128, 130), (64, 96), (31, 47)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        found = find(image)
        seen = config.augmentation.shape(height, width)
        ratio = np.array([width / seen[1], height / seen[0]] * 2)
        wanted = np.array([[8, 4, 24, 20], [0, 0, 8, 8]]) * ratio
        np.testing.assert_allclose(found.objects["boxes"], wanted, rtol=1e-5)
        assert found.objects["labels"].tolist() == [1, 0] and found.objects["masks"].shape == (2, height, width)
        x1, y1, x2, y2 = np.rint(wanted[0]).astype(int)
        assert found.objects["masks"][0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
        assert found.objects["masks"][0].sum() <= (x2 - x1 + 2) * (y2 - y1 + 2)
        assert found.segments.shape == (height, width) and {s.id for s in found.listed} == {
            n for n in np.unique(found.segments).tolist() if n
        }
        assert found.listed[0] == Segment(1, 1)
    assert len(TRACED) == before + 1


def test_enlarged_is_bilinear():
    logits = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    wanted = jax.jit(lambda x: resize(x, size=(24, 40), method="bilinear"))(logits[None])[0]
    np.testing.assert_allclose(enlarged(logits, (1, 1), (24, 40)), wanted, atol=1e-5)
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[None, :, None], (6, 8, 1))
    half = enlarged(ramp, (0.5, 0.5), (12, 16))[5, :, 0]  # columns 0 to 4, each as four
    np.testing.assert_allclose(half[2:-2], (np.arange(16)[2:-2] + 0.5) / 4 - 0.5, atol=1e-5)


@pytest.mark.thorough
def test_draws_follow_from_the_state():
    """The same state draws the same, and each step anew."""
    with stubs():
        first, second = (Trained(NetworkConfig("panoptic_fpn").build(Scenes(1), 0), 3) for _ in range(2))
    zeros = {"boxes": jnp.zeros((1, 2, 4)), "masks": jnp.zeros((1, 2, 16, 16), bool), "limits": jnp.zeros((1, 2))}
    batch = zeros | {"image": jnp.zeros((1, 16, 16, 3), jnp.uint8)}
    loss = loss_of(3, 4)
    drawn = [[float(loss(model, batch)[1]["drawn"]) for _ in range(2)] for model in (first, second)]
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[0][1]
    value, parts = loss(first, batch)
    assert value == parts["semantic"] + parts["drawn"]


def test_stuff_is_needed_for_panoptic_maps():
    class Objects:
        things, stuff = ("a", "b"), ()

    with pytest.raises(InputError, match="source: expected one with stuff for panoptic_fpn, as coco-panoptic"):
        NetworkConfig("panoptic_fpn").build(Objects(), 0)
    with pytest.raises(ValueError, match="model: expected one of"):
        NetworkConfig("mask-rcnn").build(Objects(), 0)


@pytest.mark.thorough
def test_networks():
    """Both are built for the classes of their data, and the norms of both backbones can be fixed."""
    for name in NETWORKS:
        config = NetworkConfig(name, "tiny", "bilinear", width=8)
        model = nnx.eval_shape(lambda config=config: Trained(config.build(Scenes(1), 0), 1, ("backbone",)))
        model.train()
        norms = [part for _, part in nnx.iter_modules(model.network.backbone) if isinstance(part, nnx.BatchNorm)]
        assert norms and all(norm.use_running_average for norm in norms)
        assert config.label == f"{name}, tiny, bilinear"
        instances = model.network if name == "mask_rcnn" else model.network.instances
        assert instances.num_classes == 7 and instances.convention_name == "mmdet"


@pytest.mark.slow  # a minute to compile
@pytest.mark.parametrize("model", NETWORKS)
def test_smoke(model, tmp_path):
    """The networks themselves; a run that goes on ends in the same losses as one that did not stop."""
    arguments = ["instances", "train", "--smoke", "--model", model, "--steps"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*arguments, "2", "--run-dir", str(whole)]) == 0
    for steps in ("1", "2"):
        assert main([*arguments, steps, "--run-dir", str(parts)]) == 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    others = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and np.isfinite([line["loss"] for line in lines]).all()
    assert [line["objectness"] for line in lines] == [line["objectness"] for line in others]


@pytest.mark.slow  # half a minute to compile
def test_memory(tmp_path, capsys):
    """Nothing is computed, and what is no option of it is refused."""
    assert main(["instances", "memory", "--smoke", "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert row["upsampler"] == "nearest" and 0 < row["GiB"] < 0.1 and "nearest: 0.0" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_of_a_step_that_is_run(capsys):
    assert main(["instances", "memory", "--smoke", "--run"]) == 0
    assert "| nearest   |" in (out := capsys.readouterr().out) and "| peak, GiB |" in out


def test_faulty_memory(capsys):
    for options, message in (
        (["--upsampler", "resfu"], "upsampler: has no effect beside upsamplers"),
        (["--batch-size", "0"], "batch_size: expected an integer >= 1, got 0"),
    ):
        assert main(["instances", "memory", "--smoke", *options]) == 2
        assert message in capsys.readouterr().err


def test_the_paper():
    """Table XII, as the text of the paper has it."""
    assert len(PAPER) == 10 and all(len(rows) == 10 for rows in RESULTS.values())
    cells = paper_cells(NetworkConfig(upsampler="resfu"))
    assert list(cells.values()) == ["36.1", "57.4", "38.4", "16.8", "38.8", "52.5"]
    assert paper_cells(NetworkConfig())["paper AP"] == "34.7"  # nearest, if nothing is said
    cells = paper_cells(NetworkConfig("panoptic_fpn", upsampler="carafe"))
    assert list(cells.values()) == ["40.8", "47.7", "30.4", "78.2", "50.0"] and "paper PQst" in cells
    assert set(paper_cells(NetworkConfig(backbone="resnet18")).values()) == {""}
    assert set(paper_cells(NetworkConfig(upsampler="a2u")).values()) == {""}


def test_presets_are_valid():
    for preset in (presets.shapes, presets.coco_1x):
        config = preset()
        config.network.check()
        config.optimizer.build(config.run.steps)
    assert config.run.steps == 87_948 and config.data.source == "coco"
    assert config.optimizer.drops == (58_632, 80_619)


def test_pictures_of_masks():
    """The first mask is on top; black is nothing, and things of one class differ."""
    image, masks = np.zeros((8, 9, 3), np.uint8), np.zeros((2, 8, 9), bool)
    masks[0, 2:6, 2:6] = masks[1, 3:7, 3:8] = True
    shown = outlined(image, masks)
    first, second = palette()[1:3] / 255
    assert not shown[~masks.any(0)].any() and image.max() == 0
    np.testing.assert_allclose(shown[5, 5], first)  # its corner, in the middle of the other one
    np.testing.assert_allclose(shown[3, 3], first / 2 + second / 2)
    np.testing.assert_allclose(shown[6, 7], second)
    segments = np.array([[0, 1, 2, 3]])
    colours = panoptic(segments, [Segment(1, 0), Segment(2, 0), Segment(3, 5)], 5)
    assert not colours[0, 0].any() and len(np.unique(colours[0], axis=0)) == 4


def test_no_colour_of_a_panoptic_map_is_nearly_another():
    """Twenty things on four kinds of stuff: bright ones on dull ones, and none is dark as what has no segment."""
    segments = np.arange(1, 25)[None]
    listed = [Segment(n, 9 if n <= 20 else 10 + n - 21) for n in range(1, 25)]
    colours = np.append(panoptic(segments, listed, 10)[0], [[0, 0, 0]], axis=0)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 9 * np.eye(25)
    assert distances[:20, 20:].min() > 0.4 and distances[20:, 20:].min() > 0.08 and distances.min() > 0.08
