"""Every reader of data sets reads a damaged file or refuses it in one line, and none is led out of its folder."""

import gzip
import json
import os
import struct
import zipfile

import h5py
import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from experiments.data import images
from experiments.data.denoising import grey_images
from experiments.data.fashion_mnist import idx
from experiments.data.instances_coco import Instances, Panoptic
from experiments.data.matting_sets import adobe_training
from experiments.data.nyu import FastDepthFrames, HuFrames, _split
from experiments.data.rgbd import nyu_frame, nyu_frames
from experiments.data.segmentation import listed, read_labels
from experiments.data.segmentation_sets import Archive, _ade_classes
from experiments.engine.config import RunConfig, load_config
from experiments.engine.stored import to_json
from experiments.engine.weights import published
from experiments.segmentation import presets
from experiments.segmentation.training import TrainConfig
from jaxup import interop
from jaxup.files import InputError
from tests.fuzzing import fuzz
from tests.test_hostile_files import array, element, mat

FEW, MANY = 40, int(os.environ.get("JAXUP_DAMAGED", "10000"))
RGB = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
LABELS = (RGB[..., 0] % 11).astype(np.uint8)


def written(name, content):
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return make


def archive(**arrays):
    def make(folder):
        np.savez_compressed(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def camvid(folder):
    Image.fromarray(RGB).save(folder / "a.png")
    stream = np.frombuffer((folder / "a.png").read_bytes(), np.uint8)
    arrays = {
        "names": np.array(["a"]),
        "labels": LABELS[None],
        "streams": stream,
        "offsets": np.array([0, len(stream)]),
    }
    return archive(**arrays)(folder)


def h5(**arrays):
    def make(folder):
        path = folder / "train/room/1.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, compression="gzip" if name == "images" else None)
        return path

    return make


def labels(folder):
    Image.fromarray(LABELS).save(folder / "a.png")
    return folder / "a.png"


def sbd(folder):
    field = element(14, array(9, (8, 10), b"", element(2, LABELS.T.tobytes()))[8:])
    names = struct.pack("<HH", 5, 4) + struct.pack("<i", 16) + element(1, b"Segmentation".ljust(16, b"\0"))
    return mat(folder, array(2, (1, 1), b"GTcls", names, field))


def splits(folder):
    return mat(folder, array(6, (3, 1), b"trainNdxs", element(4, struct.pack("<3H", 1, 2, 5))))


def hu(folder):
    Image.fromarray(RGB).save(folder / "a.png")
    Image.fromarray(LABELS + 1).save(folder / "b.png")
    return written("nyu2_train.csv", "a.png,b.png\na.png,b.png\n")(folder)


def noisy(folder):
    Image.fromarray(RGB).save(folder / "a.png")
    return written("set12.csv", "name,file\nfirst,a.png\n")(folder)


def coco(maps=""):
    """One image, with a crowd by its run lengths, or with a map of segments."""

    def make(folder):
        Image.fromarray(RGB).save(folder / "a.png")
        Image.fromarray(np.stack([LABELS % 2, 0 * LABELS, 0 * LABELS], axis=-1)).save(folder / "b.png")
        segment = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 1}
        segment["segmentation"] = {"size": [8, 10], "counts": [30, 20, 30]}
        found = {"image_id": 5, "file_name": "b.png", "segments_info": [segment]} if maps else segment
        stored = {"images": [{"id": 5, "file_name": "a.png"}], "categories": [{"id": 3, "name": "dog", "isthing": 1}]}
        return written("a.json", json.dumps(stored | {"annotations": [found]}))(folder)

    return make


def image(folder):
    Image.fromarray(RGB).save(folder / "a.png")
    return folder / "a.png"


SEGFORMER = {
    "backbone": {"embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
    "decode_head": {"num_classes": 3, "channels": 16},
}


def segformer(folder):
    """What `segmentation predict` is given."""
    module = nnx.eval_shape(lambda: interop.OPERATORS["mmseg.SegFormer"](SEGFORMER)[0])
    nnx.update(module, jax.tree.map(lambda x: np.zeros(x.shape, np.float32), nnx.state(module)))
    save_file(interop.to_torch("mmseg.SegFormer", module, SEGFORMER), folder / "a.safetensors")
    return folder / "a.safetensors"


FRAMES = {"rgb": RGB.transpose(2, 0, 1), "depth": LABELS.astype(np.float32) + 1}
NYU = {"images": RGB.transpose(2, 1, 0)[None], "depths": LABELS.T[None].astype(np.float32)}
RUN = json.dumps(to_json(RunConfig("runs/a")), indent=2)  # type: ignore[arg-type]
IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 28, 28) + bytes(2 * 784)

LOADERS = {
    "npz": (archive(depth=FRAMES["depth"], other=LABELS), images.read_map),
    "dpt": (written("a.dpt", struct.pack("<fii", 202021.25, 3, 4) + bytes(48)), images.read_dpt),
    "idx": (written("a-ubyte", IDX), idx),
    "packed idx": (written("a.gz", gzip.compress(IDX, mtime=0)), idx),
    "camvid": (camvid, lambda path: Archive(path)[0]),
    "label map": (labels, read_labels),
    "sbd": (sbd, read_labels),
    "splits.mat": (splits, lambda path: _split(path, "trainNdxs")),
    "fastdepth": (h5(**FRAMES), lambda path: FastDepthFrames(path.parents[2], "train")[0]),
    "nyu": (h5(**NYU), lambda path: nyu_frame(path, nyu_frames(path) - 1)),
    "hu's list": (hu, lambda path: HuFrames(path.parent, "train")[0]),
    "csv of denoising": (noisy, lambda path: grey_images("set12", path.parent, "test")),
    "list": (written("train.txt", "a\nb\n2008_000123\n"), listed),
    "classes of ade20k": (
        written("objectInfo150.txt", "Idx\n" + "".join(f"{i}\t0.1\tname, other\n" for i in range(150))),
        lambda path: _ade_classes(path.parent),
    ),
    "coco": (coco(), lambda path: Instances(path, path.parent)[0]),
    "panoptic coco": (coco("b.png"), lambda path: Panoptic(path, path.parent, path.parent)[0]),
    "image": (image, images.read_rgb),
    "published weights": (segformer, lambda path: published(path, "mmseg.SegFormer", SEGFORMER)),
    "configuration of segmentation": (
        written("config.json", json.dumps(to_json(presets.smoke()))),
        lambda path: load_config(TrainConfig, path.parent),
    ),
    "configuration": (written("config.json", RUN), lambda path: load_config(RunConfig, path.parent)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.thorough] * (x == "published weights")) for x in LOADERS]
)
def test_damaged_files(name, tmp_path):
    fuzz(*LOADERS[name], tmp_path, FEW if name != "published weights" else FEW // 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_many_damaged_files(name, tmp_path):
    print(f"{name}: {fuzz(*LOADERS[name], tmp_path, MANY, seed=1)} of {MANY} read")


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "b/../../a.png", "x" * 300, "y/" * 600])
def test_lists_that_lead_out_of_their_folder(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    base = tmp_path / "set"
    (base / "Training_set" / "Other" / "fg").mkdir(parents=True)
    written("nyu2_train.csv", f"{name},{name}\n")(base)
    with pytest.raises(InputError, match=r"nyu2_train\.csv: lists "):
        HuFrames(base, "train")[0]
    written("set12.csv", f"name,file\na,{name}\n")(base)
    with pytest.raises(InputError, match=r"set12\.csv: lists "):
        grey_images("set12", base, "test")
    with pytest.raises(InputError, match=r"train\.txt: lists "):
        listed(written("train.txt", name)(base))
    written("training_fg_names.txt", name)(base / "Training_set")
    with pytest.raises(InputError, match=r"training_fg_names\.txt: lists "):
        adobe_training(base)


def linked(kind):
    def put(path):
        with h5py.File(path.with_name("other.h5"), "w") as other:
            other["x"] = FRAMES["depth"]
        (path.parent / "raw").write_bytes(FRAMES["depth"].tobytes())
        with h5py.File(path, "r+") as file:
            del file["depth"]
            if kind == "external link":
                file["depth"] = h5py.ExternalLink("other.h5", "x")
            elif kind == "external storage":
                file.create_dataset("depth", (8, 10), "f4", external=[(str(path.parent / "raw"), 0, 320)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((8, 10), "f4")
                layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "x", (8, 10))
                file.create_virtual_dataset("depth", layout, fillvalue=0)
            else:
                file.create_dataset("depth", (2**20, 2**10), "f4", chunks=(64, 64))

    return put


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual", "huge"])
def test_frames_that_are_elsewhere(tmp_path, kind):
    path = h5(**FRAMES)(tmp_path)
    linked(kind)(path)
    with pytest.raises(InputError, match=r"1\.h5: .*(of this file|is more than)"):
        FastDepthFrames(tmp_path, "train")[0]


def test_nyu_frames_have_a_cap(tmp_path, monkeypatch):
    path = h5(**NYU)(tmp_path)
    assert nyu_frames(path) == 1
    monkeypatch.setattr("jaxup.files.MAX_PIXELS", 40)
    with pytest.raises(InputError, match="10 x 8 is more than 40 pixels"):
        nyu_frames(path)


def test_archives_that_promise_too_much(tmp_path):
    """More images than the file has, or far more bytes; an array whose header is longer than its member."""
    for count, data in ((2**31, b""), (2, bytes(2**20)), (2, b"")):
        stored = gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", count, 28, 28) + data)
        with pytest.raises(InputError, match=r"a\.gz: (is not an idx|holds more or fewer)"):
            idx(written("a.gz", stored)(tmp_path))
    head = b"\x93NUMPY\1\0" + struct.pack("<H", 118)
    head += b"{'descr': '<f4', 'fortran_order': False, 'shape': (65536, 65536), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("depth.npy", head + bytes(100))
    with pytest.raises(InputError, match=r"a\.npz: 'depth\.npy' of 228 bytes is no array float32"):
        images.read_map(tmp_path / "a.npz")


def test_label_maps_are_of_the_formats_of_images(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "a.gif")
    os.rename(tmp_path / "a.gif", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: cannot be read: cannot identify"):
        read_labels(tmp_path / "a.png")


def test_configurations_in_each_other(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config\.json: cannot be read as JSON"):
        load_config(RunConfig, tmp_path)
