"""Files of published networks, tested on a folder of COCO by one command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from experiments.__main__ import main
from experiments.data.instances import First
from experiments.data.instances_coco import coco
from experiments.instances.networks import seen
from experiments.instances.published import CONFIGS, Numbered, classes
from experiments.segmentation.networks import normalised
from jaxup.files import InputError
from jaxup.interop import OPERATORS, to_torch
from jaxup.models.segmentation import MaskRCNN, PanopticFPN
from tests.experiments.test_instances_data import annotation, image, panoptic, written

SIZE = (60, 80)
BOX = (10, 20, 50, 40)
HEADS = {"bbox_head": {"num_classes": 2, "fc_out_channels": 6}, "mask_head": {"num_convs": 1, "conv_out_channels": 6}}
MMDET = {"backbone": {"type": "ResNet", "depth": 18}, "neck": {"out_channels": 8}, "roi_head": HEADS}
SMALL = {
    "maskrcnn_resnet50_fpn": {
        "num_classes": 91,
        "depth": 18,
        "out_channels": 8,
        "representation_size": 6,
        "mask_layers": [6],
        "mask_dim_reduced": 5,
    },
    "mmdet.MaskRCNN": MMDET,
    "mmdet.PanopticFPN": MMDET | {"semantic_head": {"num_stuff_classes": 1, "inner_channels": 8}},
}


def stored(path, name):
    """A file of random weights under the official names."""
    module = nnx.eval_shape(lambda: OPERATORS[name](SMALL[name])[0])
    draw = np.random.default_rng(0)
    nnx.update(module, jax.tree.map(lambda x: draw.standard_normal(x.shape, np.float32), nnx.state(module)))
    save_file(to_torch(name, module, SMALL[name]), path)
    return ["instances", "evaluate", "--checkpoint", str(path), "--name", name, "--config", json.dumps(SMALL[name])]


def finds(*labels):
    """In the place of a network: these classes in the same box, best first, and the first kind of stuff everywhere."""

    def run(self, x, limits=None, rngs=None):
        boxes = jnp.tile(jnp.array(BOX, jnp.float32) * limits[0, 0] / SIZE[0], (1, len(labels), 1))
        scores = jnp.linspace(0.9, 0.8, len(labels))[None]
        found = {"boxes": boxes, "scores": scores, "labels": jnp.array([labels], jnp.int32)}
        found |= {"masks": jnp.ones((1, len(labels), 28, 28))}
        return found | ({} if isinstance(self, MaskRCNN) else {"semantic": jnp.ones((1, 4, 4, 2)).at[..., 1].set(0)})

    return run


@pytest.fixture
def folder(tmp_path):
    """COCO's numbers 3, a dog, and 90, a cat; the image has a dog."""
    x1, y1, x2, y2 = BOX
    polygon = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    dog = annotation(polygon, category_id=3, bbox=[x1, y1, x2 - x1, y2 - y1], area=800)
    written(tmp_path, [dog], images=[{"id": 5, "file_name": "a.png"}])
    image(tmp_path / "val2017" / "a.png", *SIZE)
    return tmp_path


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "dog"), [("maskrcnn_resnet50_fpn", 2), ("mmdet.MaskRCNN", 0)])
def test_evaluation(name, dog, folder, monkeypatch, capsys):
    """torchvision's class n has COCO's number n + 1, of which some are not used; mmdetection's are in their order."""
    pytest.importorskip("pycocotools")
    command = [*stored(folder / "net.safetensors", name), "--data-dir", str(folder)]
    monkeypatch.setattr(MaskRCNN, "__call__", finds(1, dog, -1))  # the other class is no object here, or the cat
    assert main([*command, "--out", str(folder / "out")]) == 0
    (row,) = json.loads((folder / "out" / "results.json").read_text())
    assert row["network"] == "net" and row["paper AP"] == "34.7"
    assert row["box AP"] == pytest.approx(100) and row["AP"] > 80
    other = "mmdet.MaskRCNN" if dog else "maskrcnn_resnet50_fpn"
    capsys.readouterr()
    assert main([*command, "--name", other, "--config", json.dumps(SMALL[other])]) == 2
    assert f"net.safetensors, as {other}: " in capsys.readouterr().err


@pytest.mark.thorough
def test_panoptic_evaluation(tmp_path, monkeypatch):
    pytest.importorskip("pycocotools")
    ids = np.full(SIZE, 9)
    ids[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 8
    panoptic(tmp_path, ids, [(8, 3, 0), (9, 7, 0)])
    image(tmp_path / "val2017" / "a.png", *SIZE)
    command = [*stored(tmp_path / "net.safetensors", "mmdet.PanopticFPN"), "--data-dir", str(tmp_path)]
    monkeypatch.setattr(PanopticFPN, "__call__", finds(0))
    assert main([*command, "--least-area", "1", "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert row["PQ"] == row["PQth"] == row["PQst"] == pytest.approx(100) and row["paper PQ"] == "40.2"


class Classes:
    """What a published network says about its classes."""

    def __init__(self, count, convention, **others):
        self.num_classes, self.convention_name = count, convention
        vars(self).update(others)


def test_classes(folder):
    """Also of a source of which only the first images are tested; what does not fit is refused."""
    source = First(coco(folder, "test"), 1)
    assert source.ids == [3, 90]
    table = classes(Classes(90, "torchvision"), source)
    assert len(table) == 90 and {n: k for n, k in enumerate(table) if k >= 0} == {2: 0, 89: 1}
    assert classes(Classes(2, "mmdet"), source) == (0, 1)
    for network, message in (
        (Classes(89, "torchvision"), "checkpoint: expected classes for the numbers up to 90, got 89"),
        (Classes(80, "mmdet"), "checkpoint: expected 2 classes, as many as the data have, got 80"),
        (Classes(2, "mmdet", stuff_classes=53), "checkpoint: expected 0 classes of stuff, got 53"),
    ):
        with pytest.raises(InputError, match=message):
            classes(network, source)
    network = lambda x, limits: {"labels": np.array([[2, 89, 4, -1]])}  # noqa: E731
    assert Numbered(network, table)(None, None)["labels"].tolist() == [[0, 1, -1, -1]]


@pytest.mark.thorough
def test_files_for_coco():
    """What they are of, if nothing is said."""
    modules = [nnx.eval_shape(lambda name=name: OPERATORS[name](CONFIGS[name])[0]) for name in CONFIGS]
    older, newer, both = modules
    assert (older.num_classes, newer.num_classes, both.instances.num_classes, both.stuff_classes) == (90, 80, 80, 53)
    count = sum(x.size for x in jax.tree.leaves(nnx.state(both, nnx.Param)))
    assert f"{count:,}" in PanopticFPN.__doc__


def test_padding_is_zero():
    """As in both published codes, and not what black becomes."""
    images = np.full((2, 4, 6, 3), 9, np.uint8)
    x = np.asarray(seen(images, np.array([[4, 6], [2, 3]], np.float32)))
    np.testing.assert_array_equal(x[0], normalised(images)[0])
    np.testing.assert_array_equal(x[1, :2, :3], x[0, :2, :3])
    assert not x[1, 2:].any() and not x[1, :, 3:].any()


def test_options_without_a_checkpoint(capsys):
    pytest.importorskip("pycocotools")
    assert main(["instances", "evaluate", "--name", "mmdet.MaskRCNN"]) == 2
    assert "name, config: have no effect without a checkpoint" in capsys.readouterr().err
