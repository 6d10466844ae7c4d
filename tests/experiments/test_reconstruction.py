"""The reconstruction experiment from the command line, and its data."""

import gzip
import io
import json
import os
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import reconstruction
from experiments.__main__ import main
from experiments.data.fashion_mnist import fashion_mnist, from_tfds
from experiments.engine.config import RunConfig
from experiments.reconstruction import pictures
from experiments.reconstruction.paper import ROWS
from experiments.reconstruction.training import DataConfig, TrainConfig, look_up
from jaxup.files import InputError
from jaxup.models.resampling import RESAMPLINGS
from jaxup.nn.indexnet import IndexMaps
from tests.compare import assert_close


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def sheet(path, tiles, columns):
    rows = tiles.reshape(-1, columns, 28, 28).transpose(0, 2, 1, 3)
    Image.fromarray(rows.reshape(-1, 28 * columns)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two training sheets and a test sheet."""
    path = tmp_path / "data"
    path.mkdir()
    sheet(path / "train_00000_images.png", images(12)[:6], 3)
    sheet(path / "train_00006_images.png", images(12)[6:], 2)
    sheet(path / "t10k_images.png", images(4, seed=1), 2)
    return path


def command(*arguments):
    return main(["reconstruction", *map(str, arguments)])


def test_sheets(folder):
    np.testing.assert_array_equal(fashion_mnist(folder, "train"), images(12))
    np.testing.assert_array_equal(fashion_mnist(folder, "test"), images(4, seed=1))
    data = DataConfig("fashion-mnist", folder, images=3).open("train")
    assert data.shape == (3, 32, 32, 1) and data.dtype == np.uint8
    bilinear = Image.fromarray(images(12)[2]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(data[2, ..., 0].astype(int) - np.asarray(bilinear)).max() <= 1


@pytest.mark.parametrize("suffix, packed", [("", open), (".gz", gzip.open)], ids=["plain", "packed"])
def test_official_files(tmp_path, suffix, packed):
    header = b"\0\0\x08\x03" + np.array([4, 28, 28], ">u4").tobytes()
    with packed(tmp_path / f"t10k-images-idx3-ubyte{suffix}", "wb") as file:
        file.write(header + images(4).tobytes())
    np.testing.assert_array_equal(fashion_mnist(tmp_path, "test"), images(4))


def test_tfds(tmp_path):
    """A data set as TFDS itself would have prepared it."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from array_record.python.array_record_module import ArrayRecordWriter

    builder = tfds.builder("fashion_mnist", data_dir=tmp_path, file_format="array_record")
    features, folder = builder.info.features, builder.data_dir
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    os.makedirs(folder)
    writer = ArrayRecordWriter(os.path.join(folder, "fashion_mnist-test.array_record-00000-of-00001"), "group_size:1")
    for image in images(3):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        writer.write(serializer.serialize_example({"image": png.getvalue(), "label": np.int64(1)}))
    writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="fashion_mnist", split="test", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(name="test", shard_lengths=[3], num_bytes=1, filename_template=template)
    builder.info.set_splits(tfds.core.splits.SplitDict([split]))
    builder.info.write_to_directory(folder)
    np.testing.assert_array_equal(from_tfds(tmp_path, "test"), images(3))


def test_tfds_not_prepared(tmp_path):
    with pytest.raises(InputError, match=r"fashion_mnist in .*: cannot be read as ArrayRecord"):
        from_tfds(tmp_path, "train")


def test_embedded_patches():
    train, test = (DataConfig(images=5000).open(split) for split in ("train", "test"))
    assert train.shape == (5000, 32, 32, 1) and test.shape == (382, 32, 32, 1)
    assert train.dtype == np.uint8 and train.std() > 20


def test_look_up():
    data = images(6)[..., None]
    index = next(iter(grain.MapDataset.range(6).seed(0).shuffle().batch(4).to_iter_dataset()))
    assert_close(look_up(data, index), data[index] / 255, 1e-6)


@pytest.mark.thorough
def test_train_and_evaluate(folder, tmp_path, capsys):
    """Two rows on a folder; a second start trains nothing, and evaluation prints the same table."""
    run_dir, source = tmp_path / "runs", ("--source", "fashion-mnist", "--data-dir", folder)
    options = ("--smoke", "--methods", "conv-carafe", "max-unpool", *source, "--run-dir", run_dir)
    assert command("train", *options) == 0
    table = capsys.readouterr().out.split("training")[-1].partition("\n")[2]
    assert "| Conv/2-CARAFE     |" in table and "| 681        |" in table and " 25.55 " in table
    names = {
        "conv-carafe",
        "max-unpool",
        "table.md",
        "results.json",
        "reconstructions.png",
        "index_maps_max-unpool.png",
        "kernels_conv-carafe.png",
    }
    assert {path.name for path in run_dir.iterdir()} == names
    results = json.loads((run_dir / "results.json").read_text())["max-unpool"]
    assert results["psnr"] == pytest.approx(-20 * np.log10(results["rmse"]))
    metrics = (run_dir / "conv-carafe" / "metrics.jsonl").read_bytes()
    assert b"data_wait" in metrics
    assert command("train", *options, "--methods", "conv-carafe") == 0
    assert (run_dir / "conv-carafe" / "metrics.jsonl").read_bytes() == metrics
    capsys.readouterr()
    assert command("evaluate", "--run-dir", run_dir, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == table
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert command("evaluate", "--run-dir", run_dir, "--out", tmp_path / "out") == 2
    assert command("evaluate", "--run-dir", run_dir, "--run-dir", run_dir / "max-unpool") == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [f"error: {tmp_path}/out: exists already", "error: run_dir: two runs of one method"]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "t10k_images.png").unlink(), "holds neither t10k-images-idx3-ubyte"),
        (lambda folder: (folder / "t10k_images.png").write_bytes(b"\x89PNG"), "t10k_images.png: cannot be read"),
        (lambda folder: Image.new("L", (56, 29)).save(folder / "t10k_images.png"), "expected a sheet of 28 x 28 tiles"),
        (lambda folder: (folder / "t10k-images-idx3-ubyte").write_bytes(b"\0" * 20), "is not an idx file of images"),
        (lambda folder: (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"\0" * 20), "-ubyte.gz: cannot be read"),
    ],
)
def test_missing_and_damaged_files(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        fashion_mnist(folder, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--methods", "conv-nearest"], "methods: expected one of 'avg-nearest'"),
        (["train", "--source", "fashion-mnist", "--data-dir", "nowhere"], "nowhere: no such folder"),
        (["train", "--methods", "max-unpool", "--no-context"], "context: has no effect on max-unpool, only on index"),
        (["train", "--data-dir", "nowhere"], "data_dir: has no effect with the source photos"),
        (["evaluate"], "run_dir: expected the directory of a run"),
        (["evaluate", "--run-dir", "nowhere"], "nowhere: is not a run directory"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_images():
    with pytest.raises(InputError, match="images: expected at least 1, got 0"):
        DataConfig(images=0)


def test_presets():
    paper = reconstruction.presets.paper()
    assert set(paper.methods) == set(ROWS) <= set(RESAMPLINGS)
    epoch = 60_000 // paper.batch_size
    assert [step / epoch for step in (*paper.optimizer.drops, paper.run.steps)] == [50, 70, 85, 100]


@pytest.mark.thorough
def test_variants_of_index_networks():
    run = RunConfig(Path("runs"))
    plain, linear = TrainConfig(run, ("holistic",)), TrainConfig(run, ("m2o",), nonlinear=False, context=False)
    softmax = TrainConfig(run, ("m2o",), encoder_normalization="softmax", decoder_normalization="softmax")
    assert [config.label for config in (plain, linear, softmax)] == [
        "IP-IU, HIN",
        "IP-IU, M2O, not nonlinear, not context",
        "IP-IU, M2O, softmax/softmax",
    ]
    layers = [nnx.eval_shape(config.build).resampling.down_layers[0] for config in (linear, softmax)]
    assert [layer.encoder_normalization for layer in layers] == ["sigmoid+softmax", "softmax"]
    assert len(jax.tree.leaves(nnx.state(layers[0]))) < len(jax.tree.leaves(nnx.state(layers[1])))
    for method in ("holistic-max-unpool", "m2o-bilinear", "max-a2u", "a2u-softmax"):
        config = TrainConfig(run, (method,), widths=(4,))
        assert nnx.eval_shape(config.build) is not None
        assert config.label == method


def test_index_maps_are_drawn_random_beside_learned(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "panel_figure", lambda path, rows, side: drawn.append(rows))
    rng = np.random.default_rng(0)
    learned, random = ([IndexMaps(*rng.random((2, 1, 4, 4, 3)))] for _ in range(2))
    image = rng.random((4, 4, 1))
    pictures.memory_figure(tmp_path / "a.png", image, learned, random)
    ((first, *maps), _) = drawn[0]
    assert [panel.title for panel in maps] == ["random", "learned", "channel 0", "channel 1", "channel 2"]
    np.testing.assert_array_equal(maps[0].image, random[0].encoder[0].mean(-1))
    np.testing.assert_array_equal(maps[1].image, learned[0].encoder[0].mean(-1))
    np.testing.assert_array_equal(maps[4].image, learned[0].encoder[0][..., 2])
    assert first.label.startswith("stage 1\nencoder") and len({panel.span for panel in maps}) == 1
    pictures.memory_figure(tmp_path / "a.png", image, learned)
    assert [panel.title for panel in drawn[1][0][1:]] == ["channel 0", "channel 1", "channel 2"]
